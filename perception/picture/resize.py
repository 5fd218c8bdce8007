"""Fitting pictures into a network's input: one conversion and one resize, in one pass over the pixels."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, floor

import numpy as np
from numba.core import types
from numpy.typing import NDArray

from perception.common.jit import F32_1D, F32_2D, I64_1D, U8_ROWS, U8_ROWS_IN, helper, kernel, row
from perception.picture.conversions import conversion
from perception.picture.letterbox import PAD, Letterbox, ResizeMode
from perception.picture.planes import F32, U8, Picture, Planes, size_of


def to_input(
    picture: Picture, width: int, height: int, mode: ResizeMode = "stretch", out: U8 | None = None
) -> tuple[U8, Letterbox]:
    """Make a network's input of a picture: one conversion and one resize.

    Shrinking averages the covered area (as ``cv2.INTER_AREA``), enlarging is bilinear, each axis for itself. Planes go
    from YUV straight to the small BGR picture; BGR at full size is never made.

    Args:
        picture: planes or BGR; its memory is only read.
        width, height: size of the network's input.
        mode: ``stretch`` or ``letterbox``; padding is grey, see `perception.picture.letterbox.PAD`.
        out: uint8 ``[height, width, 3]``, C-contiguous, to be written; made if None.

    Returns:
        The input, uint8 ``[height, width, 3]`` BGR, and how the picture lies in it.

    Raises:
        ValueError: a size is not positive, the mode is unknown, or ``out`` has the wrong shape or type.
    """
    letterbox = Letterbox.fit(*size_of(picture), width, height, mode)
    if out is None:
        out = np.empty((height, width, 3), np.uint8)
    elif out.shape != (height, width, 3) or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError(f"out must be C-contiguous uint8 [{height}, {width}, 3], got {out.dtype} {out.shape}")
    if letterbox.padded:
        out[:] = PAD
    x, y = letterbox.left, letterbox.top
    target = out[y : y + letterbox.height, x : x + letterbox.width]
    if isinstance(picture, Planes):
        _resize_planes_into(picture, target)
    else:
        _resize_bgr_into(picture, target)
    return out, letterbox


def _resize_planes_into(planes: Planes, out: U8) -> None:
    """Resize ``planes`` to the size of ``out``, uint8 ``[h, w, 3]`` with adjacent pixels, and convert to BGR."""
    height, width = out.shape[:2]
    factors, black = conversion(planes.matrix, planes.full_range)
    _shrink_planes(
        *(planes.y, planes.u, planes.v),
        *axis_taps(planes.y.shape[1], float(planes.width), width),
        *axis_taps(planes.y.shape[0], float(planes.height), height),
        *axis_taps(planes.u.shape[1], planes.width / 2, width),
        *axis_taps(planes.u.shape[0], planes.height / 2, height),
        factors.astype(np.float32),
        np.float32(black),
        _rows(out),
    )


def _resize_bgr_into(image: U8, out: U8) -> None:
    """Resize ``image``, uint8 ``[H, W, 3]``, to the size of ``out``, uint8 ``[h, w, 3]`` with adjacent pixels."""
    height, width = image.shape[:2]
    if (height, width) == out.shape[:2]:
        out[:] = image
        return
    image = np.ascontiguousarray(image)
    _shrink_bgr(
        image.reshape(height, width * 3),
        *axis_taps(width, float(width), out.shape[1]),
        *axis_taps(height, float(height), out.shape[0]),
        _rows(out),
    )


def _rows(image: U8) -> U8:
    """``[H, W, 3]`` with adjacent pixels as ``[H, 3 * W]``, without a copy."""
    height, width = image.shape[:2]
    if image.flags.c_contiguous:
        return image.reshape(height, width * 3)
    return np.lib.stride_tricks.as_strided(image, (height, width * 3), (image.strides[0], 1))


@lru_cache(maxsize=64)
def axis_taps(samples: int, extent: float, size: int) -> tuple[NDArray[np.int64], F32]:
    """Compute the samples of one axis that make each output pixel.

    Args:
        samples: samples there are.
        extent: how much of the axis the picture covers, in samples; less than all for chroma of odd sizes.
        size: output pixels.

    Returns:
        int64 ``[size]`` first sample, and float32 ``[size, T]`` weights of it and those after it; the mean over the
        covered area when shrinking, linear interpolation between pixel centres when enlarging.
    """
    ratio = extent / size
    rows: list[tuple[int, list[float]]] = []
    for i in range(size):
        if ratio >= 1:
            begin, end = i * ratio, min((i + 1) * ratio, extent)
            first, last = floor(begin + 1e-6), max(ceil(end - 1e-6), floor(begin + 1e-6) + 1)
            weights = [min(end, s + 1) - max(begin, s) for s in range(first, last)]
        else:
            position = min(max((i + 0.5) * ratio - 0.5, 0.0), samples - 1.0)
            first = int(position)
            weights = [1 - (position - first), position - first]
        rows.append((first, weights))
    count = min(max(len(w) for _, w in rows), samples)
    starts = np.zeros(size, np.int64)
    table = np.zeros((size, count), np.float32)
    for i, (first, weights) in enumerate(rows):
        starts[i] = min(first, samples - count)
        total = sum(weights)
        for t, weight in enumerate(weights):
            if weight > 0:
                table[i, first + t - starts[i]] = weight / total
    return starts, table


@helper
def _byte(value):  # type: ignore[no-untyped-def]
    return np.uint8(min(max(value, np.float32(0)), np.float32(255)) + np.float32(0.5))


@helper
def _blend_rows(source, first, weights, line):  # type: ignore[no-untyped-def]
    """Write the weighted mean of some rows into ``line``, float32."""
    n = len(line)
    w = weights[0]
    src = row(source, first)
    for x in range(n):
        line[x] = w * src[x]
    for t in range(1, len(weights)):
        w = weights[t]
        if w != 0:
            src = row(source, first + t)
            for x in range(n):
                line[x] += w * src[x]


@helper
def _blend_columns(line, starts, weights, out):  # type: ignore[no-untyped-def]
    """Write the weighted means of columns of ``line`` into ``out``, float32."""
    taps = weights.shape[1]
    if taps == 1:
        for x in range(len(out)):
            out[x] = line[starts[x]] * weights[x, 0]
    elif taps == 2:
        for x in range(len(out)):
            s = starts[x]
            out[x] = line[s] * weights[x, 0] + line[s + 1] * weights[x, 1]
    elif taps == 3:
        for x in range(len(out)):
            s = starts[x]
            out[x] = line[s] * weights[x, 0] + line[s + 1] * weights[x, 1] + line[s + 2] * weights[x, 2]
    elif taps == 4:
        for x in range(len(out)):
            s = starts[x]
            out[x] = (line[s] * weights[x, 0] + line[s + 1] * weights[x, 1]) + (
                line[s + 2] * weights[x, 2] + line[s + 3] * weights[x, 3]
            )
    else:
        for x in range(len(out)):
            s = starts[x]
            total = np.float32(0)
            for t in range(taps):
                total += line[s + t] * weights[x, t]
            out[x] = total


_TAPS = (I64_1D, F32_2D)


@kernel(types.void(U8_ROWS_IN, U8_ROWS_IN, U8_ROWS_IN, *_TAPS, *_TAPS, *_TAPS, *_TAPS, F32_1D, types.float32, U8_ROWS))
def _shrink_planes(  # type: ignore[no-untyped-def]
    src_y, src_u, src_v, sx, wx, sy, wy, csx, cwx, csy, cwy, factors, black, out
):
    height = out.shape[0]
    width = out.shape[1] // 3
    line = np.empty(src_y.shape[1], np.float32)
    line_c = np.empty(src_u.shape[1], np.float32)
    luma = np.empty(width, np.float32)
    u = np.empty(width, np.float32)
    v = np.empty(width, np.float32)
    f0, f1, f2, f3, f4 = factors[0], factors[1], factors[2], factors[3], factors[4]
    middle = np.float32(128)
    for y in range(height):
        _blend_rows(src_y, sy[y], wy[y], line)
        _blend_columns(line, sx, wx, luma)
        _blend_rows(src_u, csy[y], cwy[y], line_c)
        _blend_columns(line_c, csx, cwx, u)
        _blend_rows(src_v, csy[y], cwy[y], line_c)
        _blend_columns(line_c, csx, cwx, v)
        dst = row(out, y)
        for x in range(width):
            base = (luma[x] - black) * f0
            cu = u[x] - middle
            cv = v[x] - middle
            dst[3 * x] = _byte(base + f1 * cu)
            dst[3 * x + 1] = _byte(base + f2 * cu + f3 * cv)
            dst[3 * x + 2] = _byte(base + f4 * cv)


@kernel(types.void(U8_ROWS_IN, *_TAPS, *_TAPS, U8_ROWS))
def _shrink_bgr(source, sx, wx, sy, wy, out):  # type: ignore[no-untyped-def]
    height = out.shape[0]
    width = out.shape[1] // 3
    line = np.empty(source.shape[1], np.float32)
    taps = wx.shape[1]
    for y in range(height):
        _blend_rows(source, sy[y], wy[y], line)
        dst = row(out, y)
        for x in range(width):
            s = 3 * sx[x]
            b = np.float32(0)
            g = np.float32(0)
            r = np.float32(0)
            for t in range(taps):
                w = wx[x, t]
                b += w * line[s + 3 * t]
                g += w * line[s + 3 * t + 1]
                r += w * line[s + 3 * t + 2]
            dst[3 * x] = _byte(b)
            dst[3 * x + 1] = _byte(g)
            dst[3 * x + 2] = _byte(r)
