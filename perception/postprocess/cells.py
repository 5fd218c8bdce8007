"""Runs of equal class in bilinearly upsampled logits, without upsampling them.

Bilinear interpolation is convex. Where one class is best at the four corners of a low-resolution cell, it is best
everywhere inside. In the other cells a class that another class beats at all four corners is out; along an output
row each of the few left is a straight line, so the best class changes where the upper envelope of lines breaks.

A floor under the logits makes pixels whose best logit is lower those of no class. It is one more channel of the argmax,
of a constant that interpolation leaves as it is: so its cells are exact as well, and it is nowhere in memory.

The frame's rows are walked from top to bottom. Each step yields only what differs from the row above, as updates
``(start, stop, class)``: a consumer keeps one row of state (class ids, colours) and mostly leaves it alone.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba.core import types
from numpy.typing import NDArray

from perception.common.jit import F32_3D_IN, U8_2D, helper, inline_helper, kernel

if TYPE_CHECKING:
    from perception.picture.letterbox import Letterbox


class Grid(NamedTuple):
    """The cell of the logits that each frame pixel is in.

    There are ``w + 1`` columns of cells: cell ``k`` lies between the logits ``k - 1`` and ``k``, both clamped, so the
    half cells at the rim have equal corners on both sides, which is what clamping the coordinate means.

    Attributes:
        xs: int64 ``[w + 2]``, first frame column of each column of cells.
        ys: int64 ``[h + 2]``, first frame row of each row of cells.
        fy: float32 ``[H]``, position of the frame row inside its cell, 0..1.
        x0, dx: logits' x coordinate of the frame column 0, and its step.
    """

    xs: NDArray[np.int64]
    ys: NDArray[np.int64]
    fy: NDArray[np.float32]
    x0: float
    dx: float


@lru_cache(maxsize=64)
def make_grid(letterbox: Letterbox, h: int, w: int) -> Grid:
    """Build the grid of logits ``[C, h, w]`` under a frame that ``letterbox`` fitted into the network's input."""
    left, top, right, bottom = letterbox.logits_window(h, w)
    dx, dy = (right - left) / letterbox.frame_width, (bottom - top) / letterbox.frame_height
    xs, _ = _axis(letterbox.frame_width, w, left, dx)
    ys, fy = _axis(letterbox.frame_height, h, top, dy)
    return Grid(xs, ys, fy, left + 0.5 * dx - 0.5, dx)


def _axis(pixels: int, size: int, start: float, step: float) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    position = start + (np.arange(pixels) + 0.5) * step - 0.5
    whole = np.floor(position)
    cell = np.clip(whole + 1, 0, size).astype(np.int64)
    return np.searchsorted(cell, np.arange(size + 2)).astype(np.int64), (position - whole).astype(np.float32)


NO_FLOOR = np.float32(-np.inf)
"""Every pixel is of a class."""


@kernel(types.boolean(F32_3D_IN, types.float32, U8_2D))
def label(logits, floor, labels):  # type: ignore[no-untyped-def]
    """Write the argmax over classes of ``logits [C, h, w]`` into ``labels [h, w]``; say whether all are finite.

    Where none reaches the floor it is ``C``.
    """
    classes, height, width = logits.shape
    best = np.empty(width, np.float32)
    index = np.empty(width, np.int32)
    strange = 0
    none = np.int32(classes)
    for y in range(height):
        for x in range(width):
            best[x] = -np.inf
            index[x] = 0
        for c in range(classes):
            for x in range(width):
                v = logits[c, y, x]
                better = v > best[x]
                best[x] = v if better else best[x]
                index[x] = c if better else index[x]
                strange |= v - v != 0  # NaN for NaN and for infinities
        for x in range(width):
            labels[y, x] = none if best[x] < floor else index[x]
    return strange == 0


class Scratch(NamedTuple):
    """Working memory of one walk; built by `make_scratch` inside a kernel.

    Attributes:
        state: int32 ``[w + 1]``, the class that fills the cell column in the row above, or -1.
        start, stop, cls: the updates of this row.
        cell: int64 ``[w + 1]``, columns of this row of cells that hold several classes ("mixed"), first ones valid.
        n: number of candidate classes of each mixed cell.
        who: their ids, ``[w + 1, C]``. Here and below C counts the floor as a class, where there is one.
        corner: their logits at the corners, ``[w + 1, C, 4]``: left top, left bottom, right top, right bottom.
        a, b, x: what the row above had in each mixed cell: class ``a`` up to column ``x``, then class ``b``.
        line: float32 ``[2, C]``, a row's values at the left and right edge of the cell.
        counts: int64 ``[C]``, pixels of each class so far.
    """

    state: NDArray[np.int32]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    cls: NDArray[np.int64]
    cell: NDArray[np.int64]
    n: NDArray[np.int64]
    who: NDArray[np.int64]
    corner: NDArray[np.float32]
    a: NDArray[np.int64]
    b: NDArray[np.int64]
    x: NDArray[np.int64]
    line: NDArray[np.float32]
    counts: NDArray[np.int64]


