"""How the camera moved between two frames, told from what does not move by itself."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.picture.small_luma import LONGEST, small_luma
from perception.types import F32, U8, Picture

Motion = NDArray[np.float64]
"""float64 ``[2, 3]``: where a point of the last frame is in this one, in pixels: rotation with scale, and shift."""

POINTS = 100
LEAST_POINTS, LEAST_PART = 12, 0.4
"""Points, and part of all of them, that must have moved alike; with fewer the frames have nothing in common."""
TOLERANCE = 1.5
STILL = 0.3
"""Small pixels. A corner of the picture that moves by less has not moved."""

STILL_PART = 0.7
"""Points whose surroundings are as they were, of all: with as many the camera stands still, and no flow is needed."""

NOISE = 1.5
"""Grey levels by which the surroundings of a point change on average without any motion."""

FRESH = 15
"""Frames after which points are looked for again: the picture is another one by then, or has other corners."""

LEAST_LIKE = 0.3
"""Correlation of two coarse pictures; where it is less, and no motion explains it, the scene was cut. Within a scene it
is above 0.9 but for moments in which something passes close by."""

_COARSE = 40
"""Width of a coarse picture."""

_WINDOW = 11


class CameraMotion:
    """Follows corners of the small luma plane from frame to frame (Lucas and Kanade) and fits what most of them do.

    Before a camera that stands still, which is most of them, this costs no more than the difference of two small
    pictures: corners whose surroundings have not changed have not moved.

    Attributes:
        cut: the last frame shows another scene than the one before.

    Example:
        >>> camera = CameraMotion()
        >>> tracked = tracker.update(found, frame.time, motion=camera.update(frame.picture, tracked.boxes))
    """

    def __init__(self) -> None:
        self.cut = False
        self._last: U8 | None = None
        self._points = _NO_POINTS
        self._slopes = np.zeros(0, np.float32)
        self._age = 0

    def update(self, picture: Picture, boxes: F32) -> Motion | None:
        """Take the next frame.

        Args:
            picture: of the frame.
            boxes: float32 ``[N, 4]`` xyxy, of what moves by itself in the last frame: not looked at.

        Returns:
            how the picture moved since the last frame; None where it did not, or cannot be told.
        """
        small, scale = small_luma(picture)
        last, self._last = self._last, small
        self.cut = False
        if last is None or last.shape != small.shape:
            return None
        motion = self._between(last, small, boxes * np.float32(scale))
        if motion is None:
            self.cut = _likeness(last, small) < LEAST_LIKE
            return None
        motion[:, 2] /= scale
        return motion

    def _between(self, last: U8, now: U8, boxes: F32) -> Motion | None:
        height, width = last.shape
        if min(height, width) < 16:
            return None
        self._age += 1
        outside = _outside(self._points, boxes)
        points, slopes = self._points[outside], self._slopes[outside]
        if self._age > FRESH or len(points) < POINTS // 3:
            points = _corners(last, boxes)
            slopes = _at(_slope(last), points)
            self._age = 0
        self._points, self._slopes = points, slopes
        if len(points) < LEAST_POINTS:
            return None
        if _is_still(last, now, points, slopes):
            return None
        nowhere = np.empty_like(points)  # written by what follows, which begins where the points were
        window = (_WINDOW, _WINDOW)
        moved, found, _ = cv2.calcOpticalFlowPyrLK(last, now, points, nowhere, winSize=window, maxLevel=3)
        good = found.reshape(-1) == 1
        self._points, self._slopes = moved[good], slopes[good]
        if good.sum() < LEAST_POINTS:
            return None
        fitted, alike = cv2.estimateAffinePartial2D(
            points[good], moved[good], method=cv2.RANSAC, ransacReprojThreshold=TOLERANCE, maxIters=300, confidence=0.99
        )
        if fitted is None or alike.sum() < max(LEAST_POINTS, LEAST_PART * len(points)):
            self._points = _NO_POINTS  # another scene
            return None
        kept = alike.reshape(-1) == 1
        self._points, self._slopes = self._points[kept], self._slopes[kept]
        corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], np.float64)
        if np.abs(corners @ fitted.T - corners[:, :2]).max() < STILL:
            return None
        return np.array(fitted, np.float64)


_NO_POINTS: F32 = np.zeros((0, 1, 2), np.float32)


def _likeness(last: U8, now: U8) -> float:
    """Correlation of two pictures of one size, seen coarsely, -1..1; 1 where one of them is all the same."""
    height, width = last.shape
    size = min(width, _COARSE), max(round(height * min(1.0, _COARSE / width)), 1)
    first, second = (cv2.resize(p, size, interpolation=cv2.INTER_AREA).astype(np.float64) for p in (last, now))
    first, second = first - first.mean(), second - second.mean()
    spread = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum()) / spread if spread > first.size else 1.0


def _corners(picture: U8, boxes: F32) -> F32:
    """Points outside the boxes where the picture has corners, float32 ``[N, 1, 2]``."""
    mask = np.full(picture.shape, 255, np.uint8)
    for x0, y0, x1, y1 in np.clip(boxes, -1, 2 * LONGEST).astype(int).tolist():
        mask[max(y0, 0) : max(y1 + 1, 0), max(x0, 0) : max(x1 + 1, 0)] = 0
    found = cv2.goodFeaturesToTrack(picture, POINTS, 0.01, 7, mask=mask)
    return _NO_POINTS if found is None else np.asarray(found, np.float32)


def _outside(points: F32, boxes: F32) -> NDArray[np.bool_]:
    """Which points are in no box, bool ``[N]``."""
    x, y = points[..., 0], points[..., 1]
    inside = (x >= boxes[:, 0]) & (x <= boxes[:, 2]) & (y >= boxes[:, 1]) & (y <= boxes[:, 3])
    return np.logical_not(inside.any(axis=1))


def _slope(picture: U8) -> F32:
    """How much the surroundings of each pixel change on average where the picture moves by one pixel."""
    across = np.abs(cv2.Sobel(picture, cv2.CV_32F, 1, 0, scale=1 / 8))
    down = np.abs(cv2.Sobel(picture, cv2.CV_32F, 0, 1, scale=1 / 8))
    return np.asarray(cv2.blur(np.minimum(across, down), (5, 5)), np.float32)


def _is_still(last: U8, now: U8, points: F32, slopes: F32) -> bool:
    """Whether the surroundings of the points are as they were, where a motion of a pixel would be seen in them."""
    telling = slopes > 2 * NOISE
    if telling.sum() < LEAST_POINTS:
        return False
    changed = _at(cv2.blur(cv2.absdiff(last, now), (5, 5)), points)
    return bool((changed <= NOISE + STILL * slopes)[telling].mean() >= STILL_PART)


def _at(plane: NDArray[Any], points: F32) -> F32:
    """The values of a plane at points, float32 ``[N]``."""
    height, width = plane.shape
    x = np.clip(points[:, 0, 0].astype(np.intp), 0, width - 1)
    y = np.clip(points[:, 0, 1].astype(np.intp), 0, height - 1)
    return plane[y, x].astype(np.float32)
