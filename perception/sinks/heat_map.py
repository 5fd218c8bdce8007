"""Where things were, and for how long, as one picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perception.sinks.overview import OverviewSink
from perception.types import F32, U8, Detections

SPREAD = 0.015
"""Standard deviation of the spot that a box makes, as part of the longer side."""
OPACITY = 0.75
DARKER = 0.6
"""Of the frame, so that colours show."""
REFERENCE = 0.995
"""Part of the warm pixels that are colder than where the scale ends: one thing that is parked hides nothing else."""


class HeatMapSink(OverviewSink):
    """Shows how long boxes stood where (their bottom centres), from blue to red, over the first frame."""

    _seconds: F32

    def _begin(self, backdrop: U8) -> None:
        self._seconds = np.zeros(backdrop.shape[:2], np.float32)

    def _add(self, found: Detections, feet: NDArray[np.float64], time: float, seconds: float) -> None:
        height, width = self._seconds.shape
        places = feet[np.isfinite(feet).all(axis=1)]
        columns = np.clip(places[:, 0], 0, width - 1).astype(np.intp)
        rows = np.clip(places[:, 1], 0, height - 1).astype(np.intp)
        np.add.at(self._seconds, (rows, columns), np.float32(seconds))

    def _finished(self, backdrop: U8) -> U8:
        import cv2

        warm = cv2.GaussianBlur(self._seconds, (0, 0), SPREAD * max(backdrop.shape[:2]))
        least = 1e-3 * float(warm.max())
        hottest = float(np.quantile(warm[warm > least], REFERENCE)) if least > 0 else 1.0
        part = np.clip(np.sqrt(np.maximum(warm, 0) / hottest), 0, 1)
        colors = cv2.applyColorMap((255 * part).astype(np.uint8), cv2.COLORMAP_TURBO)
        opacity = (OPACITY * np.clip(4 * part, 0, 1))[:, :, None]
        return np.asarray(np.rint(DARKER * backdrop * (1 - opacity) + colors * opacity), np.uint8)
