"""Segmentation results at frame size, from low-resolution logits: class mask, shares, colour overlay.

All of them equal "upsample the logits bilinearly (half-pixel centres, edges clamped; ``align_corners=False``), then
take the argmax", except where two classes tie or differ by float rounding; see `perception.postprocess.cells` for
how. Ties go to the lower class id where the logits themselves tie. NaN and infinite logits count as -1e30 and +-1e30.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numba.core import types
from numpy.typing import NDArray

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
from perception.postprocess.cells import enter_cells, label, make_grid, make_scratch, walk_row
from perception.types import F32, U8, Planes

if TYPE_CHECKING:
    from perception.picture.letterbox import Letterbox

STEPS = 64
"""Opacity is rounded to multiples of 1/64, so that four chroma contributions fit in 16 bits."""

_WALK = (F32_3D_IN, U8_2D, I64_1D, I64_1D, F32_1D, types.float64, types.float64)


def class_mask(logits: F32, letterbox: Letterbox, out: U8 | None = None) -> U8:
    """The class of each frame pixel.

    Args:
        logits: float32 ``[C, h, w]``, C at most 255.
        letterbox: how the frame was fitted into the network's input.
        out: uint8 ``[H, W]`` to be written; made if None.

    Returns:
        uint8 ``[H, W]`` of class ids.
    """
    logits, labels = _label(logits)
    if out is None:
        out = np.empty((letterbox.frame_height, letterbox.frame_width), np.uint8)
    check_plane("out", out, (letterbox.frame_height, letterbox.frame_width))
    grid = make_grid(letterbox, *labels.shape)
    _walk(logits, labels, *grid, out)
    return out


def class_counts(logits: F32, letterbox: Letterbox) -> NDArray[np.int64]:
    """int64 ``[C]``: the number of frame pixels of each class; arguments as for `class_mask`."""
    logits, labels = _label(logits)
    grid = make_grid(letterbox, *labels.shape)
    counts: NDArray[np.int64] = _walk(logits, labels, *grid, np.empty((0, 0), np.uint8))
    return counts


def class_shares(logits: F32, letterbox: Letterbox) -> F32:
    """float32 ``[C]``: the part of the frame that each class covers, in 0..1; arguments as for `class_mask`."""
    return counts_to_shares(class_counts(logits, letterbox))


def counts_to_shares(counts: NDArray[np.int64]) -> F32:
    """Pixel counts ``[C]`` as parts of their sum, float32."""
    return (counts / max(int(counts.sum()), 1)).astype(np.float32)


def overlay_bgr(
    image: U8,
    logits: F32,
    letterbox: Letterbox,
    palette_bgr: U8,
    opacity: float,
    out: U8,
    ignored: Sequence[int] = (),
) -> NDArray[np.int64]:
    """Blend the class colours over a picture, in one pass.

    Args:
        image: uint8 ``[H, W, 3]`` BGR of the frame's size.
        logits: float32 ``[C, h, w]``.
        letterbox: how the frame was fitted into the network's input.
        palette_bgr: uint8 ``[C, 3]`` BGR.
        opacity: 0 (picture) to 1 (colour), rounded to a multiple of 1/64.
        out: uint8 ``[H, W, 3]``, C-contiguous, to be written; may be ``image``.
        ignored: class ids that leave the picture as it is.

    Returns:
        int64 ``[C]``: the number of frame pixels of each class, ignored ones too.
    """
    height, width = letterbox.frame_height, letterbox.frame_width
    check_plane("image", image, (height, width, 3))
    check_plane("out", out, (height, width, 3))
    if not out.flags.c_contiguous:
        raise ValueError("out must be C-contiguous")
    logits, labels = _label(logits)
    keep, alpha = blend_weights(len(logits), opacity, ignored)
    colors = checked_palette(palette_bgr, len(logits)).astype(np.uint16) * (alpha * 4)[:, None] + 128
    grid = make_grid(letterbox, *labels.shape)
    source = np.ascontiguousarray(image).reshape(height, width * 3)
    counts: NDArray[np.int64] = _overlay_bgr(
        logits, labels, *grid, keep * 4, colors.astype(np.uint16), source, out.reshape(height, width * 3)
    )
    return counts


def overlay_planes(
    planes: Planes,
    logits: F32,
    letterbox: Letterbox,
    palette_bgr: U8,
    opacity: float,
    out: Planes,
    ignored: Sequence[int] = (),
) -> NDArray[np.int64]:
    """Blend the class colours over a YUV 4:2:0 picture, in its own colour space and in one pass.

    Luma is blended for each pixel, a chroma sample with the mean of the (up to) four pixels it serves.

    Args:
        planes: the picture, of the frame's size; only read.
        out: planes of the same size, to be written.
        logits, letterbox, palette_bgr, opacity, ignored: as for `overlay_bgr`.

    Returns:
        int64 ``[C]``: the number of frame pixels of each class, ignored ones too.
    """
    from perception.picture.conversions import bgr_to_yuv

    height, width = letterbox.frame_height, letterbox.frame_width
    half = ((height + 1) // 2, (width + 1) // 2)
    for name, p in (("planes", planes), ("out", out)):
        check_plane(f"{name}.y", p.y, (height, width))
        check_plane(f"{name}.u", p.u, half)
        check_plane(f"{name}.v", p.v, half)
    logits, labels = _label(logits)
    keep, alpha = blend_weights(len(logits), opacity, ignored)
    colors = bgr_to_yuv(checked_palette(palette_bgr, len(logits)), planes.matrix, planes.full_range)
    colors = (colors * alpha[:, None]).astype(np.uint16)
    grid = make_grid(letterbox, *labels.shape)
    counts: NDArray[np.int64] = _overlay_planes(
        logits, labels, *grid, keep, colors, planes.y, planes.u, planes.v, out.y, out.u, out.v
    )
    return counts


def check_plane(name: str, array: U8, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless ``array`` is uint8 of that shape with adjacent pixels in a row."""
    if array.shape != shape or array.dtype != np.uint8:
        raise ValueError(f"{name} must be uint8 {list(shape)}, got {array.dtype} {list(array.shape)}")
    if array.ndim == 2 and array.shape[1] > 1 and array.strides[1] != 1:
        raise ValueError(f"{name} must have adjacent pixels in a row, got strides {array.strides}")


