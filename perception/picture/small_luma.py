"""A frame's luma at a small size, to look for motion in."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.picture.planes import U8, Picture, Planes

LONGEST = 400
"""Longest side; the frame is halved until it is as small."""


def small_luma(picture: Picture) -> tuple[U8, float]:
    """Halve the luma of a picture until it is small.

    By halves, since OpenCV is some twenty times faster at these than at other factors.

    Args:
        picture: of a frame.

    Returns:
        uint8 ``[h, w]``, C-contiguous, no side longer than `LONGEST`, and its scale: 1, 1/2, 1/4, ... An odd row or
        column at the end of a picture that is halved is left out.
    """
    small: NDArray[Any] = picture.y if isinstance(picture, Planes) else picture
    scale = 1.0
    while max(small.shape[:2]) > LONGEST and min(small.shape[:2]) > 1:
        height, width = small.shape[0] // 2, small.shape[1] // 2
        small = cv2.resize(small[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
        scale /= 2
    grey = small if small.ndim == 2 else cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    return np.ascontiguousarray(grey, np.uint8), scale