@helper
def make_scratch(logits, floor, width):  # type: ignore[no-untyped-def]
    classes = logits.shape[0] + (1 if floor > NO_FLOOR else 0)
    cells = logits.shape[2] + 1
    return Scratch(
        np.full(cells, -1, np.int32),
        np.empty(width + 1, np.int64),
        np.empty(width + 1, np.int64),
        np.empty(width + 1, np.int64),
        np.empty(cells, np.int64),
        np.empty(cells, np.int64),
        np.empty((cells, classes), np.int64),
        np.empty((cells, classes, 4), np.float32),
        np.empty(cells, np.int64),
        np.empty(cells, np.int64),
        np.empty(cells, np.int64),
        np.empty((2, classes), np.float32),
        np.zeros(classes, np.int64),
    )


@inline_helper
def _emit(s, n, start, stop, c):  # type: ignore[no-untyped-def]
    """Append an update unless it is empty; join it to the one before if they touch."""
    if start >= stop:
        return n
    if n > 0 and s.stop[n - 1] == start and s.cls[n - 1] == c:
        s.stop[n - 1] = stop
        return n
    s.start[n] = start
    s.stop[n] = stop
    s.cls[n] = c
    return n + 1


@helper
def enter_cells(s, logits, floor, labels, xs, k, rows):  # type: ignore[no-untyped-def]
    """Begin row ``k`` of cells, of which ``rows`` frame rows will be walked.

    Returns:
        The number of mixed cells and of updates (those of cells with one class).
    """
    _, h, w = logits.shape
    top = max(k - 1, 0)
    bottom = min(k, h - 1)
    mixed = 0
    n = 0
    for j in range(w + 1):
        begin = xs[j]
        end = xs[j + 1]
        if begin == end:
            continue
        left = max(j - 1, 0)
        right = min(j, w - 1)
        c0 = np.int64(labels[top, left])
        c1 = np.int64(labels[bottom, left])
        c2 = np.int64(labels[top, right])
        c3 = np.int64(labels[bottom, right])
        if c0 == c1 and c0 == c2 and c0 == c3:
            s.counts[c0] += (end - begin) * rows
            if s.state[j] != c0:
                s.state[j] = c0
                n = _emit(s, n, begin, end, c0)
            continue
        s.state[j] = -1
        s.cell[mixed] = j
        s.a[mixed] = -1
        s.n[mixed] = _candidates(logits, floor, top, bottom, left, right, c0, c1, c2, c3, s.who[mixed], s.corner[mixed])
        mixed += 1
    return mixed, n


@helper
def _add_floor(floor, classes, n, who, corner):  # type: ignore[no-untyped-def]
    """Collect the floor, too, unless one of the ``n`` classes reaches it everywhere; gives how many there are then."""
    for i in range(n):
        if min(corner[i, 0], corner[i, 1], corner[i, 2], corner[i, 3]) >= floor:
            return n
    who[n] = classes
    for k in range(4):
        corner[n, k] = floor
    return n + 1


@inline_helper
def _candidates(  # type: ignore[no-untyped-def]
    logits, floor, top, bottom, left, right, c0, c1, c2, c3, who, corner
):
    """Collect the classes that can be best somewhere in a cell; ``c0..c3`` are best at its corners."""
    classes = logits.shape[0]
    n = 0
    for c in (c0, c1, c2, c3):
        new = c < classes
        for i in range(n):
            new &= who[i] != c
        if new:
            i = n
            while i > 0 and who[i - 1] > c:  # ascending, so that ties go to the lower id
                who[i] = who[i - 1]
                i -= 1
            who[i] = c
            n += 1
    winners = n
    for i in range(winners):
        c = who[i]
        corner[i, 0] = logits[c, top, left]
        corner[i, 1] = logits[c, bottom, left]
        corner[i, 2] = logits[c, top, right]
        corner[i, 3] = logits[c, bottom, right]
    if floor > NO_FLOOR:
        n = winners = _add_floor(floor, classes, winners, who, corner)
    for c in range(classes):
        if c in (c0, c1, c2, c3):
            continue
        v0 = logits[c, top, left]
        v1 = logits[c, bottom, left]
        v2 = logits[c, top, right]
        v3 = logits[c, bottom, right]
        beaten = False
        for i in range(winners):
            beaten |= (corner[i, 0] >= v0) & (corner[i, 1] >= v1) & (corner[i, 2] >= v2) & (corner[i, 3] >= v3)
        if not beaten:
            who[n] = c
            corner[n, 0] = v0
            corner[n, 1] = v1
            corner[n, 2] = v2
            corner[n, 3] = v3
            n += 1
    return n