def _label(logits: F32) -> tuple[F32, U8]:
    if logits.ndim != 3 or not 1 <= logits.shape[0] <= 255 or 0 in logits.shape:
        raise ValueError(f"logits must be [C, h, w] with C in 1..255, got {list(logits.shape)}")
    logits = np.ascontiguousarray(logits, np.float32)
    labels = np.empty(logits.shape[1:], np.uint8)
    if not label(logits, labels):
        logits = np.nan_to_num(logits, nan=-1e30, posinf=1e30, neginf=-1e30)
        label(logits, labels)
    return logits, labels


def checked_palette(palette_bgr: U8, classes: int) -> U8:
    """``palette_bgr`` as uint8 ``[C, 3]``; ValueError where it has another number of colours."""
    palette = np.asarray(palette_bgr, np.uint8)
    if palette.shape != (classes, 3):
        raise ValueError(f"the palette must be [{classes}, 3], one colour for each class, got {list(palette.shape)}")
    return palette


def blend_weights(
    classes: int, opacity: float, ignored: Sequence[int]
) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """The weights of picture and colour for each class, in 64ths."""
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be in 0..1, got {opacity}")
    alpha = np.full(classes, round(opacity * STEPS), np.uint16)
    alpha[list(ignored)] = 0
    return STEPS - alpha, alpha


@kernel(I64_1D(*_WALK, U8_ROWS))
def _walk(logits, labels, xs, ys, fy, x0, dx, out):  # type: ignore[no-untyped-def]
    """Count the pixels of each class, and write the class of each unless ``out`` is empty."""
    classes, h, w = logits.shape
    width = out.shape[1]
    s = make_scratch(classes, w, xs[w + 1])
    now = np.empty(width, np.uint8)
    for k in range(h + 1):
        if ys[k] == ys[k + 1]:
            continue
        mixed, n = enter_cells(s, logits, labels, xs, k, ys[k + 1] - ys[k])
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
def _overlay_bgr(logits, labels, xs, ys, fy, x0, dx, keep, colors, source, out):  # type: ignore[no-untyped-def]
    """``out = (source * keep + color) >> 8``; ``colors`` holds colour * weight + 128 for rounding."""
    classes, h, w = logits.shape
    width = xs[w + 1]
    s = make_scratch(classes, w, width)
    # One row of weights and weighted colours is kept up to date; blending it is then one plain loop over bytes.
    weight = np.empty(width * 3, np.uint16)
    color = np.empty(width * 3, np.uint16)
    for k in range(h + 1):
        if ys[k] == ys[k + 1]:
            continue
        mixed, n = enter_cells(s, logits, labels, xs, k, ys[k + 1] - ys[k])
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
    logits, labels, xs, ys, fy, x0, dx, keep, colors, src_y, src_u, src_v, out_y, out_u, out_v
):
    """``keep`` and the weights in ``colors`` are in 64ths."""
    classes, h, w = logits.shape
    width = xs[w + 1]
    height = ys[h + 1]
    half = (width + 1) // 2
    s = make_scratch(classes, w, width)
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
        mixed, n = enter_cells(s, logits, labels, xs, k, ys[k + 1] - ys[k])
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
