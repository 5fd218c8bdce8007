"""Tracking of boxes that are in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from perception.card import TrackingSettings
from perception.common.settings import read_yaml
from perception.errors import UsageError
from perception.tracking.mot_text import MotText, mot_lines
from perception.tracking.tracker import Tracker
from perception.types import Detections


def read_settings(path: str | Path) -> TrackingSettings:
    """Read settings from YAML: the part ``tracking`` of a model's card.

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
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'settings'}: {fault['msg']}" for fault in error.errors()]
        raise UsageError("; ".join(faults), path) from None


def track_mot(
    rows: MotText, fps: float, size: tuple[int, int] | None = None, settings: TrackingSettings | None = None
) -> Iterator[str]:
    """Track the boxes of a file.

    Args:
        rows: detections; their identities do not matter, scores are taken to be in 0..1, classes below 0 are one class.
        fps: frames per second.
        size: (width, height) of the frames.
        settings: of the detector whose boxes they are.

    Yields:
        MOT text of each frame that has tracks.
    """
    names, class_ids = np.unique(rows.classes, return_inverse=True)
    tracker = Tracker(settings, max(len(names), 1))
    boxes, scores = rows.xyxy.astype(np.float32), np.clip(rows.scores, 0, 1).astype(np.float32)
    frames, starts = np.unique(rows.frames, return_index=True)
    for frame, start, end in zip(frames.tolist(), starts.tolist(), [*starts[1:].tolist(), len(rows)], strict=True):
        found = Detections(boxes[start:end], scores[start:end], class_ids[start:end].astype(np.int32))
        tracked = tracker.update(found, (frame - 1) / fps, size)
        assert tracked.track_ids is not None
        if len(tracked):
            yield mot_lines(frame, tracked.track_ids, tracked.boxes, tracked.scores, names[tracked.class_ids])
