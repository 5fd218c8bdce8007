"""Polygons as people draw them: whether they cross themselves, how large and how thick they are."""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, float]


def area(points: Sequence[Point]) -> float:
    """Area of a polygon that does not cross itself, in units of its coordinates (the shoelace formula)."""
    total = 0.0
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        total += x0 * y1 - x1 * y0
    return abs(total) / 2


def crossing_edges(points: Sequence[Point]) -> tuple[int, int] | None:
    """Find two edges of a polygon that meet although they are not neighbours; None where there are none.

    Neighbours that lie upon each other meet as well. Edge ``i`` goes from point ``i`` to the next one.
    """
    count = len(points)
    for i in range(count):
        a, b = points[i], points[(i + 1) % count]
        for j in range(i + 1, count):
            c, d = points[j], points[(j + 1) % count]
            if j == i + 1:
                meets = _folds(a, b, d)
            elif (j + 1) % count == i:
                meets = _folds(b, a, c)
            else:
                meets = _meet(a, b, c, d)
            if meets:
                return i, j
    return None


def thickness(points: Sequence[Point]) -> float:
    """Twice the area by the perimeter: of a convex polygon at least the radius of the largest circle in it."""
    perimeter = sum(
        ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True)
    )
    return 2 * area(points) / perimeter


def _turn(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _within(a: Point, b: Point, c: Point) -> bool:
    """Whether ``c``, on the line through ``a`` and ``b``, is between them."""
    return min(a[0], b[0]) <= c[0] <= max(a[0], b[0]) and min(a[1], b[1]) <= c[1] <= max(a[1], b[1])


def _folds(a: Point, b: Point, c: Point) -> bool:
    """Whether the way from ``a`` to ``b`` comes back upon itself towards ``c``."""
    forth, back = (b[0] - a[0], b[1] - a[1]), (c[0] - b[0], c[1] - b[1])
    return _turn(a, b, c) == 0 and forth[0] * back[0] + forth[1] * back[1] < 0


def _meet(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Whether two segments have a point in common."""
    ab_c, ab_d, cd_a, cd_b = _turn(a, b, c), _turn(a, b, d), _turn(c, d, a), _turn(c, d, b)
    if ab_c * ab_d < 0 and cd_a * cd_b < 0:
        return True
    touching = ((ab_c, a, b, c), (ab_d, a, b, d), (cd_a, c, d, a), (cd_b, c, d, b))
    return any(turn == 0 and _within(p, q, r) for turn, p, q, r in touching)
