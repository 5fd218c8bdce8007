"""JPEG of pictures. Planes go into the encoder as planes: no detour by BGR, which it would only turn back."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import simplejpeg
from numba.core import types

from perception.common.jit import U8_ROWS, U8_ROWS_IN, kernel, row
from perception.errors import PerceptionError
from perception.picture.conversions import conversion
from perception.picture.planes import Picture, Planes, size_of

QUALITY = 80

MAX_SIDE = 65_500
"""The most that libjpeg takes, in pixels."""


def encode_jpeg(picture: Picture, quality: int = QUALITY) -> bytes:
    """Encode a picture as JPEG, chroma at half size.

    Raises:
        PerceptionError: it is too large for one.
    """
    width, height = size_of(picture)
    if max(height, width) > MAX_SIDE:
        raise PerceptionError(f"{width}x{height} is too large for JPEG")
    if isinstance(picture, Planes):
        full = to_jfif(picture)
        data: bytes = simplejpeg.encode_jpeg_yuv_planes(full.y, full.u, full.v, quality)
        return data
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def to_jfif(planes: Planes) -> Planes:
    """Convert planes to the matrix and range of JPEG files: BT.601, full (ITU-T T.871). Contiguous."""
    if planes.matrix == "bt601" and planes.full_range:
        y, u, v = (np.ascontiguousarray(plane) for plane in (planes.y, planes.u, planes.v))
        return Planes(y, u, v, "bt601", True)
    y, u, v = (np.empty(plane.shape, np.uint8) for plane in (planes.y, planes.u, planes.v))
    _to_jfif(planes.y, planes.u, planes.v, *_factors(planes.matrix, planes.full_range), y, u, v)
    return Planes(y, u, v, "bt601", True)


@lru_cache(maxsize=4)
def _factors(matrix: str, full_range: bool) -> tuple[int, ...]:
    """From one YUV to the other, 16 fractional bits: through RGB, put together from both ends.

    Luma from luma, u and v; u from u and v; v from u and v; and the luma of black. Grey stays grey, so that chroma
    takes nothing from luma.
    """
    (luma, bu, gu, gv, rv), black = conversion(matrix, full_range)
    kr, kg, kb = 0.299, 0.587, 0.114
    yu, yv = kb * bu + kg * gu, kg * gv + kr * rv
    blue, red = 2 * (1 - kb), 2 * (1 - kr)
    factors = (luma, yu, yv, (bu - yu) / blue, -yv / blue, -yu / red, (rv - yv) / red)
    return (*(round(65536 * factor) for factor in factors), int(black))


_I = types.int32


@kernel(
    types.void(U8_ROWS_IN, U8_ROWS_IN, U8_ROWS_IN, _I, _I, _I, _I, _I, _I, _I, _I, U8_ROWS, U8_ROWS, U8_ROWS),
)
def _to_jfif(src_y, src_u, src_v, f_y, f_yu, f_yv, f_uu, f_uv, f_vu, f_vv, black, out_y, out_u, out_v):  # type: ignore[no-untyped-def]
    """Fixed point with 16 fractional bits; every product and sum fits in 32 bits."""
    height, width = src_y.shape
    half = src_u.shape[1]
    added = np.empty(2 * half, np.int32)
    for y in range(src_u.shape[0]):
        u, v = row(src_u, y), row(src_v, y)
        to_u, to_v = row(out_u, y), row(out_v, y)
        for x in range(half):
            cu = np.int32(u[x]) - 128
            cv = np.int32(v[x]) - 128
            luma = np.int32(f_yu * cu + f_yv * cv - f_y * black + 32768)
            added[2 * x] = luma
            added[2 * x + 1] = luma
            to_u[x] = min(max(np.int32(f_uu * cu + f_uv * cv + 8421376) >> 16, 0), 255)  # 128.5
            to_v[x] = min(max(np.int32(f_vu * cu + f_vv * cv + 8421376) >> 16, 0), 255)
        for line in range(2 * y, min(2 * y + 2, height)):
            source, target = row(src_y, line), row(out_y, line)
            for x in range(width):
                target[x] = min(max(np.int32(f_y * np.int32(source[x]) + added[x]) >> 16, 0), 255)
