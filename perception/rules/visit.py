"""Into a zone, in it and out again: the stays of one track inside and outside of one polygon."""

from __future__ import annotations

import numpy as np

from perception.common.jit import helper
from perception.rules.crossing import NEARLY, distance

RAW, SINCE, FREE, REACHED, REAL, ENTRY_X, ENTRY_Y = range(7)
INSIDE, ENTERED, SHOWN, LOITERED, REST_X, REST_Y, REST_SINCE, PARKED, AWAY = range(7, 16)
"""Columns of the state of a track at a zone. Of the stay that it is in: whether inside, since when, and the rest as at
a line; where it began. Of what is believed: whether inside, since when; whether that is told, which waits for a class
that is wanted; whether it loiters; from where and since when it has not moved away; whether it is parked; since when it
is away from there, -1 for not."""
VISIT = 16

ENTERED_IT, LEFT_IT, LOITERS, PARKS, MOVES = range(1, 6)
"""What is said of a visit, see `CROSSED` and the others in `perception.rules.step`."""

HOLD, REACH, DEPTH, LOITERING_S, PARKED_S, REST = range(6)
"""Limits of a visit: seconds of a stay that is believed; how far from the edges it gets, outside and inside; seconds
after which a box loiters or is parked, infinite for never; how far it moves while it stands still."""
LIMITS = 6


@helper
def is_inside(corners, x, y):  # type: ignore[no-untyped-def]
    """Whether a point is in a polygon, float64 ``[K, 2]``: a ray to the left meets an odd number of its edges."""
    odd = False
    j = len(corners) - 1
    for i in range(len(corners)):
        yi, yj = corners[i, 1], corners[j, 1]
        if (yi > y) != (yj > y) and x > corners[i, 0] + (y - yi) / (yj - yi) * (corners[j, 0] - corners[i, 0]):
            odd = not odd
        j = i
    return odd


@helper
def edge_distance(corners, x, y):  # type: ignore[no-untyped-def]
    """Distance of a point from the edges of a polygon."""
    least = np.inf
    j = len(corners) - 1
    for i in range(len(corners)):
        least = min(least, distance(corners[j, 0], corners[j, 1], corners[i, 0], corners[i, 1], x, y))
        j = i
    return least


@helper
def cuts_of(corners, px, py, qx, qy, cuts):  # type: ignore[no-untyped-def]
    """Where the way from ``p`` to ``q`` meets edges of a polygon, as parts of it in 0..1, in order; return how many."""
    count = 0
    dx, dy = qx - px, qy - py
    j = len(corners) - 1
    for i in range(len(corners)):
        ax, ay = corners[j, 0], corners[j, 1]
        ex, ey = corners[i, 0] - ax, corners[i, 1] - ay
        j = i
        across = dx * ey - dy * ex
        if across == 0:
            continue
        part = ((ax - px) * ey - (ay - py) * ex) / across
        along = ((ax - px) * dy - (ay - py) * dx) / across
        if 0 < part < 1 and -NEARLY <= along <= 1 + NEARLY:
            k = count
            while k > 0 and cuts[k - 1] > part:
                cuts[k] = cuts[k - 1]
                k -= 1
            cuts[k] = part
            count += 1
    return count


@helper
def begin_visit(z, corners, x, y, now, free):  # type: ignore[no-untyped-def]
    """Begin with the first sight of a track."""
    z[:] = 0.0
    z[RAW] = 1.0 if is_inside(corners, x, y) else 0.0
    z[SINCE], z[FREE] = now, 1.0 if free else 0.0
    z[ENTRY_X], z[ENTRY_Y] = x, y
    z[AWAY] = -1.0


@helper
def _settle(z, now, limits, wanted, said, n):  # type: ignore[no-untyped-def]
    """Believe the stay of a track if it may be; say what that means; return how much is said."""
    may = z[REACHED] > 0 and (z[FREE] > 0 or now - z[SINCE] >= limits[HOLD] - NEARLY)
    if z[REAL] == 0 and may:
        z[REAL] = 1.0
        if z[RAW] > 0 and z[INSIDE] == 0:
            z[INSIDE], z[ENTERED] = 1.0, z[SINCE]
            z[SHOWN], z[LOITERED], z[PARKED], z[AWAY] = 0.0, 0.0, 0.0, -1.0
            z[REST_X], z[REST_Y], z[REST_SINCE] = z[ENTRY_X], z[ENTRY_Y], z[SINCE]
        elif z[RAW] == 0 and z[INSIDE] > 0:
            if z[SHOWN] > 0 and z[PARKED] > 0:
                n = _say(said, n, MOVES, z[SINCE] - z[REST_SINCE])
            n = _leave(z, z[SINCE], said, n)
    if z[INSIDE] > 0 and z[SHOWN] == 0 and wanted:
        z[SHOWN] = 1.0
        n = _say(said, n, ENTERED_IT, 0.0)
    return n


