"""Tracked boxes at lines and zones, for one source: what happened in each frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perception.rules.crossing import CROSSING, UNSEEN
from perception.rules.crossing import SINCE as CROSSING_SINCE
from perception.rules.polygon import thickness
from perception.rules.settings import ANCHORS, Line, Zone
from perception.rules.step import FACTS, HAPPENING, LINE, OF_CLASS, TRACK, ZONE, step
from perception.rules.visit import ENTERED, INSIDE, SHOWN, VISIT
from perception.rules.visit import SINCE as VISIT_SINCE
from perception.types import Detections

F64 = NDArray[np.float64]

MOST_TRACKS = 4096
"""Tracks at once, lost ones included; while there are so many, none begins."""
ROWS_AT_FIRST = 64


class TracksAtRules:
    """Follows tracked boxes over lines and into zones. Memory is bounded by time: see ``memory_s``.

    Args:
        lines, zones: what there is.
        classes: names of the classes of boxes.
        memory_s: a track that was not seen for so many seconds is forgotten, and has left the zones that it was in. Not
            less than the tracker's own memory.
    """

    def __init__(
        self, lines: tuple[Line, ...], zones: tuple[Zone, ...], classes: list[str], memory_s: float = 2.0
    ) -> None:
        self._lines, self._zones = lines, zones
        self._classes = classes
        self._memory = memory_s
        self._wanted = np.array(
            [[zone.classes is None or name in zone.classes for name in classes] for zone in zones], np.bool_
        ).reshape(len(zones), max(len(classes), 1))
        self._count = 0
        self._rows = self._make_rows(ROWS_AT_FIRST)
        self._size: tuple[float, float] = (1.0, 1.0)
        self._arrays = self._make_arrays(1.0, 1.0)

    def update(self, detections: Detections, now: float, dt: float, width: int, height: int) -> F64:
        """Take the boxes of the next frame.

        Args:
            detections: with ``track_ids``.
            now: seconds of a clock that never goes back.
            dt: since the last frame.
            width, height: of the frame in pixels.

        Returns:
            What happened, float64 ``[M, HAPPENING]``; its columns are in `perception.rules.step`, boxes in pixels.
        """
        assert detections.track_ids is not None
        unit = float(min(width, height))
        size = (width / unit, height / unit)
        ended = np.zeros((0, HAPPENING))
        if abs(size[0] / size[1] - self._size[0] / self._size[1]) > 1e-3:  # places of before mean nothing now
            ended = self._step(Detections.empty(), now, dt, unit, -1.0)
        if size != self._size:
            self._size, self._arrays = size, self._make_arrays(*size)
        self._make_room(self._count + len(detections))
        found = self._step(detections, now, dt, unit, self._memory)
        return np.concatenate([ended, found]) if len(ended) else found

    def changed(self, lines: tuple[Line, ...], zones: tuple[Zone, ...]) -> TracksAtRules:
        """Return what follows the same tracks with other rules; at those that stay the same, it knows what it knew."""
        made = TracksAtRules(lines, zones, self._classes, self._memory)
        made._count = self._count
        made._rows = made._make_rows(len(self._rows[0]))
        made._size, made._arrays = self._size, made._make_arrays(*self._size)
        for new, old in zip(made._rows[:2], self._rows[:2], strict=True):
            new[:] = old
        crossings, visits = made._rows[2:]
        crossings[:, :, CROSSING_SINCE] = visits[:, :, VISIT_SINCE] = UNSEEN
        for i, line in enumerate(lines):
            if line in self._lines:
                crossings[:, i] = self._rows[2][:, self._lines.index(line)]
        for i, zone in enumerate(zones):
            if zone in self._zones:
                visits[:, i] = self._rows[3][:, self._zones.index(zone)]
        return made

    def staying(self, now: float) -> list[dict[int, float]]:
        """For each zone, by track the seconds that it has been inside."""
        visits = self._rows[3][: self._count]
        stays: list[dict[int, float]] = [{} for _ in self._zones]
        inside = (visits[:, :, INSIDE] > 0) & (visits[:, :, SHOWN] > 0)
        for row, zone in np.argwhere(inside).tolist():
            stays[zone][int(self._rows[0][row, TRACK])] = now - float(visits[row, zone, ENTERED])
        return stays

    def _step(self, detections: Detections, now: float, dt: float, unit: float, memory: float) -> F64:
        boxes = detections.boxes.astype(np.float64)
        fine: NDArray[np.bool_] = np.asarray(np.isfinite(boxes).all(axis=1))
        if not fine.all():
            detections, boxes = detections.select(fine), boxes[fine]
        ids = np.zeros(0, np.int64) if detections.track_ids is None else detections.track_ids.astype(np.int64)
        self._count, found = step(
            np.ascontiguousarray(boxes / unit), ids, detections.class_ids.astype(np.int64),
            detections.scores.astype(np.float64), now, dt, memory, *self._size, *self._arrays, self._wanted,
            self._count, *self._rows,
        )  # fmt: skip
        found[:, -4:] *= unit
        return found

    def _make_arrays(self, width: float, height: float) -> tuple[F64, F64, F64]:
        """Lines, zones and corners for a frame of that size, in units of its shorter side."""
        lines, zones = np.zeros((len(self._lines), LINE)), np.zeros((len(self._zones), ZONE))
        corners: list[tuple[float, float]] = []
        for row, line in zip(lines, self._lines, strict=True):
            (x0, y0), (x1, y1) = line.points
            ends = (x0 * width, y0 * height, x1 * width, y1 * height)
            row[:] = (*ANCHORS[line.anchor], line.hold_s, line.distance, *ends)
        for row, zone in zip(zones, self._zones, strict=True):
            shape = [(x * width, y * height) for x, y in zone.points]
            seconds = (zone.loitering_s or np.inf, zone.parked_s or np.inf)
            first = len(corners)
            corners += shape
            depth = 0.5 * thickness(shape)
            row[:] = (*ANCHORS[zone.anchor], zone.hold_s, zone.distance, depth, *seconds, first, len(corners))
        return lines, zones, np.array(corners, np.float64).reshape(-1, 2)

    def _make_rows(self, count: int) -> tuple[NDArray[np.int64], F64, F64, F64]:
        """Marks, facts, crossings and visits: see `perception.rules.step.step`."""
        return (
            np.zeros((count, OF_CLASS + 2), np.int64), np.zeros((count, FACTS)),
            np.zeros((count, len(self._lines), CROSSING)), np.zeros((count, len(self._zones), VISIT)),
        )  # fmt: skip

    def _make_room(self, wanted: int) -> None:
        have = len(self._rows[0])
        if wanted > have and have < MOST_TRACKS:
            larger = self._make_rows(min(max(wanted, 2 * have), MOST_TRACKS))
            for new, old in zip(larger, self._rows, strict=True):
                new[:have] = old
            self._rows = larger
