"""Small pictures of road users and street furniture, drawn once in code and stamped onto frames.

Sizes are in units of 1/360 of the frame's height. Sprites are drawn several times too large and reduced, which
smooths what is inside them; their outline stays hard, so that a pixel belongs to one object and truth is exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from perception.types import U8

Color = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Sprite:
    """A cut-out picture.

    Attributes:
        image: uint8 ``[h, w, 3]`` BGR.
        mask: uint8 ``[h, w]``, 255 where the sprite covers what is behind it, else 0.
    """

    image: U8
    mask: U8

    @property
    def mirrored(self) -> Sprite:
        return Sprite(np.ascontiguousarray(self.image[:, ::-1]), np.ascontiguousarray(self.mask[:, ::-1]))

    def stamp(self, target: U8, x: int, y: int, value: Color | int | None = None) -> None:
        """Put the sprite onto ``target`` ``[H, W]`` or ``[H, W, 3]`` with its top left at ``x, y``, clipped.

        Args:
            target: written in place.
            x, y: may lie outside.
            value: fill the outline with this instead of the picture.
        """
        height, width = self.mask.shape
        x0, y0 = max(0, x), max(0, y)
        x1, y1 = min(target.shape[1], x + width), min(target.shape[0], y + height)
        if x0 >= x1 or y0 >= y1:
            return
        mask = self.mask[y0 - y : y1 - y, x0 - x : x1 - x]
        region = target[y0:y1, x0:x1]
        if value is None:
            cv2.copyTo(self.image[y0 - y : y1 - y, x0 - x : x1 - x], mask, region)
        else:
            region[mask > 0] = value


class Sketch:
    """A canvas in units, ``oversample`` times larger than what comes out of it."""

    def __init__(self, width: float, height: float, scale: float) -> None:
        self._oversample = int(min(4, max(1, round(4 / scale))))
        self._k = scale * self._oversample
        self._size = max(1, round(width * scale)), max(1, round(height * scale))
        shape = self._size[1] * self._oversample, self._size[0] * self._oversample
        self._image = np.zeros((*shape, 3), np.uint8)
        self._mask = np.zeros(shape, np.uint8)

    def polygon(self, points: list[Point], color: Color) -> None:
        scaled = [np.array([(round(x * self._k), round(y * self._k)) for x, y in points], np.int32)]
        cv2.fillPoly(self._image, scaled, color)
        cv2.fillPoly(self._mask, scaled, (255,))

    def box(self, x0: float, y0: float, x1: float, y1: float, color: Color) -> None:
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], color)

    def disc(self, x: float, y: float, radius: float, color: Color, ring: float | None = None) -> None:
        """A filled circle, or a ring of the thickness ``ring``."""
        center = round(x * self._k), round(y * self._k)
        thickness = -1 if ring is None else max(1, round(ring * self._k))
        cv2.circle(self._image, center, max(1, round(radius * self._k)), color, thickness)
        cv2.circle(self._mask, center, max(1, round(radius * self._k)), 255, thickness)

    def line(self, start: Point, end: Point, width: float, color: Color) -> None:
        a, b = ((round(x * self._k), round(y * self._k)) for x, y in (start, end))
        thickness = max(1, round(width * self._k))
        cv2.line(self._image, a, b, color, thickness)
        cv2.line(self._mask, a, b, 255, thickness)

    def sprite(self) -> Sprite:
        if self._oversample == 1:
            return Sprite(self._image, self._mask)
        # Only covered pixels may lend their colour to the outline, else it would get a dark seam.
        cover = cv2.resize(self._mask, self._size, interpolation=cv2.INTER_AREA)
        small = cv2.resize(self._image, self._size, interpolation=cv2.INTER_AREA)
        weight = np.maximum(cover, 1)[..., None] / 255.0
        image = np.clip(small / weight, 0, 255).astype(np.uint8)
        return Sprite(image, np.where(cover >= 128, 255, 0).astype(np.uint8))


def _shade(color: Color, factor: float) -> Color:
    b, g, r = (int(min(255, max(0, c * factor))) for c in color)
    return b, g, r


def car(scale: float, color: Color, van: bool = False) -> list[Sprite]:
    """Draw a car seen from its side, heading right: 104 x 38 units (a van: 104 x 52)."""
    height = 52.0 if van else 38.0
    sketch = Sketch(104, height, scale)
    belt, floor = height - 22, height - 7
    glass = (92, 74, 58)
    if van:
        sketch.polygon([(2, 3), (78, 3), (92, belt), (102, belt + 4), (102, floor), (2, floor)], color)
        sketch.polygon([(66, 8), (76, 8), (86, belt), (66, belt)], glass)
        sketch.box(8, 8, 60, belt - 2, _shade(color, 0.92))
    else:
        sketch.polygon(
            [(2, belt + 2), (16, belt), (32, 2), (66, 2), (82, belt), (101, belt + 4), (102, floor), (2, floor)], color
        )
        sketch.polygon([(22, belt), (35, 5), (48, 5), (48, belt)], glass)
        sketch.polygon([(51, 5), (64, 5), (76, belt), (51, belt)], glass)
    sketch.box(2, floor - 4, 102, floor, _shade(color, 0.6))
    sketch.box(97, belt + 5, 102, belt + 9, (190, 240, 255))
    sketch.box(2, belt + 4, 5, belt + 9, (40, 40, 210))
    for x in (22.0, 82.0):
        sketch.disc(x, height - 9, 9, (28, 28, 28))
        sketch.disc(x, height - 9, 4.5, (170, 170, 175))
    return [sketch.sprite()]


def pedestrian(scale: float, coat: Color, trousers: Color, skin: Color) -> list[Sprite]:
    """Somebody walking right, 22 x 50 units, in four steps."""
    steps = []
    for swing in (-6.0, -2.0, 6.0, 2.0):
        sketch = Sketch(22, 50, scale)
        for side in (1, -1):
            sketch.line((11, 29), (11 + side * swing, 48), 4, _shade(trousers, 1.0 if side > 0 else 0.8))
        sketch.line((11, 15), (11 + swing * 0.9, 29), 3, _shade(coat, 0.8))
        sketch.polygon([(7, 12), (15, 12), (16, 31), (6, 31)], coat)
        sketch.line((12, 15), (12 - swing * 0.9, 29), 3, _shade(coat, 0.9))
        sketch.disc(11.5, 6.5, 5, skin)
        sketch.polygon([(6.5, 6), (7.5, 2), (12, 1), (16, 3.5), (9, 7)], (40, 50, 70))
        steps.append(sketch.sprite())
    return steps


def bicyclist(scale: float, coat: Color, frame: Color) -> list[Sprite]:
    """Somebody on a bicycle, heading right, 56 x 58 units, in four turns of the pedals."""
    turns = []
    for angle in np.deg2rad((0, 90, 180, 270)):
        sketch = Sketch(56, 58, scale)
        foot = (26 + 5 * float(np.cos(angle)), 46 + 5 * float(np.sin(angle)))
        other = (52 - foot[0], 92 - foot[1])
        for x in (12.0, 43.0):
            sketch.disc(x, 45, 11, (35, 35, 35), ring=2)
            sketch.disc(x, 45, 2, (120, 120, 120))
        sketch.line((23, 27), other, 3.5, (60, 45, 40))
        for a, b in (((12, 45), (26, 46)), ((26, 46), (21, 28)), ((21, 28), (12, 45)), ((26, 46), (39, 27)),
                     ((21, 30), (39, 29)), ((38, 24), (43, 45))):  # fmt: skip
            sketch.line(a, b, 1.8, frame)
        sketch.line((36, 23), (42, 22), 2, (40, 40, 40))
        sketch.line((23, 27), foot, 4, (80, 60, 52))
        sketch.polygon([(19, 28), (27, 28), (35, 13), (29, 9)], coat)
        sketch.line((31, 14), (39, 23), 3, _shade(coat, 0.85))
        sketch.disc(35, 7, 5, (150, 185, 225))
        sketch.polygon([(29.5, 6), (33, 1.5), (38, 2), (40.5, 5.5)], (60, 60, 220))
        turns.append(sketch.sprite())
    return turns


def lamp_post(scale: float) -> Sprite:
    """Draw a street lamp, 34 x 170 units."""
    sketch = Sketch(34, 170, scale)
    sketch.box(4, 8, 7, 170, (88, 92, 92))
    sketch.polygon([(4, 10), (7, 6), (30, 2), (30, 5), (8, 10)], (88, 92, 92))
    sketch.box(22, 2, 33, 6, (120, 126, 126))
    return sketch.sprite()


def tree(scale: float, random: np.random.Generator) -> Sprite:
    """Draw a tree, 70 x 110 units."""
    sketch = Sketch(70, 110, scale)
    sketch.polygon([(31, 60), (39, 60), (41, 110), (29, 110)], (48, 66, 88))
    green = np.array((46, 104, 62)) + random.integers(-14, 15, 3)
    for _ in range(26):
        angle, radius = random.uniform(0, 2 * np.pi), 22 * np.sqrt(random.uniform())
        x, y = 35 + radius * np.cos(angle), 36 + 0.95 * radius * np.sin(angle)
        light = 1.15 - 0.5 * (y - 10) / 60
        b, g, r = (int(c) for c in np.clip(green * light, 0, 255))
        sketch.disc(float(x), float(y), float(random.uniform(8, 13)), (b, g, r))
    return sketch.sprite()
