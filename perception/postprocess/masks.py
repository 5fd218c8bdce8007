"""Class masks that an engine made, at the frame's size and over its picture.

The overlays equal those of `perception.postprocess.segmentation` byte for byte where the mask is that of the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perception.common.jit import I64_1D, U8_ROWS, U8_ROWS_IN, U16_1D, U16_2D, kernel, row
from perception.postprocess.blending import blend_arrays, blend_tables
from perception.types import U8, Picture, Planes

if TYPE_CHECKING:
    from perception.picture.letterbox import Letterbox


def to_frame(labels: U8, letterbox: Letterbox) -> U8:
    """Map a mask over the network's input to the frame: the nearest pixel, the padding cut away.

    Args:
        labels: uint8 ``[h, w]``, of any size; it covers the whole input.
        letterbox: how the frame was fitted into the network's input.

    Returns:
        uint8 ``[H, W]`` of the frame's size, C-contiguous.
    """
    rows, columns = nearest(letterbox, *labels.shape)
    return np.ascontiguousarray(labels[:, columns][rows])


@lru_cache(maxsize=64)
def nearest(letterbox: Letterbox, h: int, w: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows ``[H]`` and columns ``[W]`` of a mask ``[h, w]`` under the centres of the frame's pixels."""
    left, top, right, bottom = letterbox.logits_window(h, w)
    return _axis(letterbox.frame_height, h, top, bottom), _axis(letterbox.frame_width, w, left, right)


def _axis(pixels: int, size: int, start: float, stop: float) -> NDArray[np.int64]:
    position = start + (np.arange(pixels) + 0.5) * ((stop - start) / pixels)
    return np.clip(np.floor(position), 0, size - 1).astype(np.int64)


def overlay(
    picture: Picture, mask: U8, palette_bgr: U8, opacity: float, out: Picture, hidden: Sequence[int] = ()
) -> NDArray[np.int64]:
    """Blend the class colours over a picture.

    Args:
        picture: uint8 ``[H, W, 3]`` BGR, or planes.
        mask: uint8 ``[H, W]`` of class ids.
        palette_bgr: uint8 ``[C, 3]`` BGR.
        opacity: 0 (picture) to 1 (colour), rounded to a multiple of 1/64.
        out: of the same kind and size, to be written; may be ``picture``. BGR must be C-contiguous.
        hidden: class ids that leave the picture as it is.

    Returns:
        int64 ``[C]``: the number of pixels of each class, hidden ones too.

    Raises:
        ValueError: shapes or types do not fit, or the mask has an id without a colour.
    """
    height, width = _check_mask(mask, palette_bgr)
    arrays = blend_arrays(picture, out, width, height)
    keep, colors = blend_tables(palette_bgr, len(palette_bgr), opacity, hidden, picture)
    blend = _overlay_planes if isinstance(picture, Planes) else _overlay_bgr
    counts: NDArray[np.int64] = blend(mask, keep, colors, *arrays)
    return counts


def _check_mask(mask: U8, palette_bgr: U8) -> tuple[int, int]:
    if mask.ndim != 2 or mask.dtype != np.uint8 or not mask.flags.c_contiguous:
        raise ValueError(f"the mask must be C-contiguous uint8 [H, W], got {mask.dtype} {list(mask.shape)}")
    if mask.size and mask.max() >= len(palette_bgr):
        raise ValueError(f"the mask has class {mask.max()}, the palette {len(palette_bgr)} colours")
    return int(mask.shape[0]), int(mask.shape[1])


@kernel(I64_1D(U8_ROWS_IN, U16_1D, U16_2D, U8_ROWS_IN, U8_ROWS))
def _overlay_bgr(mask, keep, colors, source, out):  # type: ignore[no-untyped-def]
    height, width = mask.shape
    counts = np.zeros(len(keep), np.int64)
    for y in range(height):
        ids = row(mask, y)
        src = row(source, y)
        dst = row(out, y)
        for x in range(width):
            c = ids[x]
            counts[c] += 1
            for i in range(3):
                dst[3 * x + i] = np.uint16(src[3 * x + i] * keep[c] + colors[c, i]) >> 8
    return counts


@kernel(I64_1D(U8_ROWS_IN, U16_1D, U16_2D, U8_ROWS_IN, U8_ROWS_IN, U8_ROWS_IN, U8_ROWS, U8_ROWS, U8_ROWS))
def _overlay_planes(mask, keep, colors, src_y, src_u, src_v, out_y, out_u, out_v):  # type: ignore[no-untyped-def]
    """``keep`` and the weights in ``colors`` are in 64ths. A row or column that is missing at the rim counts twice."""
    height, width = mask.shape
    counts = np.zeros(len(keep), np.int64)
    for y in range(height):
        ids = row(mask, y)
        src = row(src_y, y)
        dst = row(out_y, y)
        for x in range(width):
            c = ids[x]
            counts[c] += 1
            dst[x] = np.uint16((src[x] * keep[c] + colors[c, 0]) * 4 + 128) >> 8
    for y in range((height + 1) // 2):
        upper = row(mask, 2 * y)
        lower = row(mask, min(2 * y + 1, height - 1))
        u = row(src_u, y)
        v = row(src_v, y)
        to_u = row(out_u, y)
        to_v = row(out_v, y)
        for x in range((width + 1) // 2):
            right = min(2 * x + 1, width - 1)
            a, b, c, d = upper[2 * x], upper[right], lower[2 * x], lower[right]
            weight = np.uint16(keep[a] + keep[b] + keep[c] + keep[d])
            blue = np.uint16(colors[a, 1] + colors[b, 1] + colors[c, 1] + colors[d, 1] + 128)
            red = np.uint16(colors[a, 2] + colors[b, 2] + colors[c, 2] + colors[d, 2] + 128)
            to_u[x] = np.uint16(u[x] * weight + blue) >> 8
            to_v[x] = np.uint16(v[x] * weight + red) >> 8
    return counts