@helper
def _say(said, n, what, seconds):  # type: ignore[no-untyped-def]
    said[n, 0], said[n, 1] = what, seconds
    return n + 1


@helper
def _leave(z, at, said, n):  # type: ignore[no-untyped-def]
    z[INSIDE] = 0.0
    return _say(said, n, LEFT_IT, at - z[ENTERED]) if z[SHOWN] > 0 else n


@helper
def _turn(z, x, y, at, limits, wanted, said, n):  # type: ignore[no-untyped-def]
    """End a stay at an edge of the polygon and begin the other one; return how much is said.

    Who comes out elsewhere than he went in has passed through, and that is believed however short it was.
    """
    through = min(limits[REACH], 2.0 * limits[DEPTH])
    if z[RAW] > 0 and np.hypot(x - z[ENTRY_X], y - z[ENTRY_Y]) >= through:
        z[REACHED], z[FREE] = 1.0, 1.0
    n = _settle(z, at, limits, wanted, said, n)
    z[RAW] = 1.0 - z[RAW]
    z[SINCE], z[FREE], z[REACHED], z[REAL] = at, 0.0, 0.0, 0.0
    z[ENTRY_X], z[ENTRY_Y] = x, y
    return n


@helper
def _stay(z, x, y, now, limits, said, n):  # type: ignore[no-untyped-def]
    """Look how long a track in a zone has been there, and since when it stands still."""
    if z[LOITERED] == 0 and now - z[ENTERED] >= limits[LOITERING_S] - NEARLY:
        z[LOITERED] = 1.0
        n = _say(said, n, LOITERS, now - z[ENTERED])
    if limits[PARKED_S] == np.inf:
        return n
    if np.hypot(x - z[REST_X], y - z[REST_Y]) > limits[REST]:
        if z[AWAY] < 0:
            z[AWAY] = now
        if now - z[AWAY] >= limits[HOLD] - NEARLY:
            if z[PARKED] > 0:
                n = _say(said, n, MOVES, z[AWAY] - z[REST_SINCE])
            z[REST_X], z[REST_Y], z[REST_SINCE], z[PARKED], z[AWAY] = x, y, now, 0.0, -1.0
    else:
        z[AWAY] = -1.0
        if z[PARKED] == 0 and now - z[REST_SINCE] >= limits[PARKED_S] - NEARLY:
            z[PARKED] = 1.0
            n = _say(said, n, PARKS, now - z[REST_SINCE])
    return n


@helper
def step_visit(z, corners, px, py, qx, qy, before, now, limits, wanted, cuts, said):  # type: ignore[no-untyped-def]
    """Follow a track from ``p`` to ``q``; its way is cut at the polygon's edges, so that what jumps over it was in it.

    Args:
        z: state, float64 ``[VISIT]``, written.
        corners: float64 ``[K, 2]`` of the polygon.
        px, py, qx, qy: where the track was, and is.
        before, now: seconds.
        limits: float64 ``[LIMITS]``.
        wanted: whether boxes of its class are looked at.
        cuts: float64 ``[K]``, for intermediate results.
        said: float64 ``[2 K + 8, 2]``, written: what happened, and seconds.

    Returns:
        how much is said.
    """
    far = (
        min(px, qx) > corners[:, 0].max() or max(px, qx) < corners[:, 0].min()
        or min(py, qy) > corners[:, 1].max() or max(py, qy) < corners[:, 1].min()
    )  # fmt: skip
    if far and z[RAW] == 0 and z[REAL] > 0:
        return 0
    count = 0 if far else cuts_of(corners, px, py, qx, qy, cuts)
    n = 0
    start = 0.0
    for k in range(count + 1):
        end = cuts[k] if k < count else 1.0
        mx, my = px + 0.5 * (start + end) * (qx - px), py + 0.5 * (start + end) * (qy - py)
        inside = not far and is_inside(corners, mx, my)
        if inside != (z[RAW] > 0):
            x, y = px + start * (qx - px), py + start * (qy - py)
            n = _turn(z, x, y, before + start * (now - before), limits, wanted, said, n)
        if z[REAL] == 0:
            away = limits[DEPTH] if inside else limits[REACH]
            if edge_distance(corners, mx, my) >= away or (k == count and edge_distance(corners, qx, qy) >= away):
                z[REACHED] = 1.0
        n = _settle(z, before + end * (now - before), limits, wanted, said, n)
        start = end
    if z[INSIDE] > 0 and z[SHOWN] > 0:
        n = _stay(z, qx, qy, now, limits, said, n)
    return n


@helper
def end_visit(z, seen, until, at_edge, limits, wanted, said):  # type: ignore[no-untyped-def]
    """End what is known of a track that will not be seen again; return how much is said.

    Args:
        seen: when it was last seen.
        until: it may be taken to have been where it was until then.
        at_edge: it left the frame.
    """
    if at_edge:
        z[FREE] = 1.0
    n = _settle(z, until, limits, wanted, said, 0)
    return _leave(z, seen, said, n) if z[INSIDE] > 0 else n
