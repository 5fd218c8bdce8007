"""Boxes with identities in a COCO JSON file, as CVAT exports them and ``perception annotate --coco`` writes them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from perception.errors import UsageError
from perception.tracking.mot_text import MotText, read_mot

_NUMBERED = re.compile(r"(?:.*[/\\])?frame_(\d{1,9})(?:\.\w+)?")


def read_tracks(path: str | Path) -> MotText:
    """Read boxes with identities from MOT text, or from COCO where the file ends in ``.json``.

    Raises:
        UsageError: see `perception.tracking.mot_text.read_mot` and `read_coco_tracks`.
    """
    return read_coco_tracks(path) if Path(path).suffix.lower() == ".json" else read_mot(path)


def read_coco_tracks(path: str | Path) -> MotText:
    """Read the boxes of a COCO file: the identity of each is ``track_id``, of its ``attributes`` or its own.

    Images are frames in the order of the numbers in their names (``frame_000012.PNG`` is the thirteenth), else of their
    ids. What has no identity, or is marked ``iscrowd``, does not count (a score of 0); categories are not told apart,
    all are class 1.

    Raises:
        UsageError: the file cannot be read, is no COCO, or a box, an image or an identity is none; says which.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}", path) from None
    except (ValueError, RecursionError):
        raise UsageError("is not JSON", path) from None
    lists = [document.get(name) if isinstance(document, dict) else None for name in ("images", "annotations")]
    if not all(isinstance(entries, list) and all(isinstance(e, dict) for e in entries) for entries in lists):
        raise UsageError("is no COCO: it needs images and annotations", path)
    images, annotations = lists
    frames = _frames(images or [], path)
    rows = [_row(entry, i, frames, path) for i, entry in enumerate(annotations or [])]
    table = np.array(rows, np.float64).reshape(-1, 7)
    table = table[np.argsort(table[:, 0], kind="stable")]
    whole = table[:, :2].astype(np.int64)
    return MotText(
        whole[:, 0], whole[:, 1], np.ascontiguousarray(table[:, 2:6]), table[:, 6], np.ones(len(table), np.int64)
    )


def _frames(images: list[dict[str, Any]], path: str | Path) -> dict[int, int]:
    """The number of the frame, from 1, of each image by its id."""
    ids = [image.get("id") for image in images]
    if not all(_is_whole(i) for i in ids) or len({*ids}) < len(ids):
        raise UsageError("each image needs an id of its own, a whole number", path)
    names = [_NUMBERED.fullmatch(str(image.get("file_name"))) for image in images]
    numbers = [int(name[1]) for name in names if name is not None]
    if len({*numbers}) == len(images):
        return {int(i): number + 1 for i, number in zip(ids, numbers, strict=True)}  # type: ignore[arg-type]
    return {int(i): number for number, i in enumerate(sorted(ids), 1)}  # type: ignore[arg-type,type-var]


def _row(entry: dict[str, Any], number: int, frames: dict[int, int], path: str | Path) -> list[float]:
    where = f"annotation {entry['id']}" if _is_whole(entry.get("id")) else f"the annotation at place {number}"
    image, box, attributes = entry.get("image_id"), entry.get("bbox"), entry.get("attributes")
    if not _is_whole(image) or image not in frames:
        raise UsageError(f"{where} is of an image that is not there", path)
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(side) for side in box):
        raise UsageError(f"{where} has no box: left, top, width, height", path)
    if box[2] < 0 or box[3] < 0:
        raise UsageError(f"{where}: width and height must not be negative", path)
    track = attributes.get("track_id") if isinstance(attributes, dict) else None
    track = entry.get("track_id") if track is None else track
    if track is not None and not (_is_whole(track) and 0 <= track < 2**53):
        raise UsageError(f"{where}: a track_id is a whole number from 0 on", path)
    counts = track is not None and not entry.get("iscrowd")
    score = entry.get("score", 1.0)
    if not _is_number(score):
        raise UsageError(f"{where}: its score is no number", path)
    return [frames[image], -1 if track is None else track, *map(float, box), float(score) if counts else 0.0]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < 1e15
    )
