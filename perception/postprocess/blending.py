"""Inputs of overlays: checked pictures, and the weights of picture and class colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perception.picture.conversions import bgr_to_yuv
from perception.types import U8, Picture, Planes

STEPS = 64
"""Opacity is rounded to multiples of 1/64, so that four chroma contributions fit in 16 bits."""

Tables = tuple[NDArray[np.uint16], NDArray[np.uint16]]
"""uint16 ``[C]``, the weight of the picture, and uint16 ``[C, 3]``, the weighted colours."""


def blend_tables(palette_bgr: U8, classes: int, opacity: float, hidden: Sequence[int], picture: Picture) -> Tables:
    """Compute the tables of an overlay: planes in 64ths, with YUV colours of their matrix and range; BGR in 256ths.

    BGR is ``out = (image * keep[c] + colors[c]) >> 8``, one half for rounding included in ``colors``.

    Raises:
        ValueError: opacity is out of range, or there is not one colour for each class.
    """
    palette = np.asarray(palette_bgr, np.uint8)
    if palette.shape != (classes, 3):
        raise ValueError(f"the palette must be [{classes}, 3], one colour for each class, got {list(palette.shape)}")
    keep, alpha = _weights(classes, opacity, hidden)
    if isinstance(picture, Planes):
        colors = bgr_to_yuv(palette, picture.matrix, picture.full_range)
        return keep, (colors * alpha[:, None]).astype(np.uint16)
    return keep * 4, (palette.astype(np.uint16) * (alpha * 4)[:, None] + 128).astype(np.uint16)


def blend_arrays(picture: Picture, out: Picture, width: int, height: int) -> tuple[U8, ...]:
    """Return the arrays that an overlay reads and writes: y, u, v of both, or the rows ``[H, 3 * W]`` of both.

    Raises:
        ValueError: they are of different kinds, or one is not of that size.
    """
    if isinstance(picture, Planes) and isinstance(out, Planes):
        half = ((height + 1) // 2, (width + 1) // 2)
        for name, p in (("planes", picture), ("out", out)):
            check_plane(f"{name}.y", p.y, (height, width))
            check_plane(f"{name}.u", p.u, half)
            check_plane(f"{name}.v", p.v, half)
        return picture.y, picture.u, picture.v, out.y, out.u, out.v
    if isinstance(picture, Planes) or isinstance(out, Planes):
        raise ValueError("picture and out must both be planes or both be BGR")
    check_plane("image", picture, (height, width, 3))
    check_plane("out", out, (height, width, 3))
    if not out.flags.c_contiguous:
        raise ValueError("out must be C-contiguous")
    return np.ascontiguousarray(picture).reshape(height, width * 3), out.reshape(height, width * 3)


def check_plane(name: str, array: U8, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless ``array`` is uint8 of that shape with adjacent pixels in a row."""
    if array.shape != shape or array.dtype != np.uint8:
        raise ValueError(f"{name} must be uint8 {list(shape)}, got {array.dtype} {list(array.shape)}")
    if array.ndim == 2 and array.shape[1] > 1 and array.strides[1] != 1:
        raise ValueError(f"{name} must have adjacent pixels in a row, got strides {array.strides}")


def _weights(classes: int, opacity: float, hidden: Sequence[int]) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Return the weights of picture and colour for each class, in 64ths."""
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be in 0..1, got {opacity}")
    alpha = np.full(classes, round(opacity * STEPS), np.uint16)
    alpha[list(hidden)] = 0
    return STEPS - alpha, alpha
