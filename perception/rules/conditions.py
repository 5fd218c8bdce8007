"""Conditions on the pixels of classes: their share, where they are, and what they stand on, for some time."""

from __future__ import annotations

import numpy as np
from numba.core import types

from perception.card import SegmentationTask
from perception.common.jit import U8_2D, kernel
from perception.rules.settings import Condition
from perception.rules.visit import is_inside
from perception.types import U8, ClassMap

CELLS = 320
"""Cells of the longer side of the class map in which pixels are counted."""


@kernel(types.UniTuple(types.int64, 2)(U8_2D, types.int64, types.int64, U8_2D))
def count_standing(mask, upper, lower, where):  # type: ignore[no-untyped-def]
    """Count the pixels of a class, by column from the bottom, that end up on another class.

    Args:
        mask: uint8 ``[H, W]`` of class ids.
        upper: class of the pixels that are counted.
        lower: class that must come next below a run of them; -1: whatever comes.
        where: uint8 ``[H, W]``, not 0 where pixels are looked at.

    Returns:
        pixels that are counted, and that are looked at.
    """
    height, width = mask.shape
    below = np.full(width, -1, np.int64)
    counted = looked_at = 0
    for y in range(height - 1, -1, -1):
        for x in range(width):
            here = mask[y, x]
            if where[y, x]:
                looked_at += 1
                if here == upper and (lower < 0 or below[x] == lower):
                    counted += 1
            if here != upper:
                below[x] = here
    return counted, looked_at


@kernel(types.void(types.Array(types.float64, 2, "C"), U8_2D))
def mark_inside(corners, cells):  # type: ignore[no-untyped-def]
    """Write into uint8 ``[H, W]`` which cells of a frame have their centre in a polygon, relative ``[K, 2]``."""
    height, width = cells.shape
    for y in range(height):
        for x in range(width):
            cells[y, x] = 1 if is_inside(corners, (x + 0.5) / width, (y + 0.5) / height) else 0


class ConditionWatch:
    """Watches one condition on one source.

    Args:
        rule: what is watched.
        task: of the model that makes the class maps.

    Attributes:
        value: the share in the last frame, 0..1; None before the first.
        holds: whether the condition is on.
        since: when it began, or ended.
    """

    def __init__(self, rule: Condition, task: SegmentationTask) -> None:
        self.rule = rule
        self.value: float | None = None
        self.holds = False
        self.since: float | None = None
        self._class_id = task.names.index(rule.pixels)
        self._lower = -1 if rule.on is None else task.names.index(rule.on)
        self._other_since: float | None = None
        self._where: U8 | None = None

    def update(self, class_map: ClassMap, small: U8, now: float) -> float | None:
        """Take the class map of the next frame.

        Args:
            class_map: of the frame.
            small: the same, of at most `CELLS` cells a side.
            now: seconds of a clock that never goes back.

        Returns:
            None where nothing changed. Where the condition begins, 0; where it ends, the seconds for which it held.
        """
        self.value = self._share(class_map, small)
        if self.rule.holds(self.value) == self.holds:
            self._other_since = None
            return None
        if self._other_since is None:
            self._other_since = now
        if now - self._other_since < self.rule.for_s - 1e-9:
            return None
        held = self._other_since - self.since if self.holds and self.since is not None else 0.0
        self.holds, self.since, self._other_since = not self.holds, self._other_since, None
        return held

    def _share(self, class_map: ClassMap, small: U8) -> float:
        if self.rule.points is None and self._lower < 0:
            return float(class_map.shares[self._class_id])
        if self._where is None or self._where.shape != small.shape:
            self._where = _cells_of(self.rule, small.shape)
        counted, looked_at = count_standing(small, self._class_id, self._lower, self._where)
        return float(counted / max(looked_at, 1))


def small_map(class_map: ClassMap) -> U8:
    """Return the classes of a frame at the size in which they are counted."""
    width, height = class_map.letterbox.frame_width, class_map.letterbox.frame_height
    scale = min(1.0, CELLS / max(width, height))
    made = class_map.resized(max(round(width * scale), 1), max(round(height * scale), 1))
    return np.ascontiguousarray(made)


def _cells_of(condition: Condition, shape: tuple[int, ...]) -> U8:
    """Cells whose centres are in a condition's polygon."""
    made = np.ones(shape, np.uint8)
    if condition.points is not None:
        mark_inside(np.array(condition.points, np.float64), made)
    return made
