"""Places of labels: which of them are drawn, and where, so that none covers another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba.core import types
from numpy.typing import NDArray

from perception.common.jit import inline_helper, kernel

MOST_LABELS = 40
"""Labels of one picture at most: more cannot be read."""

_I32_2D = types.Array(types.int32, 2, "C")
_I32_2D_IN = types.Array(types.int32, 2, "C", readonly=True)


@inline_helper
def _first_in_the_way(x, y, w, h, kept, start, end):  # type: ignore[no-untyped-def]
    """Return the first of the rectangles that a label would cover; -1 if there is none."""
    for k in range(start, end):
        if x < kept[k, 2] and kept[k, 0] < x + w and y < kept[k, 3] and kept[k, 1] < y + h:
            return k
    return -1


@kernel(types.void(_I32_2D_IN, _I32_2D_IN, _I32_2D_IN, _I32_2D_IN, types.int64, types.int64, types.int64, _I32_2D))
def _place(corners, ends, sizes, taken, width, height, most, places):  # type: ignore[no-untyped-def]
    """See `place_labels`; ``places`` gets a row for each label, -1 where it is left out."""
    m = len(taken)
    kept = np.empty((m + most, 4), np.int64)
    for k in range(m):
        kept[k, 0], kept[k, 1], kept[k, 2], kept[k, 3] = taken[k, 0], taken[k, 1], taken[k, 2], taken[k, 3]
    n = m
    for i in range(len(corners)):
        places[i, 0] = places[i, 1] = -1
        if n == m + most:
            continue
        w, h = np.int64(sizes[i, 0]), np.int64(sizes[i, 1])
        left = max(min(np.int64(corners[i, 0]), width - w), 0)
        top, bottom = np.int64(corners[i, 1]), np.int64(ends[i, 1])
        inside = max(min(top, height - h), 0)
        above = min(top - h, max(height - h, 0)) if top >= h else inside
        lowest = max(min(bottom, height) - h, 0)
        below = bottom if 0 <= bottom <= height - h else lowest
        beside_taken = False
        for step in range(6):  # above, inside; then, beside what was taken: above, inside, below, lowest inside
            if step == 2 and not beside_taken:
                break
            y = (above, inside, above, inside, below, lowest)[step]
            x = left
            if step < 2:
                beside_taken |= _first_in_the_way(x, y, w, h, kept, 0, m) >= 0
            else:
                for _ in range(m):
                    k = _first_in_the_way(x, y, w, h, kept, 0, m)
                    if k >= 0:
                        x = kept[k, 2]
                if x + w > width or (x > left and x >= ends[i, 0]):
                    continue
            if _first_in_the_way(x, y, w, h, kept, 0, n) < 0:
                kept[n, 0], kept[n, 1], kept[n, 2], kept[n, 3] = x, y, x + w, y + h
                n += 1
                places[i, 0], places[i, 1] = x, y
                break


def place_labels(
    corners: NDArray[np.int32],
    sizes: NDArray[np.int32],
    width: int,
    height: int,
    most: int = MOST_LABELS,
    taken: Sequence[tuple[int, int, int, int]] = (),
    ends: NDArray[np.int32] | None = None,
) -> NDArray[np.int32]:
    """Choose the labels that are drawn and their places: in order, each where none before it lies.

    A label stands above the top left corner of its box, or below that corner where there is no room above: at the
    upper edge of the picture, or beside another label. It is left out where neither place is free, unless that is for
    something other than labels, such as a legend: then it stands to the right of that, or at the box's lower edge. Only
    a box that lies under it altogether has no label then.

    Args:
        corners: top left corner (x, y) of each box, int32 ``[N, 2]``, the most important one first.
        sizes: (width, height) of each label, int32 ``[N, 2]``.
        width, height: of the picture, in pixels.
        most: labels at most.
        taken: rectangles x0, y0, x1, y1 in pixels where no label may lie.
        ends: bottom right corner (x, y) of each box, int32 ``[N, 2]``; None: as if each box was nothing but its corner.

    Returns:
        Top left corner (x, y) of each label, int32 ``[N, 2]``; -1 for labels that are left out.
    """
    places = np.empty(corners.shape, np.int32)
    rectangles = np.array(taken, np.int32).reshape(-1, 4)
    begin, end = (np.ascontiguousarray(part, np.int32) for part in (corners, corners if ends is None else ends))
    _place(begin, end, sizes, rectangles, width, height, most, places)
    return places
