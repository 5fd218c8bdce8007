"""The two kinds of picture: YUV 4:2:0 planes and BGR. Only NumPy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

U8: TypeAlias = NDArray[np.uint8]
F32: TypeAlias = NDArray[np.float32]

Matrix: TypeAlias = Literal["bt601", "bt709"]
"""Coefficients of the conversion between RGB and YUV: ITU-R BT.601 or BT.709."""


@dataclass(slots=True, eq=False)
class Planes:
    """An 8-bit planar YUV 4:2:0 picture: what decoders give and encoders take.

    Kept beside (or instead of) BGR because both conversions cost more than all drawing does.
    `perception.picture.conversions.to_bgr` makes BGR of it.

    Attributes:
        y: uint8 ``[H, W]`` luma; rows may be padded, pixels in a row are adjacent.
        u: uint8 ``[(H + 1) // 2, (W + 1) // 2]`` blue difference.
        v: uint8 ``[(H + 1) // 2, (W + 1) // 2]`` red difference.
        matrix: coefficients of the conversion to RGB.
        full_range: luma in 0..255 (JPEG) and not 16..235 (video).
        buffer: uint8 ``[H * 3 // 2, W]``, the contiguous I420 memory behind the planes, if there is one.
    """

    y: U8
    u: U8
    v: U8
    matrix: Matrix = "bt601"
    full_range: bool = False
    buffer: U8 | None = None

    @classmethod
    def from_i420(cls, buffer: U8, matrix: Matrix = "bt601", full_range: bool = False) -> Planes:
        """View contiguous I420 memory, uint8 ``[H * 3 // 2, W]``, H and W even, as planes."""
        width, height = buffer.shape[1], buffer.shape[0] * 2 // 3
        flat = buffer.reshape(-1)
        luma, half = width * height, (height // 2, width // 2)
        u = flat[luma : luma + luma // 4].reshape(half)
        v = flat[luma + luma // 4 :].reshape(half)
        return cls(buffer[:height], u, v, matrix, full_range, buffer)

    @property
    def width(self) -> int:
        return int(self.y.shape[1])

    @property
    def height(self) -> int:
        return int(self.y.shape[0])


Picture: TypeAlias = "U8 | Planes"
"""A picture to show or to encode: uint8 ``[H, W, 3]`` BGR, or planes."""


def size_of(picture: Picture) -> tuple[int, int]:
    """Return the (width, height) of a picture in pixels."""
    if isinstance(picture, Planes):
        return picture.width, picture.height
    return int(picture.shape[1]), int(picture.shape[0])
