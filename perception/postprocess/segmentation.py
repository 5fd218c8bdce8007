"""Segmentation results at frame size, from low-resolution logits: class mask, shares, colour overlay.

All of them equal "upsample the logits bilinearly (half-pixel centres, edges clamped; ``align_corners=False``), then
take the argmax", except where two classes tie or differ by float rounding; see `perception.postprocess.cells` for
how. Ties go to the lower class id where the logits themselves tie. With a floor, pixels whose best upsampled logit is
lower are of no class: they have the id C and are counted as such. NaN and infinite logits count as -1e30 and +-1e30.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numba.core import types
from numpy.typing import NDArray

from perception.common.calibration import HIGHEST_LOGIT
from perception.common.jit import (
    F32_1D,
    F32_3D_IN,
    I64_1D,
    U8_2D,
    U8_ROWS,
    U8_ROWS_IN,
    U16_1D,
    U16_2D,
    kernel,
    row,
)
from perception.postprocess.blending import blend_arrays, blend_tables, check_plane
from perception.postprocess.cells import NO_FLOOR, enter_cells, label, make_grid, make_scratch, walk_row
from perception.types import F32, U8, Picture, Planes

if TYPE_CHECKING:
    from perception.picture.letterbox import Letterbox

STRANGE = 1e30
"""What infinite logits count as; NaN and minus infinity, as its negative."""

_WALK = (F32_3D_IN, types.float32, U8_2D, I64_1D, I64_1D, F32_1D, types.float64, types.float64)


def class_mask(
    logits: F32, letterbox: Letterbox, out: U8 | None = None, floor: float | None = None, labels: U8 | None = None
) -> U8:
    """Compute the class of each frame pixel.

    Args:
        logits: float32 ``[C, h, w]``, C at most 255.
        letterbox: how the frame was fitted into the network's input.
        out: uint8 ``[H, W]`` to be written; made if None.
        floor: finite; least logit of a class. None takes any.
        labels: uint8 ``[h, w]``, the argmax of the logits, which are finite then; computed if None.

    Returns:
        uint8 ``[H, W]`` of class ids.
    """
    logits, least, labels = _label(logits, floor, labels)
    if out is None:
        out = np.empty((letterbox.frame_height, letterbox.frame_width), np.uint8)
    check_plane("out", out, (letterbox.frame_height, letterbox.frame_width))
    grid = make_grid(letterbox, *labels.shape)
    _walk(logits, least, labels, *grid, out)
    return out


def class_counts(
    logits: F32, letterbox: Letterbox, floor: float | None = None, labels: U8 | None = None
) -> NDArray[np.int64]:
    """int64 ``[C]``, with a floor ``[C + 1]``: frame pixels of each class; arguments as for `class_mask`."""
    logits, least, labels = _label(logits, floor, labels)
    grid = make_grid(letterbox, *labels.shape)
    counts: NDArray[np.int64] = _walk(logits, least, labels, *grid, np.empty((0, 0), np.uint8))
    return counts


def overlay(
    picture: Picture,
    logits: F32,
    letterbox: Letterbox,
    palette_bgr: U8,
    opacity: float,
    out: Picture,
    hidden: Sequence[int] = (),
    floor: float | None = None,
    labels: U8 | None = None,
) -> NDArray[np.int64]:
    """Blend the class colours over a picture, in one pass; planes in their own colour space.

    Luma is blended for each pixel, a chroma sample with the mean of the (up to) four pixels it serves.

    Args:
        picture: uint8 ``[H, W, 3]`` BGR, or planes, of the frame's size.
        logits: float32 ``[C, h, w]``.
        letterbox: how the frame was fitted into the network's input.
        palette_bgr: uint8 ``[C, 3]`` BGR.
        opacity: 0 (picture) to 1 (colour), rounded to a multiple of 1/64.
        out: of the same kind and size, to be written; may be ``picture``. BGR must be C-contiguous.
        hidden: class ids that leave the picture as it is; pixels of no class always do.
        floor, labels: see `class_mask`.

    Returns:
        int64 ``[C]``, with a floor ``[C + 1]``: the number of frame pixels of each class, hidden ones too.

    Raises:
        ValueError: sizes, types, opacity or the number of colours do not fit.
    """
    arrays = blend_arrays(picture, out, letterbox.frame_width, letterbox.frame_height)
    logits, least, labels = _label(logits, floor, labels)
    classes = len(logits)
    if floor is not None and len(palette_bgr) == classes:
        palette_bgr = np.concatenate((palette_bgr, np.zeros((1, 3), np.uint8)))
        classes, hidden = classes + 1, [*hidden, classes]
    keep, colors = blend_tables(palette_bgr, classes, opacity, hidden, picture)
    grid = make_grid(letterbox, *labels.shape)
    blend = _overlay_planes if isinstance(picture, Planes) else _overlay_bgr
    counts: NDArray[np.int64] = blend(logits, least, labels, *grid, keep, colors, *arrays)
    return counts


def _label(logits: F32, floor: float | None, labels: U8 | None) -> tuple[F32, np.float32, U8]:
    if logits.ndim != 3 or not 1 <= logits.shape[0] <= 255 or 0 in logits.shape:
        raise ValueError(f"logits must be [C, h, w] with C in 1..255, got {list(logits.shape)}")
    if floor is not None and not abs(floor) <= HIGHEST_LOGIT:
        raise ValueError(f"the floor must be within {HIGHEST_LOGIT:g}, got {floor}")
    least = NO_FLOOR if floor is None else np.float32(floor)
    logits = np.ascontiguousarray(logits, np.float32)
    if labels is not None and floor is None:
        if labels.shape != logits.shape[1:] or labels.dtype != np.uint8:
            wanted = list(logits.shape[1:])
            raise ValueError(f"labels must be uint8 {wanted}, got {labels.dtype} {list(labels.shape)}")
        return logits, least, np.ascontiguousarray(labels)
    labels = np.empty(logits.shape[1:], np.uint8)
    if not label(logits, least, labels):
        logits = np.nan_to_num(logits, nan=-STRANGE, posinf=STRANGE, neginf=-STRANGE)
        label(logits, least, labels)
    return logits, least, labels


@kernel(I64_1D(*_WALK, U8_ROWS))
def _walk(logits, floor, labels, xs, ys, fy, x0, dx, out):  # type: ignore[no-untyped-def]
    """Count the pixels of each class, and write the class of each unless ``out`` is empty."""
    _, h, w = logits.shape
    width = out.shape[1]
    s = make_scratch(logits, floor, xs[w + 1])
    now = np.empty(width, np.uint8)
    for k in range(h + 1):
        if ys[k] == ys[k + 1]:
            continue
        mixed, n = enter_cells(s, logits, floor, labels, xs, k, ys[k + 1] - ys[k])
        for y in range(ys[k], ys[k + 1]):
            n = walk_row(s, mixed, n, fy[y], xs, x0, dx)
            if width:
                for i in range(n):
                    now[s.start[i] : s.stop[i]] = s.cls[i]
                target = row(out, y)
                for x in range(width):
                    target[x] = now[x]
            n = 0
    return s.counts


@kernel(I64_1D(*_WALK, U16_1D, U16_2D, U8_ROWS_IN, U8_ROWS))
def _overlay_bgr(  # type: ignore[no-untyped-def]
    logits, floor, labels, xs, ys, fy, x0, dx, keep, colors, source, out
):
    """``out = (source * keep + color) >> 8``; ``colors`` holds colour * weight + 128 for rounding."""
    _, h, w = logits.shape
    width = xs[w + 1]
    s = make_scratch(logits, floor, width)
    # One row of weights and weighted colours is kept up to date; blending it is then one plain loop over bytes.
    weight = np.empty(width * 3, np.uint16)
    color = np.empty(width * 3, np.uint16)
    for k in range(h + 1):
        if ys[k] == ys[k + 1]:
            continue
        mixed, n = enter_cells(s, logits, floor, labels, xs, k, ys[k + 1] - ys[k])
        for y in range(ys[k], ys[k + 1]):
            n = walk_row(s, mixed, n, fy[y], xs, x0, dx)
            for i in range(n):
                c = s.cls[i]
                a, b0, b1, b2 = keep[c], colors[c, 0], colors[c, 1], colors[c, 2]
                for x in range(s.start[i], s.stop[i]):
                    color[3 * x] = b0
                    color[3 * x + 1] = b1
                    color[3 * x + 2] = b2
                weight[3 * s.start[i] : 3 * s.stop[i]] = a
            n = 0
            src = row(source, y)
            dst = row(out, y)
            for i in range(width * 3):
                dst[i] = np.uint16(src[i] * weight[i] + color[i]) >> 8
    return s.counts


@kernel(I64_1D(*_WALK, U16_1D, U16_2D, U8_ROWS_IN, U8_ROWS_IN, U8_ROWS_IN, U8_ROWS, U8_ROWS, U8_ROWS))
def _overlay_planes(  # type: ignore[no-untyped-def]
    logits, floor, labels, xs, ys, fy, x0, dx, keep, colors, src_y, src_u, src_v, out_y, out_u, out_v
):
    """``keep`` and the weights in ``colors`` are in 64ths."""
    _, h, w = logits.shape
    width = xs[w + 1]
    height = ys[h + 1]
    half = (width + 1) // 2
    s = make_scratch(logits, floor, width)
    weight = np.empty(2 * half, np.uint16)
    color_y = np.empty(2 * half, np.uint16)
    color_u = np.empty(2 * half, np.uint16)
    color_v = np.empty(2 * half, np.uint16)
    sum_w = np.empty(half, np.uint16)  # of the even row; the odd row below completes the 2x2 blocks
    sum_u = np.empty(half, np.uint16)
    sum_v = np.empty(half, np.uint16)
    for k in range(h + 1):
        if ys[k] == ys[k + 1]:
            continue
        mixed, n = enter_cells(s, logits, floor, labels, xs, k, ys[k + 1] - ys[k])
        for y in range(ys[k], ys[k + 1]):
            n = walk_row(s, mixed, n, fy[y], xs, x0, dx)
            for i in range(n):
                c = s.cls[i]
                stop = s.stop[i]
                if stop == width:  # an odd last column counts twice
                    stop = 2 * half
                a, cy, cu, cv = keep[c], colors[c, 0], colors[c, 1], colors[c, 2]
                for x in range(s.start[i], stop):
                    weight[x] = a
                    color_y[x] = cy
                    color_u[x] = cu
                    color_v[x] = cv
            n = 0
            src = row(src_y, y)
            dst = row(out_y, y)
            for x in range(width):
                dst[x] = np.uint16((src[x] * weight[x] + color_y[x]) * 4 + 128) >> 8
            if y % 2 == 0:
                for x in range(half):
                    sum_w[x] = weight[2 * x] + weight[2 * x + 1]
                    sum_u[x] = color_u[2 * x] + color_u[2 * x + 1]
                    sum_v[x] = color_v[2 * x] + color_v[2 * x + 1]
                if y + 1 < height:
                    continue
            # Here y is odd, or the last row of an odd height, which counts twice.
            u = row(src_u, y // 2)
            v = row(src_v, y // 2)
            to_u = row(out_u, y // 2)
            to_v = row(out_v, y // 2)
            for x in range(half):
                a = np.uint16(sum_w[x] + weight[2 * x] + weight[2 * x + 1])
                cu = np.uint16(sum_u[x] + color_u[2 * x] + color_u[2 * x + 1] + 128)
                cv = np.uint16(sum_v[x] + color_v[2 * x] + color_v[2 * x + 1] + 128)
                to_u[x] = np.uint16(u[x] * a + cu) >> 8
                to_v[x] = np.uint16(v[x] * a + cv) >> 8
    return s.counts
