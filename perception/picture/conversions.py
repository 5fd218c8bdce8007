"""Kernels between YUV 4:2:0 planes and BGR: conversion at full size, and conversion while shrinking."""

from __future__ import annotations

from functools import lru_cache
from math import ceil, floor

import numpy as np
from numba.core import types
from numpy.typing import NDArray

from perception.common.jit import F32_1D, F32_2D, I64_1D, U8_ROWS, U8_ROWS_IN, helper, kernel, row
from perception.types import F32, U8, Planes

# Kr and Kb of ITU-R BT.601-7 and BT.709-6; Kg = 1 - Kr - Kb.
_LUMA_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


@lru_cache(maxsize=8)
def conversion(matrix: str, full_range: bool) -> tuple[NDArray[np.float64], float]:
    """The factors of the conversion to BGR.

    Returns:
        float64 ``[5]`` (luma, blue from u, green from u, green from v, red from v) and the luma of black:
        ``b = f[0] * (y - black) + f[1] * (u - 128)`` and so on.
    """
    kr, kb = _LUMA_WEIGHTS[matrix]
    kg = 1 - kr - kb
    luma, chroma = (1.0, 1.0) if full_range else (255 / 219, 255 / 224)
    blue, red = 2 * (1 - kb) * chroma, 2 * (1 - kr) * chroma
    return np.array([luma, blue, -blue * kb / kg, -red * kr / kg, red]), 0.0 if full_range else 16.0


def bgr_to_yuv(colors_bgr: U8, matrix: str = "bt601", full_range: bool = False) -> U8:
    """Single colours, uint8 ``[..., 3]`` BGR, as uint8 ``[..., 3]`` YUV, rounded to nearest."""
    kr, kb = _LUMA_WEIGHTS[matrix]
    b, g, r = np.moveaxis(np.asarray(colors_bgr, np.float64), -1, 0)
    y = kr * r + (1 - kr - kb) * g + kb * b
    u, v = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    if not full_range:
        y, u, v = 16 + y * 219 / 255, u * 224 / 255, v * 224 / 255
    return np.clip(np.rint(np.stack([y, u + 128, v + 128], axis=-1)), 0, 255).astype(np.uint8)


def convert_planes(planes: Planes, out: U8) -> None:
    """Write ``planes`` as BGR into ``out``, uint8 ``[H, W, 3]`` C-contiguous."""
    height, width = planes.y.shape
    if out.shape != (height, width, 3) or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError(f"out must be C-contiguous uint8 [{height}, {width}, 3], got {out.dtype} {out.shape}")
    factors, black = conversion(planes.matrix, planes.full_range)
    fixed = np.rint(factors * 65536).astype(np.int64)
    _convert(planes.y, planes.u, planes.v, *fixed.tolist(), int(black), out.reshape(height, width * 3))


def shrink_planes(planes: Planes, out: U8) -> None:
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


def shrink_bgr(image: U8, out: U8) -> None:
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
    """Which samples of one axis make each output pixel.

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


_I = types.int64


@kernel(types.void(U8_ROWS_IN, U8_ROWS_IN, U8_ROWS_IN, _I, _I, _I, _I, _I, _I, U8_ROWS))
def _convert(src_y, src_u, src_v, f_y, f_bu, f_gu, f_gv, f_rv, black, out):  # type: ignore[no-untyped-def]
    """Fixed point with 16 fractional bits; every product and sum fits in 32 bits."""
    height, width = src_y.shape
    half = src_u.shape[1]
    blue = np.empty(2 * half, np.int32)
    green = np.empty(2 * half, np.int32)
    red = np.empty(2 * half, np.int32)
    for y in range(height):
        if y % 2 == 0:
            u = row(src_u, y // 2)
            v = row(src_v, y // 2)
            for x in range(half):
                cu = np.int32(u[x]) - 128
                cv = np.int32(v[x]) - 128
                b = np.int32(f_bu * cu + 32768)
                g = np.int32(f_gu * cu + f_gv * cv + 32768)
                r = np.int32(f_rv * cv + 32768)
                blue[2 * x] = b
                blue[2 * x + 1] = b
                green[2 * x] = g
                green[2 * x + 1] = g
                red[2 * x] = r
                red[2 * x + 1] = r
        luma = row(src_y, y)
        dst = row(out, y)
        for x in range(width):
            base = np.int32(f_y * (np.int32(luma[x]) - black))
            b = np.int32(base + blue[x]) >> 16
            g = np.int32(base + green[x]) >> 16
            r = np.int32(base + red[x]) >> 16
            dst[3 * x] = min(max(b, 0), 255)
            dst[3 * x + 1] = min(max(g, 0), 255)
            dst[3 * x + 2] = min(max(r, 0), 255)
