"""Places of labels: which of them are drawn, and where, so that none covers another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba.core import types
from numpy.typing import NDArray

from perception.common.jit import kernel

MOST_LABELS = 40
"""Labels of one picture at most: more cannot be read."""

_I32_2D = types.Array(types.int32, 2, "C")
_I32_2D_IN = types.Array(types.int32, 2, "C", readonly=True)


@kernel(types.void(_I32_2D_IN, _I32_2D_IN, _I32_2D_IN, types.int64, types.int64, types.int64, _I32_2D))
def _place(corners, sizes, taken, width, height, most, places):  # type: ignore[no-untyped-def]
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
        x = max(min(np.int64(corners[i, 0]), width - w), 0)
        top = np.int64(corners[i, 1])
        inside = max(min(top, height - h), 0)
        for y in (min(top - h, max(height - h, 0)) if top >= h else inside, inside):
            free = True
            for k in range(n):
                if x < kept[k, 2] and kept[k, 0] < x + w and y < kept[k, 3] and kept[k, 1] < y + h:
                    free = False
                    break
            if free:
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
) -> NDArray[np.int32]:
    """Choose the labels that are drawn and their places: in order, each where none before it lies.

    A label stands above the top left corner of its box, or below that corner where there is no room above: at the
    upper edge of the picture, or beside another label. It is left out where neither place is free.

    Args:
        corners: top left corner (x, y) of each box, int32 ``[N, 2]``, the most important one first.
        sizes: (width, height) of each label, int32 ``[N, 2]``.
        width, height: of the picture, in pixels.
        most: labels at most.
        taken: rectangles x0, y0, x1, y1 in pixels where no label may lie.

    Returns:
        Top left corner (x, y) of each label, int32 ``[N, 2]``; -1 for labels that are left out.
    """
    places = np.empty(corners.shape, np.int32)
    _place(corners, sizes, np.array(taken, np.int32).reshape(-1, 4), width, height, most, places)
    return places
