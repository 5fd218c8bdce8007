"""Two kinds of canvas, BGR and YUV 4:2:0 planes, with the same few primitives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perception.picture.buffer_pool import BufferPool
from perception.types import U8, Frame, Picture, Planes

Color: TypeAlias = tuple[int, int, int]
"""BGR, 0..255."""

Rectangle: TypeAlias = tuple[int, int, int, int]
"""Columns ``x0..x1 - 1`` and rows ``y0..y1 - 1`` of a picture, as (x0, y0, x1, y1)."""

Contour: TypeAlias = NDArray[np.int32]
"""Points x, y of a closed line, int32 ``[N, 1, 2]``, as OpenCV has them."""


class Patch:
    """A small BGR picture to paste, uint8 ``[h, w, 3]`` with even sides; its YUV form is kept once made."""

    __slots__ = ("_yuv", "bgr")

    def __init__(self, bgr: U8) -> None:
        height, width = bgr.shape[:2]
        if height % 2 or width % 2:
            bgr = np.pad(bgr, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        self.bgr = np.ascontiguousarray(bgr)
        self._yuv: dict[tuple[str, bool], tuple[U8, U8, U8]] = {}

    @classmethod
    def stack(cls, patches: list[Patch], matrix: str, full_range: bool) -> Patch:
        """Patches of equal width below one another, with their YUV form of that kind taken from theirs."""
        stacked = cls(np.concatenate([p.bgr for p in patches]))
        parts = [p.yuv(matrix, full_range) for p in patches]
        y, u, v = (np.concatenate([part[i] for part in parts]) for i in range(3))
        stacked._yuv[matrix, full_range] = (y, u, v)
        return stacked

    @property
    def width(self) -> int:
        return int(self.bgr.shape[1])

    @property
    def height(self) -> int:
        return int(self.bgr.shape[0])

    def yuv(self, matrix: str, full_range: bool) -> tuple[U8, U8, U8]:
        """Return the patch as planes ``y [h, w]``, ``u`` and ``v [h / 2, w / 2]``."""
        key = (matrix, full_range)
        if key not in self._yuv:
            from perception.picture.conversions import bgr_to_yuv

            yuv = bgr_to_yuv(self.bgr, matrix, full_range)
            half = yuv[:, :, 1:].reshape(self.height // 2, 2, self.width // 2, 2, 2).mean(axis=(1, 3))
            u, v = np.moveaxis(np.rint(half).astype(np.uint8), -1, 0)
            self._yuv[key] = (np.ascontiguousarray(yuv[:, :, 0]), np.ascontiguousarray(u), np.ascontiguousarray(v))
        return self._yuv[key]


class Canvas(Protocol):
    """The primitives that all but the mask overlay is drawn with. Whatever lies outside the picture is cut off."""

    width: int
    height: int
    matrix: str
    full_range: bool

    @property
    def picture(self) -> Picture: ...

    def fill(self, x0: int, y0: int, x1: int, y1: int, color: Color) -> None:
        """Fill the columns ``x0..x1 - 1`` of the rows ``y0..y1 - 1``."""

    def paste(self, patch: Patch, x: int, y: int, opacity: float = 1.0) -> None:
        """Put a patch with its top left corner at ``x, y`` (planes: at the even position left of and above it)."""

    def outline(self, contours: Sequence[Contour], width: int, color: Color) -> None:
        """Draw closed contours, a line of ``width`` pixels."""

    def path(self, points: Contour, width: int, color: Color) -> None:
        """Draw a line through points that does not close."""


class BgrCanvas:
    """Draws on uint8 ``[H, W, 3]`` BGR."""

    def __init__(self, image: U8) -> None:
        self.image = image
        self.height, self.width = image.shape[:2]
        self.matrix, self.full_range = "bt601", False  # of no effect here

    @property
    def picture(self) -> Picture:
        return self.image

    def fill(self, x0: int, y0: int, x1: int, y1: int, color: Color) -> None:
        self.image[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = color

    def paste(self, patch: Patch, x: int, y: int, opacity: float = 1.0) -> None:
        _blend(self.image, patch.bgr, x, y, opacity)

    def outline(self, contours: Sequence[Contour], width: int, color: Color) -> None:
        import cv2

        cv2.drawContours(self.image, contours, -1, color, width)

    def path(self, points: Contour, width: int, color: Color) -> None:
        import cv2

        cv2.polylines(self.image, [points], False, color, width, cv2.LINE_AA)


class PlanesCanvas:
    """Draws on YUV 4:2:0 planes of even size; a chroma sample that is touched at all takes the new colour."""

    def __init__(self, planes: Planes) -> None:
        self.planes = planes
        self._colors: dict[Color, tuple[int, int, int]] = {}
        self.height, self.width = planes.height, planes.width
        self.matrix: str = planes.matrix
        self.full_range = planes.full_range

    @property
    def picture(self) -> Picture:
        return self.planes

    def fill(self, x0: int, y0: int, x1: int, y1: int, color: Color) -> None:
        p = self.planes
        y, u, v = self._yuv(color)
        x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, self.width), min(y1, self.height)
        if x0 >= x1 or y0 >= y1:
            return
        p.y[y0:y1, x0:x1] = y
        rows, columns = slice(y0 // 2, (y1 + 1) // 2), slice(x0 // 2, (x1 + 1) // 2)
        p.u[rows, columns] = u
        p.v[rows, columns] = v

    def paste(self, patch: Patch, x: int, y: int, opacity: float = 1.0) -> None:
        p = self.planes
        luma, u, v = patch.yuv(p.matrix, p.full_range)
        half_x, half_y = x // 2, y // 2
        _blend(p.y, luma, half_x * 2, half_y * 2, opacity)
        _blend(p.u, u, half_x, half_y, opacity)
        _blend(p.v, v, half_x, half_y, opacity)

    def outline(self, contours: Sequence[Contour], width: int, color: Color) -> None:
        import cv2

        p = self.planes
        y, u, v = self._yuv(color)
        halved = [contour // 2 for contour in contours]
        cv2.drawContours(p.y, contours, -1, y, width)
        cv2.drawContours(p.u, halved, -1, u, max(width // 2, 1))
        cv2.drawContours(p.v, halved, -1, v, max(width // 2, 1))

    def path(self, points: Contour, width: int, color: Color) -> None:
        import cv2

        y, u, v = self._yuv(color)
        cv2.polylines(self.planes.y, [points], False, y, width, cv2.LINE_AA)
        for plane, value in ((self.planes.u, u), (self.planes.v, v)):
            cv2.polylines(plane, [points // 2], False, value, max(width // 2, 1))

    def _yuv(self, color: Color) -> tuple[int, int, int]:
        if color not in self._colors:
            from perception.picture.conversions import bgr_to_yuv

            y, u, v = bgr_to_yuv(np.array(color, np.uint8), self.planes.matrix, self.planes.full_range)
            self._colors[color] = (int(y), int(u), int(v))
        return self._colors[color]


def _blend(target: U8, patch: U8, x: int, y: int, opacity: float) -> None:
    height, width = target.shape[:2]
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + patch.shape[1], width), min(y + patch.shape[0], height)
    if x0 >= x1 or y0 >= y1:
        return
    part = patch[y0 - y : y1 - y, x0 - x : x1 - x]
    region = target[y0:y1, x0:x1]
    if opacity >= 1:
        region[:] = part
    else:
        import cv2

        region[:] = cv2.addWeighted(region, 1 - opacity, part, opacity, 0).reshape(region.shape)


def drawable(frame: Frame) -> Picture:
    """Return the picture of a frame that can be drawn on: planes if it has them and both sides are even, else BGR."""
    return frame.image if frame.width % 2 or frame.height % 2 else frame.picture


def make_canvas(picture: Picture, pool: BufferPool, copy: bool = True) -> BgrCanvas | PlanesCanvas:
    """Create a canvas of the kind and size of a picture, in memory of its own.

    Args:
        picture: see `drawable`; only read.
        pool: where the memory comes from.
        copy: with the picture's pixels; else its contents are undefined.
    """
    if not isinstance(picture, Planes):
        image = pool.get(picture.shape)
        if copy:
            np.copyto(image, picture)
        return BgrCanvas(image)
    memory = pool.get((picture.height * 3 // 2, picture.width))
    planes = Planes.from_i420(memory, picture.matrix, picture.full_range)
    if copy:
        np.copyto(planes.y, picture.y)
        np.copyto(planes.u, picture.u)
        np.copyto(planes.v, picture.v)
    return PlanesCanvas(planes)
