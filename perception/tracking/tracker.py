"""The tracker of one source: gives boxes identities that stay, from frame to frame."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from perception.card import TrackingSettings
from perception.tracking.motion import VALUE
from perception.tracking.step import CLASS, ID, PARAMETERS, POINTS, SCORE, TRAIL, drop_lost, move, step
from perception.types import F32, Detections

MOST_TRACKS = 4096
"""Tracks at once, lost ones included; while there are so many, none begins."""
USUAL_S = 1 / 30
"""Taken for the time between frames where the source's clock stands still or goes back."""
ROWS_AT_FIRST = 64


class Tracker:
    """Follows the boxes of one source. Time is the source's own, so that it works the same at any frame rate.

    Identities are numbers from 1, in the order in which tracks are confirmed, and are never given again. Memory is
    bounded by the settings' ``memory_s``, however long the source runs. One thread at a time uses a tracker.

    Args:
        settings: usually those of the model's card.
        classes: number of classes of boxes.

    Example:
        >>> tracker = Tracker(TrackingSettings.around(0.4), classes=len(model.card.detection.classes))
        >>> for frame in source:
        ...     tracked = tracker.update(model.predict(frame).detections, frame.time, (frame.width, frame.height))
    """

    def __init__(self, settings: TrackingSettings | None = None, classes: int = 1) -> None:
        settings = settings or TrackingSettings()
        self._parameters = np.array([getattr(settings, name) for name in PARAMETERS], np.float64)
        self._classes = max(classes, 1)
        self._count = 0
        self._next_id = 1
        self._last: float | None = None
        self._now = 0.0
        self._step = USUAL_S
        self._state = self._rows(ROWS_AT_FIRST)
        self._shown = (np.zeros(0, np.int64), np.zeros((0, TRAIL, 3)), np.zeros(0, np.int64))

    def update(
        self,
        detections: Detections,
        time: float,
        size: tuple[int, int] | None = None,
        motion: NDArray[np.float64] | None = None,
    ) -> Detections:
        """Take the boxes of the next frame.

        Args:
            detections: of all scores that the settings look at.
            time: of the frame, in seconds of the source's clock.
            size: (width, height) of the frame. Boxes are cut to it, or as far beyond as what was found goes; None: they
                are not cut.
            motion: of the camera since the last frame, see `perception.tracking.camera.CameraMotion`.

        Returns:
            The boxes of confirmed tracks, highest score first, with their ``track_ids``. A box is what the track's
            filter makes of all it has seen; class and score are steadied along the track, too.
        """
        between = self._tick(time)
        self._make_room(self._count + len(detections))
        row_of = np.empty(len(detections), np.int64)
        boxes, scores, class_ids = (
            np.ascontiguousarray(detections.boxes, np.float32),
            np.ascontiguousarray(detections.scores, np.float32),
            np.ascontiguousarray(detections.class_ids, np.int32),
        )
        if len(class_ids) and not 0 <= class_ids.min() <= class_ids.max() < self._classes:
            raise ValueError(f"class ids must be in 0..{self._classes - 1}")
        if motion is not None:
            filters, anchors, _, _, trails, _ = self._state
            move(np.ascontiguousarray(motion, np.float64), self._count, filters, anchors, trails)
        self._count, self._next_id = step(
            boxes, scores, class_ids, self._now, between, self._parameters, self._count, self._next_id,
            *self._state, row_of,
        )  # fmt: skip
        shown = np.flatnonzero(row_of >= 0)
        tracked = self._confirmed(row_of[shown], boxes[shown], size)
        self._count = drop_lost(self._now, self._parameters, self._count, *self._state)
        return tracked

    def forget(self) -> None:
        """Forget all tracks, as after a cut: what is found next is somebody else. Identities go on counting."""
        self._count = 0

    @property
    def trails(self) -> dict[int, F32]:
        """By identity, the way of each track in the last frame: float32 ``[K, 2]``, bottom centres, oldest first."""
        ids, trails, points = self._shown
        return {i: _in_order(trail, p) for i, trail, p in zip(ids.tolist(), trails, points.tolist(), strict=True)}

    def _tick(self, time: float) -> float:
        """Advance the tracker's own clock, which never goes back; return the seconds since the last frame."""
        between = math.nan if self._last is None else time - self._last
        if math.isfinite(time):
            self._last = time
        if not (math.isfinite(between) and between > 0):  # the first one, or it stood still or went back
            between = self._step
        else:
            self._step = min(between, 1.0)
        self._now += between
        return between

    def _confirmed(self, rows: NDArray[np.int64], found: F32, size: tuple[int, int] | None) -> Detections:
        """The tracks in some rows, which were found in these boxes."""
        filters, _, facts, marks, trails, _ = self._state
        order = np.argsort(-facts[rows, SCORE], kind="stable")
        rows, found = rows[order], found[order]
        centres, sides = filters[rows, :2, VALUE], np.maximum(filters[rows, 2:, VALUE], 0)
        boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1).astype(np.float32)
        if size is not None:
            least = np.minimum(np.tile(found[:, :2], 2), 0)
            boxes = np.clip(boxes, least, np.maximum(np.tile(found[:, 2:], 2), np.array([*size, *size], np.float32)))
        ids = marks[rows, ID]
        self._shown = (ids, trails[rows], marks[rows, POINTS])
        return Detections(boxes, facts[rows, SCORE].astype(np.float32), marks[rows, CLASS].astype(np.int32), ids)

    def _rows(self, count: int) -> tuple[NDArray[np.float64], ...]:
        """Filters, anchors, facts, marks, trails, votes: see `perception.tracking.step.step`."""
        return (
            np.zeros((count, 4, 5)), np.zeros((count, 4, 5)), np.zeros((count, 3)), np.zeros((count, 4), np.int64),
            np.zeros((count, TRAIL, 3)), np.zeros((count, self._classes)),
        )  # fmt: skip

    def _make_room(self, wanted: int) -> None:
        have = len(self._state[0])
        if wanted > have and have < MOST_TRACKS:
            larger = self._rows(min(max(wanted, 2 * have), MOST_TRACKS))
            for new, old in zip(larger, self._state, strict=True):
                new[:have] = old
            self._state = larger


def _in_order(trail: NDArray[np.float64], points: int) -> F32:
    first = max(points - TRAIL, 0)
    return trail[np.arange(first, points) % TRAIL, 1:].astype(np.float32)
