"""Colours for classes that nobody has given one."""

from __future__ import annotations

import colorsys
from collections.abc import Collection, Iterator

Rgb = tuple[int, int, int]

_GOLDEN = 0.618033988749895
_TONES = ((0.85, 0.95), (0.55, 1.0), (0.95, 0.7))  # saturation and value: vivid, light, dark


def class_colors(count: int, taken: Collection[tuple[int, ...]] = ()) -> list[Rgb]:
    """Choose colours (RGB, 0..255) that differ from each other and from those that are ``taken``.

    Neighbours in the list are far apart: hues step by the golden ratio of the circle. The same count and the same
    taken colours give the same list, and a longer list begins with the shorter one.
    """
    used: set[tuple[int, ...]] = set(taken)
    chosen: list[Rgb] = []
    for color in _colors():
        if len(chosen) == count:
            break
        if color not in used:
            used.add(color)
            chosen.append(color)
    return chosen


def _colors() -> Iterator[Rgb]:
    hue, number = 0.0, 0
    while True:
        saturation, value = _TONES[number % len(_TONES)]
        red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
        yield round(red * 255), round(green * 255), round(blue * 255)
        hue, number = (hue + _GOLDEN) % 1, number + 1
