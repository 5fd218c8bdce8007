"""Tracking of boxes that are in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from perception.card import TrackingSettings
from perception.common.settings import read_yaml
from perception.common.strict import faults_in
from perception.errors import UsageError
from perception.tracking.mot_text import MotText
from perception.tracking.tracker import Tracker
from perception.types import Detections


def read_settings(path: str | Path) -> TrackingSettings:
    """Read settings from YAML: the part ``tracking`` of a model's card, with that heading or without.

    Raises:
        UsageError: the file cannot be read, or a setting is unknown or out of range.
    """
    from pydantic import ValidationError

    data = read_yaml(path, "settings", UsageError)
    if isinstance(data, dict) and set(data) == {"tracking"}:
        data = data["tracking"]
    try:
        return TrackingSettings.model_validate(data)
    except ValidationError as error:
        raise UsageError(faults_in(error, "settings", TrackingSettings), path) from None


def detections_of(rows: MotText) -> tuple[list[tuple[int, Detections]], int]:
    """Take rows of MOT text for detections.

    Args:
        rows: their identities do not matter; scores are cut to 0..1; all classes below 0 are one.

    Returns:
        number and detections of each frame that has some, and the number of classes. Class ids are those of the file
        where none is below 0 or above 1000, else counted in their order.
    """
    classes = np.maximum(rows.classes, -1)
    names = np.unique(classes)
    if len(names) and (names[0] < 0 or names[-1] > 1000):
        classes = np.searchsorted(names, classes)
    boxes, scores = rows.xyxy.astype(np.float32), np.clip(rows.scores, 0, 1).astype(np.float32)
    frames, starts = np.unique(rows.frames, return_index=True)
    ends = [*starts.tolist(), len(rows)][1:]
    made = [
        (frame, Detections(boxes[start:end], scores[start:end], classes[start:end].astype(np.int32)))
        for frame, start, end in zip(frames.tolist(), starts.tolist(), ends, strict=True)
    ]
    return made, int(classes.max(initial=0)) + 1


def track_frames(
    frames: list[tuple[int, Detections]],
    classes: int,
    fps: float,
    size: tuple[int, int] | None = None,
    settings: TrackingSettings | None = None,
) -> Iterator[tuple[int, Detections]]:
    """Track detections, see `detections_of`; yields number and tracked boxes of each frame that had detections.

    Args:
        frames, classes: what there is to track.
        fps: frames per second.
        size: (width, height) of the frames, to which boxes are cut.
        settings: of the detector whose boxes they are.
    """
    tracker = Tracker(settings, classes)
    for frame, found in frames:
        yield frame, tracker.update(found, (frame - 1) / fps, size)


def as_mot(tracked: Iterator[tuple[int, Detections]]) -> MotText:
    """Tracked boxes as rows."""
    frames, ids, boxes, scores, classes = [], [], [], [], []
    for frame, found in tracked:
        assert found.track_ids is not None
        frames.append(np.full(len(found), frame, np.int64))
        ids.append(found.track_ids)
        boxes.append(found.boxes)
        scores.append(found.scores)
        classes.append(found.class_ids)
    if not frames:
        none = np.zeros(0, np.int64)
        return MotText(none, none, np.zeros((0, 4)), np.zeros(0), none)
    corners = np.concatenate(boxes).astype(np.float64)
    corners[:, 2:] -= corners[:, :2]
    return MotText(
        np.concatenate(frames), np.concatenate(ids), corners, np.concatenate(scores).astype(np.float64),
        np.concatenate(classes).astype(np.int64),
    )  # fmt: skip