@inline_helper
def _column(t, x0, dx, begin, end):  # type: ignore[no-untyped-def]
    """The first frame column right of the logits' x coordinate ``t``, within the cell."""
    return min(max(np.int64(np.floor((t - x0) / dx)) + 1, begin), end)


@inline_helper
def _line_ends(s, m, f):  # type: ignore[no-untyped-def]
    """The best candidates at both edges of cell ``m`` in a row at ``f``, and where their lines cross (0..1).

    Fills ``s.line``. The crossing is -1 where a third candidate is better there.
    """
    v = s.corner[m]
    n = s.n[m]
    first = 0
    last = 0
    for i in range(n):
        s.line[0, i] = v[i, 0] + f * (v[i, 1] - v[i, 0])
        s.line[1, i] = v[i, 2] + f * (v[i, 3] - v[i, 2])
        if s.line[0, i] > s.line[0, first]:
            first = i
        if s.line[1, i] > s.line[1, last]:
            last = i
    left = s.line[0, first] - s.line[0, last]
    right = s.line[1, first] - s.line[1, last]
    cut = left / (left - right) if left != right else np.float32(0)
    if first != last:
        value = s.line[0, first] + cut * (s.line[1, first] - s.line[0, first])
        for i in range(n):
            if i != first and i != last and s.line[0, i] + cut * (s.line[1, i] - s.line[0, i]) > value:
                return first, last, np.float32(-1)
    return first, last, cut


@helper
def _envelope(s, m, n, at, begin, end, j, x0, dx):  # type: ignore[no-untyped-def]
    """Append a mixed cell's whole row by following the upper envelope of the lines in ``s.line`` from ``at``."""
    who = s.who[m]
    x = begin
    while x < end:
        slope = s.line[1, at] - s.line[0, at]
        cut = np.float32(2)
        after = at
        steepest = slope
        for i in range(s.n[m]):
            rise = s.line[1, i] - s.line[0, i]
            if rise > slope:
                t = (s.line[0, at] - s.line[0, i]) / (rise - slope)
                if t < cut or (t == cut and rise > steepest):
                    cut = t
                    after = i
                    steepest = rise
        stop = _column(j + cut, x0, dx, x, end) if cut < 1 else end
        s.counts[who[at]] += stop - x
        n = _emit(s, n, x, stop, who[at])
        x = stop
        if after == at:
            break
        at = after
    s.a[m] = -1
    return n


@helper
def walk_row(s, mixed, n, f, xs, x0, dx):  # type: ignore[no-untyped-def]
    """Append the updates of the mixed cells in a row at ``f`` (0..1) of the cells' height; returns their number."""
    for m in range(mixed):
        j = s.cell[m]
        begin = xs[j]
        end = xs[j + 1]
        v = s.corner[m]
        who = s.who[m]
        if s.n[m] == 2:
            left = (v[0, 0] - v[1, 0]) + f * ((v[0, 1] - v[1, 1]) - (v[0, 0] - v[1, 0]))
            right = (v[0, 2] - v[1, 2]) + f * ((v[0, 3] - v[1, 3]) - (v[0, 2] - v[1, 2]))
            first = 0 if left >= 0 else 1
            last = 0 if right >= 0 else 1
            cut = left / (left - right)
        else:
            first, last, cut = _line_ends(s, m, f)
            if cut < 0:
                n = _envelope(s, m, n, first, begin, end, j - 1, x0, dx)
                continue
        a = who[first]
        b = who[last]
        if first == last:
            s.counts[a] += end - begin
            if s.a[m] == a:
                n = _emit(s, n, s.x[m], end, a)
                s.x[m] = end
            elif s.a[m] >= 0 and s.b[m] == a:
                n = _emit(s, n, begin, s.x[m], a)
                s.x[m] = begin
            else:
                n = _emit(s, n, begin, end, a)
                s.a[m] = a
                s.b[m] = a
                s.x[m] = end
            continue
        x = _column(j - 1 + cut, x0, dx, begin, end)
        s.counts[a] += x - begin
        s.counts[b] += end - x
        if s.a[m] == a and s.b[m] == b:
            n = _emit(s, n, s.x[m], x, a)  # one of the two is empty
            n = _emit(s, n, x, s.x[m], b)
        else:
            n = _emit(s, n, begin, x, a)
            n = _emit(s, n, x, end, b)
            s.a[m] = a
            s.b[m] = b
        s.x[m] = x
    return n
