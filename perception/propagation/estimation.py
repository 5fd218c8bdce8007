"""How a picture has moved since another one was taken: dense optical flow, and whether it explains what is seen."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from perception.propagation.motion import Motion
from perception.types import F32, U8

CHANGED = 0.12
"""Part of the small luma that may be another than the motion explains."""
DIFFERENT = 20
"""Grey levels by which a pixel is another one."""
SHORTEST = 24
"""Pictures whose small luma has a shorter side have no motion that can be told."""


class MotionEstimator:
    """Estimates motion by OpenCV's DIS (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016).

    One thread at a time uses it.

    Args:
        goes_on: frames come one after the other, and the search begins where the last motion leads to if it goes on as
            it was: things that went far are lost without. The key frame may be another one than before.
        changed: part of the small luma that may be another than the motion explains, 0..1.
    """

    def __init__(self, goes_on: bool = False, changed: float = CHANGED) -> None:
        self._flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._flow.setFinestScale(1)
        self._goes_on = goes_on
        self._most_changed = changed
        self._last: Motion | None = None

    def motion(self, luma: U8, key: U8, scale: float, gap: int) -> Motion | None:
        """Return the motion from a key frame to a later frame; None where it does not explain the picture.

        Args:
            luma, key: small luma of the frame and of the key frame, uint8 ``[h, w]``, see
                `perception.picture.small_luma`. Nothing is known of small ones, and of those of different sizes.
            scale: of both.
            gap: frames from the key frame to the frame.
        """
        if luma.shape != key.shape or min(luma.shape) < SHORTEST:
            return None
        last, self._last = self._last, None
        guess: Any = None
        if last is not None and last.flow.shape[:2] == luma.shape:
            guess = last.flow * np.float32(gap / last.gap)
        flow = np.asarray(self._flow.calc(luma, key, guess), np.float32)
        if _changed(luma, key, flow) > self._most_changed:
            return None
        found = Motion(flow, scale, gap)
        self._last = found if self._goes_on else None
        return found


def _changed(luma: U8, key: U8, flow: F32) -> float:
    """The part of a picture that is not what its motion makes of the key frame."""
    rows, columns = luma.shape
    rows_at, columns_at = np.indices(luma.shape, np.float32)
    x: Any = columns_at + flow[..., 0]
    y: Any = rows_at + flow[..., 1]
    was = cv2.remap(key, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    other = cv2.absdiff(was, luma) > DIFFERENT
    outside = (x < -0.5) | (y < -0.5) | (x > columns - 0.5) | (y > rows - 0.5)
    return float((other | outside).mean())
