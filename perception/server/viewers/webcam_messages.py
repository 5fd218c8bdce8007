"""What clients and server say on ``WS /v1/webcam`` beside results: settings, rules, frames, descriptions of models.

The protocol is described in `perception.server.routes.webcam`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError

from perception.errors import UsageError
from perception.rules.settings import Rules, make_rules
from perception.server.options import Options
from perception.server.problems import TooLarge
from perception.types import Reading

if TYPE_CHECKING:
    from perception.card import ModelCard
    from perception.model import Model

FRAME_BYTES = 4_000_000
"""Most bytes of a frame: a JPEG of 12 megapixels in good quality."""

SETTINGS_BYTES = 64_000
_NUMBER = struct.Struct("<I")


class WebcamSettings(Options):
    """Settings of a client: `perception.server.options.Options`, of which the drawing is the browser's own, and more.

    Attributes:
        model: name of the model; None: the server's own choice.
        view: results hold boxes and class maps, and no outlines.
        map_cells: cells of the class map's longest side; 0: no class map.
    """

    model: str | None = Field(None, max_length=200)
    view: Literal["boxes"] = "boxes"
    map_cells: int = Field(320, ge=0, le=1024)


def parse_settings(text: str, settings: WebcamSettings) -> WebcamSettings:
    """``settings`` with the fields changed that a text message names; null is a field's default.

    Raises:
        UsageError: not JSON, an unknown field, or a value out of range.
    """
    if len(text) > SETTINGS_BYTES:
        raise UsageError(f"settings of {len(text)} characters are too long; {SETTINGS_BYTES} are allowed")
    try:
        changes = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError("a text message must be JSON") from None
    if not isinstance(changes, dict):
        raise UsageError("a text message must be a JSON object of settings")
    try:
        merged = {**settings.model_dump(), **changes}
        return WebcamSettings.model_validate({name: value for name, value in merged.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise UsageError(f"{where[:100]}: {first['msg']}") from None


def read_drawing(text: str) -> Rules | None:
    """The rules that a text message draws; None where it is about something else.

    Raises:
        RuleError: they are wrong.
    """
    if len(text) > SETTINGS_BYTES or '"draw"' not in text:
        return None
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or set(message) != {"draw"}:
        return None
    return make_rules(message["draw"], empty=True)


def file_of(message: bytes) -> bytes:
    """The picture of a binary message, as a file.

    Raises:
        UsageError: no picture at all.
        TooLarge: more bytes than `FRAME_BYTES`.
    """
    if len(message) > FRAME_BYTES:
        raise TooLarge(f"a frame of {len(message)} bytes is too large; at most {FRAME_BYTES}")
    if len(message) <= _NUMBER.size:
        raise UsageError("a binary message must be a frame's number (u32) and a JPEG")
    return message[_NUMBER.size :]


def describe(model: Model, name: str) -> dict[str, Any]:
    """Describe a model as a client must know it to draw its results; plain JSON."""
    card: ModelCard = model.card
    described: dict[str, Any] = {
        "type": "ready",
        "model": name,
        "engine": model.engine.description,
        "size": list(model.size),
        "tasks": card.tasks,
        "ignored": [],
        "unknown": False,
        "segmentation": [],
        "detection": [],
        "classification": [],
    }
    if card.segmentation is not None:
        described["ignored"] = card.segmentation.ignored
        described["unknown"] = card.segmentation.unknown is not None
        described["segmentation"] = [{"name": c.name, "color": list(c.color)} for c in card.segmentation.classes]
    if card.detection is not None:
        described["detection"] = [{"name": c.name, "color": list(c.color)} for c in card.detection.classes]
        described["score"] = card.detection.score_threshold
        described["iou"] = card.detection.iou_threshold
    if card.classification is not None:
        described["classification"] = [{"name": c.name, "color": list(c.color)} for c in card.classification.classes]
    return described


def number_of(message: bytes) -> int | None:
    """The number of a binary message's frame; None where it is too short to have one."""
    return _NUMBER.unpack_from(message)[0] if len(message) >= _NUMBER.size else None


def describe_readings(number: int | None, readings: Sequence[Reading]) -> dict[str, Any]:
    """What the rules say at a frame, for JSON."""
    active = [reading.name for reading in readings if reading.active]
    numbers = {reading.name: dict(reading.numbers) for reading in readings}
    return {"type": "readings", "frame": number, "rules": numbers, "active": active}
