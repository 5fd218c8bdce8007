"""The event: something that a rule noticed, and what is written, posted and published about it."""

from __future__ import annotations

import json
import math
import operator
import re
import time as clock
import uuid
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

SCHEMA = 1
"""Version of the schema: it changes where a reader of the old one would be misled, and not for new fields."""

SCHEMA_FILE = Path(__file__).with_name("event.schema.json")
"""JSON Schema of an event."""

KINDS = (
    *("crossed", "entered", "left", "loitering", "parked", "moved"),
    *("condition_started", "condition_ended"),
)
"""The kinds that the package's own rules make. The list is open: a reader must expect others."""

_KIND = re.compile(r"[a-z][a-z0-9_]*")
_NUMBERS = ("source_time", "score", "value", "duration")
_INTEGERS = ("frame", "track_id", "count")
_TEXTS = ("kind", "source", "rule", "time", "id")
_OPTIONAL_TEXTS = ("class_name", "direction", "snapshot", "clip")


def utc_now() -> str:
    """Return the time now, for `Event.time`."""
    return utc(clock.time())


def utc(seconds: float) -> str:
    """Return seconds since 1970 as UTC in ISO 8601, to the microsecond: ``2026-11-30T06:50:00.000000Z``."""
    text = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="microseconds")
    return text.replace("+00:00", "Z")


def seconds_of(text: str) -> float:
    """Return UTC in ISO 8601 as seconds since 1970.

    Raises:
        ValueError: it is something else, or of another time zone.
    """
    if not text.endswith("Z"):
        raise ValueError(f"{text!r} is no time in UTC such as 2026-11-30T06:50:00.000000Z")
    return datetime.fromisoformat(text[:-1] + "+00:00").timestamp()


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened in a source, as a rule saw it.

    Attributes:
        kind: what happened, lower case with underscores; `KINDS` has those of the package's rules.
        source: name of the source; never an address with a password.
        source_time: seconds of the source's clock, those of `Frame.time`.
        frame: `Frame.index` of the frame in which it was seen, or None.
        rule: name of the rule that noticed it.
        track_id: identity of the object, unique in its source, or None where it is about none.
        class_name: class of the object, or None.
        score: of the object, in 0..1, or None.
        box: of the object, xyxy in 0..1 of the upright frame, x to the right, y down, or None.
        direction: of a crossing, as the rule names it, or None.
        count: what there is after the event: of a crossing, crossings in that direction so far; of a zone, objects
            inside. An absolute number, so that whoever misses an event is right again with the next one.
        value: what a condition compared, such as the share of road in 0..1, or None.
        duration: seconds that the object was in the zone, stood still, or that the condition held, or None.
        snapshot: link to a picture of the moment, or None: a path of the service, a URL, or the path of a file.
        clip: link to a video of the moment, likewise. Events that overlap share one, which is there some seconds later.
        time: when it happened, UTC in ISO 8601 with ``Z``: of a live source when its frame arrived, of a recording when
            it was read. It is the machine's clock, so order and intervals are better taken from ``source_time``.
        id: unlike that of any other event; an event that is delivered twice has the same one.
        schema: version of the schema.

    Raises:
        ValueError: a value is not what is said here.
    """

    kind: str
    source: str
    source_time: float
    frame: int | None = None
    rule: str = ""
    track_id: int | None = None
    class_name: str | None = None
    score: float | None = None
    box: tuple[float, float, float, float] | None = None
    direction: str | None = None
    count: int | None = None
    value: float | None = None
    duration: float | None = None
    snapshot: str | None = None
    clip: str | None = None
    time: str = field(default_factory=utc_now)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        for name in (*_TEXTS, *_OPTIONAL_TEXTS):
            text = getattr(self, name)
            if not isinstance(text, str) and (text is not None or name in _TEXTS):
                raise ValueError(f"{name} must be text, not {text!r:.80}")
        for name in (*_NUMBERS, *_INTEGERS):  # NumPy's numbers become Python's, which JSON has
            number = getattr(self, name)
            if number is not None:
                object.__setattr__(self, name, float(number) if name in _NUMBERS else operator.index(number))
        if self.box is not None:
            left, top, right, bottom = (float(edge) for edge in self.box)
            object.__setattr__(self, "box", (left, top, right, bottom))
        if not _KIND.fullmatch(self.kind):
            raise ValueError(f"the kind of an event is lower case with underscores, not {self.kind!r}")
        if not self.id or self.schema != SCHEMA:
            raise ValueError(f"an event needs an id and schema {SCHEMA}, not {self.id!r} and {self.schema!r}")
        seconds_of(self.time)
        for name in _NUMBERS:
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                raise ValueError(f"{name} must be a number, not {number}")
        for name in ("frame", "count"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} must not be negative, not {getattr(self, name)}")
        if self.score is not None and not 0 <= self.score <= 1:
            raise ValueError(f"score must be in 0..1, not {self.score}")
        if self.box is not None:
            left, top, right, bottom = self.box
            if not (0 <= left <= right <= 1 and 0 <= top <= bottom <= 1):
                raise ValueError(f"a box is xyxy in 0..1 of the frame, not {self.box}")

    def to_dict(self) -> dict[str, Any]:
        """Return all fields by name, in the order in which they are written, for JSON."""
        return {name: list(self.box) if name == "box" and self.box else getattr(self, name) for name in _ORDER}

    def to_json(self) -> str:
        """Return it as one line of JSON, without the line's end. All fields are there, null where there is nothing."""
        text = json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "backslashreplace").decode()  # bytes of a file name that are none become \udce9

    @classmethod
    def from_json(cls, text: str | bytes) -> Event:
        """Read an event. Fields that are unknown, of a later version with the same schema number, are left out.

        Raises:
            ValueError: it is no event of this schema.
        """
        try:
            values = json.loads(text)
            if not isinstance(values, dict):
                raise ValueError("it is no JSON object")
            if values.get("schema") != SCHEMA:
                raise ValueError(f"its schema is {values.get('schema')!r}, and not {SCHEMA}")
            known = {name: values[name] for name in _ORDER if name in values}
            if known.get("box") is not None:
                left, top, right, bottom = (float(edge) for edge in known["box"])
                known["box"] = (left, top, right, bottom)
            return cls(**known)
        except (TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"no event: {error}") from None


_FIRST = ("schema", "id", "time", "source", "source_time", "frame", "rule", "kind")
_ORDER = (*_FIRST, *(f.name for f in fields(Event) if f.name not in _FIRST))


def relative_box(box: Any, width: int, height: int) -> tuple[float, float, float, float]:
    """Return a box of a frame's pixels in 0..1 of the frame, for `Event.box`.

    Args:
        box: four numbers, xyxy in pixels; what is outside of the frame is cut.
        width, height: of the upright frame.
    """
    left, top, right, bottom = (float(edge) for edge in box)
    x0, x1 = (round(min(max(x / width, 0.0), 1.0), 6) for x in (left, right))
    y0, y1 = (round(min(max(y / height, 0.0), 1.0), 6) for y in (top, bottom))
    return x0, y0, x1, y1
