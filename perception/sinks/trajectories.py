"""The ways that tracked things have come, as one picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perception.errors import UsageError
from perception.sinks.overview import GAP_S, OverviewSink
from perception.types import U8, Detections

DARKER = 0.55
FRACTION = 4
"""Bits of a coordinate behind the point, so that slow ways are smooth."""


class TrajectoriesSink(OverviewSink):
    """Draws the way of each track (its bottom centre) in the colour of its class over the first frame.

    What is remembered is the last place of each track, for `GAP_S`.
    """

    _canvas: U8
    _places: dict[int, tuple[float, float, float]]

    def _begin(self, backdrop: U8) -> None:
        self._canvas = np.rint(DARKER * backdrop).astype(np.uint8)
        self._places = {}

    def _add(self, found: Detections, feet: NDArray[np.float64], time: float, seconds: float) -> None:
        import cv2

        if found.track_ids is None:
            if len(found):
                raise UsageError("trajectories need tracked boxes: track before", self.where)
            return
        height, width = self._canvas.shape[:2]
        line = max(round(min(width, height) / 540), 1)
        places = {
            track: (x, y, time)
            for track, (x, y) in zip(found.track_ids.tolist(), feet.tolist(), strict=True)
            if np.isfinite(x) and np.isfinite(y)
        }
        for (track, (x, y, _)), class_id in zip(places.items(), found.class_ids.tolist(), strict=False):
            if track in self._places:
                before = self._places[track]
                ends = [tuple(round(c * 2**FRACTION) for c in end) for end in (before[:2], (x, y))]
                cv2.line(self._canvas, ends[0], ends[1], self._color(class_id), line, cv2.LINE_AA, FRACTION)
        self._places = {t: p for t, p in self._places.items() if 0 <= time - p[2] < GAP_S} | places

    def _color(self, class_id: int) -> tuple[int, int, int]:
        if self._card is None or self._card.detection is None:
            return (0, 200, 255)
        red, green, blue = self._card.detection.classes[class_id].color
        return blue, green, red

    def _finished(self, backdrop: U8) -> U8:
        return self._canvas
