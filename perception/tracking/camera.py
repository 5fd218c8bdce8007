"""How the camera moved between two frames, told from what does not move by itself."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.types import F32, U8, Picture, Planes

Motion = NDArray[np.float64]
"""float64 ``[2, 3]``: where a point of the last frame is in this one, in pixels: rotation with scale, and shift."""

LONGEST = 320
"""Sides of the small picture that is looked at."""
POINTS = 150
LEAST_POINTS, LEAST_PART = 12, 0.4
"""Points, and part of all of them, that must have moved alike; with fewer the frames have nothing in common."""
TOLERANCE = 1.5
STILL = 0.3
"""Small pixels. A corner of the picture that moves by less has not moved."""


class CameraMotion:
    """Follows corners of the small luma plane from frame to frame (Lucas and Kanade) and fits what most of them do.

    Example:
        >>> camera = CameraMotion()
        >>> tracked = tracker.update(found, frame.time, motion=camera.update(frame.picture, tracked.boxes))
    """

    def __init__(self) -> None:
        self._last: U8 | None = None

    def update(self, picture: Picture, boxes: F32) -> Motion | None:
        """Take the next frame.

        Args:
            picture: of the frame.
            boxes: float32 ``[N, 4]`` xyxy, of what moves by itself in the last frame: not looked at.

        Returns:
            how the picture moved since the last frame; None where it did not, or cannot be told.
        """
        small, scale = _small(picture)
        last, self._last = self._last, small
        if last is None or last.shape != small.shape:
            return None
        motion = _between(last, small, boxes * np.float32(scale))
        if motion is None:
            return None
        motion[:, 2] /= scale
        return motion


def _small(picture: Picture) -> tuple[U8, float]:
    """The luma of a picture at its small size, and how much smaller it is."""
    plane = picture.y if isinstance(picture, Planes) else picture
    height, width = plane.shape[:2]
    scale = min(1.0, LONGEST / max(width, height))
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    small = cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
    return np.asarray(small if small.ndim == 2 else cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8), scale


def _between(last: U8, now: U8, boxes: F32) -> Motion | None:
    height, width = last.shape
    if min(height, width) < 16:
        return None
    mask = np.full(last.shape, 255, np.uint8)
    for x0, y0, x1, y1 in np.clip(boxes, -1, 2 * LONGEST).astype(int).tolist():
        mask[max(y0, 0) : max(y1 + 1, 0), max(x0, 0) : max(x1 + 1, 0)] = 0
    points = cv2.goodFeaturesToTrack(last, POINTS, 0.01, 7, mask=mask)
    if points is None or len(points) < LEAST_POINTS:
        return None
    nowhere = np.empty_like(points)  # written by what follows, which begins where the points were
    moved, found, _ = cv2.calcOpticalFlowPyrLK(last, now, points, nowhere, winSize=(15, 15), maxLevel=3)
    good = found.reshape(-1) == 1
    if good.sum() < LEAST_POINTS:
        return None
    fitted, alike = cv2.estimateAffinePartial2D(
        points[good], moved[good], method=cv2.RANSAC, ransacReprojThreshold=TOLERANCE, maxIters=300, confidence=0.99
    )
    if fitted is None or alike.sum() < max(LEAST_POINTS, LEAST_PART * len(points)):
        return None
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], np.float64)
    if np.abs(corners @ fitted.T - corners[:, :2]).max() < STILL:
        return None
    return np.array(fitted, np.float64)
