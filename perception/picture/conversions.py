"""Between YUV 4:2:0 planes and BGR, at full size."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba.core import types
from numpy.typing import NDArray

from perception.common.jit import U8_ROWS, U8_ROWS_IN, kernel, row
from perception.picture.planes import U8, Picture, Planes

# Kr and Kb of ITU-R BT.601-7 and BT.709-6; Kg = 1 - Kr - Kb.
_LUMA_WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


@lru_cache(maxsize=8)
def conversion(matrix: str, full_range: bool) -> tuple[NDArray[np.float64], float]:
    """Return the factors of the conversion to BGR.

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


def to_bgr(picture: Picture) -> U8:
    """Convert a picture to uint8 ``[H, W, 3]`` BGR, C-contiguous: a new array of planes, BGR as it is."""
    return planes_to_bgr(picture) if isinstance(picture, Planes) else picture


def planes_to_bgr(planes: Planes, out: U8 | None = None) -> U8:
    """Convert YUV 4:2:0 to BGR at full size.

    Integer arithmetic with the exact coefficients of BT.601 or BT.709, limited or full range, in 16 fractional bits
    and rounded once. Each chroma sample serves its 2x2 block (as swscale does without a resize).

    Args:
        planes: the picture.
        out: uint8 ``[H, W, 3]``, C-contiguous, to be written; made if None.

    Returns:
        uint8 ``[H, W, 3]`` BGR.

    Raises:
        ValueError: ``out`` is of another shape or type.
    """
    height, width = planes.y.shape
    if out is None:
        out = np.empty((height, width, 3), np.uint8)
    elif out.shape != (height, width, 3) or out.dtype != np.uint8 or not out.flags.c_contiguous:
        raise ValueError(f"out must be C-contiguous uint8 [{height}, {width}, 3], got {out.dtype} {out.shape}")
    factors, black = conversion(planes.matrix, planes.full_range)
    fixed = np.rint(factors * 65536).astype(np.int64)
    _convert(planes.y, planes.u, planes.v, *fixed.tolist(), int(black), out.reshape(height, width * 3))
    return out


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
