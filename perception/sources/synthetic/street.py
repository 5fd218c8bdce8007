"""The part of the synthetic street that does not move: its picture and its class mask."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from perception.sources.synthetic import sprites
from perception.sources.synthetic.sprites import Color
from perception.types import U8

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE = range(8)

# Bands from top to bottom, in units of 1/360 of the frame's height.
PAVEMENT_FAR = (196, 226)
ROAD_FAR = (226, 272)
ROAD_NEAR = (272, 324)
PAVEMENT_NEAR = (324, 360)


def draw_street(width: int, height: int, seed: int, step: Callable[[], None] = lambda: None) -> tuple[U8, U8]:
    """Draw the empty street.

    Args:
        width, height: of the picture in pixels.
        seed: what it looks like.
        step: called between the steps of drawing; may raise to end it.

    Returns:
        uint8 ``[H, W, 3]`` BGR, and uint8 ``[H, W]`` of CamVid's class ids.
    """
    return _Street(width, height, np.random.default_rng([seed, 0])).draw(step)


class _Street:
    def __init__(self, width: int, height: int, random: np.random.Generator) -> None:
        self._random = random
        self._k = height / 360
        self._units = width / self._k
        self._image = np.zeros((height, width, 3), np.uint8)
        self._mask = np.full((height, width), SKY, np.uint8)

    def draw(self, step: Callable[[], None]) -> tuple[U8, U8]:
        for part in (self._sky, self._buildings, self._fence, self._ground, self._trees, self._furniture):
            part()
            step()
        grain = self._random.integers(-3, 4, self._image.shape[:2], np.int8)
        signed = cv2.merge([grain] * 3).astype(np.int16)
        return np.clip(self._image + signed, 0, 255).astype(np.uint8), self._mask

    def _box(self, x0: float, y0: float, x1: float, y1: float, color: Color, class_id: int) -> None:
        """Fill a rectangle given in units; the right and bottom edges are not part of it."""
        left, right = (max(0, round(x * self._k)) for x in (x0, x1))
        top, bottom = (max(0, round(y * self._k)) for y in (y0, y1))
        self._image[top:bottom, left:right] = color
        self._mask[top:bottom, left:right] = class_id

    def _sky(self) -> None:
        height, width = self._mask.shape
        part = np.linspace(0, 1, height, dtype=np.float32)[:, None, None] * 360 / 200
        top, horizon = np.array((225, 165, 95), np.float32), np.array((245, 230, 215), np.float32)
        self._image[:] = np.clip(top + (horizon - top) * np.minimum(part, 1), 0, 255).astype(np.uint8)
        # Clouds have no edges: painted at one pixel a unit and enlarged.
        clouds = np.zeros((360, max(1, round(self._units))), np.float32)
        for _ in range(6):
            x, y = self._random.uniform(0, self._units), self._random.uniform(15, 80)
            for _ in range(7):
                center = round(x + self._random.uniform(-30, 30)), round(y)
                cv2.ellipse(clouds, center, (round(self._random.uniform(12, 26)), 6), 0, 0, 360, 0.55, -1)
        soft = np.asarray(cv2.resize(cv2.GaussianBlur(clouds, (0, 0), 5), (width, height)), np.float32)[..., None]
        rows = slice(0, max(1, round(120 * self._k)))  # none is lower
        white = np.array((250, 248, 246), np.float32)
        self._image[rows] = (self._image[rows] * (1 - soft[rows]) + white * soft[rows]).astype(np.uint8)

    def _buildings(self) -> None:
        walls: tuple[Color, ...] = ((120, 140, 170), (150, 160, 165), (95, 115, 150), (160, 175, 190), (110, 120, 125))
        x = -10.0
        while x < self._units:
            width = float(self._random.uniform(60, 120))
            top = float(self._random.uniform(55, 130))
            wall = walls[int(self._random.integers(len(walls)))]
            dark: Color = (int(wall[0] * 0.7), int(wall[1] * 0.7), int(wall[2] * 0.7))
            self._box(x, top, x + width, PAVEMENT_FAR[0], wall, BUILDING)
            self._box(x, top, x + width, top + 4, dark, BUILDING)
            columns = int(width // 18)
            for row in np.arange(top + 12, PAVEMENT_FAR[0] - 34, 20):
                for column in range(columns):
                    left = x + (column + 0.5) * width / columns - 4.5
                    lit = self._random.random() < 0.15
                    glass: Color = (150, 205, 225) if lit else (125, 105, 80)
                    self._box(left - 1, row - 1, left + 10, row + 13, dark, BUILDING)
                    self._box(left, row, left + 9, row + 12, glass, BUILDING)
            door = x + float(self._random.uniform(10, width - 20))
            self._box(door, PAVEMENT_FAR[0] - 22, door + 11, PAVEMENT_FAR[0], (50, 60, 80), BUILDING)
            x += width + (0 if self._random.random() < 0.7 else float(self._random.uniform(8, 24)))

    def _fence(self) -> None:
        start = float(self._random.uniform(0.1, 0.5)) * self._units
        end = start + 0.28 * self._units
        bottom = PAVEMENT_FAR[0]
        self._box(start, bottom - 17, end, bottom - 14, (70, 95, 120), FENCE)
        self._box(start, bottom - 7, end, bottom - 4, (70, 95, 120), FENCE)
        for x in np.arange(start, end, 6):
            self._box(x, bottom - 20, x + 4, bottom, (88, 115, 142), FENCE)

    def _ground(self) -> None:
        end = self._units + 1
        self._box(0, *_edges(PAVEMENT_FAR, end), (172, 176, 178), PAVEMENT)
        self._box(0, PAVEMENT_FAR[1] - 3, end, PAVEMENT_FAR[1], (196, 200, 202), PAVEMENT)
        self._box(0, ROAD_FAR[0], end, ROAD_NEAR[1], (86, 84, 82), ROAD)
        for x in np.arange(-10, end, 46):
            self._box(x, ROAD_FAR[1] - 1.5, x + 24, ROAD_FAR[1] + 1.5, (215, 218, 220), ROAD)
        self._box(0, *_edges(PAVEMENT_NEAR, end), (160, 165, 168), PAVEMENT)
        self._box(0, PAVEMENT_NEAR[0], end, PAVEMENT_NEAR[0] + 4, (200, 204, 206), PAVEMENT)
        for x in np.arange(float(self._random.uniform(0, 30)), end, 40):
            self._box(x, PAVEMENT_NEAR[0] + 4, x + 1.2, PAVEMENT_NEAR[1] + 1, (140, 145, 148), PAVEMENT)

    def _trees(self) -> None:
        for x in np.arange(float(self._random.uniform(0, 60)), self._units, 150):
            tree = sprites.tree(self._k, self._random)
            left = round((x + float(self._random.uniform(-20, 20))) * self._k)
            top = round((PAVEMENT_FAR[0] + 8) * self._k) - tree.mask.shape[0]
            tree.stamp(self._image, left, top)
            tree.stamp(self._mask, left, top, TREE)

    def _furniture(self) -> None:
        for part, color in ((0.22, (60, 60, 200)), (0.58, (190, 110, 40))):
            x = part * self._units
            self._box(x - 1.5, PAVEMENT_FAR[0] - 70, x + 1.5, PAVEMENT_FAR[1] - 8, (90, 94, 96), POLE)
            self._box(x - 10, PAVEMENT_FAR[0] - 72, x + 10, PAVEMENT_FAR[0] - 50, (235, 235, 235), SIGN)
            self._box(x - 8, PAVEMENT_FAR[0] - 70, x + 8, PAVEMENT_FAR[0] - 52, color, SIGN)


def _edges(band: tuple[int, int], right: float) -> tuple[float, float, float]:
    """Top, right and bottom of a band that reaches to the frame's edge."""
    return band[0], right, band[1] + 1 if band is PAVEMENT_NEAR else band[1]
