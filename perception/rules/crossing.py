"""Over a line and back: the stays of one track on the two sides of one line.

The way of a track is taken as straight between two frames, in time as in place. It is cut where it crosses the line
into stays, each on one side. A stay is believed if it lasts and gets away from the line; what lies between two that are
believed is one movement, whatever flickered meanwhile, and a crossing if it leads to the other side through the line.
"""

from __future__ import annotations

import numpy as np

from perception.common.jit import helper, inline_helper

SINCE, FREE, REACHED, REAL, HAD, GATE, THROUGH = range(7)
"""Columns of the state of a track at a line: when its stay began (seconds); whether it need not last, as one that began
at the edge of the frame; whether it got away from the line; whether it is believed; whether one before was; crossings
since that one, those ahead less those back; whether one of them was through the line and not just past its end."""
CROSSING = 7

UNSEEN = -1.0
"""In place of when a stay began: a rule that came when a track was already there has not looked at it yet."""

NEARLY = 1e-9


@inline_helper
def side(x0, y0, x1, y1, x, y):  # type: ignore[no-untyped-def]
    """Twice the area of a triangle: below 0 to the left of the way from the first point to the second, as seen."""
    return (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)


@helper
def distance(x0, y0, x1, y1, x, y):  # type: ignore[no-untyped-def]
    """Distance of a point from a segment."""
    dx, dy = x1 - x0, y1 - y0
    square = dx * dx + dy * dy
    along = ((x - x0) * dx + (y - y0) * dy) / square if square > 0 else 0.0
    along = min(max(along, 0.0), 1.0)
    return np.hypot(x - x0 - along * dx, y - y0 - along * dy)


@helper
def settle_crossing(s, now, hold):  # type: ignore[no-untyped-def]
    """Believe the stay of a track if it may be; return 1 for a crossing ahead, -1 for one back, 0 for none."""
    if s[REAL] > 0 or not s[REACHED] > 0 or not (s[FREE] > 0 or now - s[SINCE] >= hold - NEARLY):
        return 0
    ways = 0
    if s[HAD] > 0 and s[THROUGH] > 0:
        ways = 1 if s[GATE] > 0 else (-1 if s[GATE] < 0 else 0)
    s[REAL], s[HAD], s[GATE], s[THROUGH] = 1.0, 1.0, 0.0, 0.0
    return ways


@helper
def begin_crossing(s, now, free):  # type: ignore[no-untyped-def]
    """Begin with the first sight of a track."""
    s[:] = 0.0
    s[SINCE] = now
    s[FREE] = 1.0 if free else 0.0


@helper
def step_crossing(s, x0, y0, x1, y1, px, py, qx, qy, before, now, reach, hold):  # type: ignore[no-untyped-def]
    """Follow a track from ``p`` to ``q``.

    Args:
        s: state, float64 ``[CROSSING]``, written.
        x0, y0, x1, y1: the line.
        px, py, qx, qy: where the track was, and is.
        before, now: seconds.
        reach, hold: distance from the line, and seconds, of a stay that is believed.

    Returns:
        crossings, 1 ahead and -1 back, 0 for none: one that was settled on the way, then one that is settled now.
    """
    first = 0
    was, is_now = side(x0, y0, x1, y1, px, py), side(x0, y0, x1, y1, qx, qy)
    if (was >= 0) != (is_now >= 0):
        part = was / (was - is_now)
        length = np.hypot(x1 - x0, y1 - y0)
        x, y = px + part * (qx - px), py + part * (qy - py)
        along = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length
        # Who flickers at an end of the line goes through it and back past its end: that takes the crossing back.
        if -reach <= along <= length + reach:
            at = before + part * (now - before)
            first = settle_crossing(s, at, hold)
            s[GATE] += 1.0 if was >= 0 else -1.0
            if 0.0 <= along <= length:
                s[THROUGH] = 1.0
            s[SINCE], s[FREE], s[REACHED], s[REAL] = at, 0.0, 0.0, 0.0
    if s[REAL] == 0 and distance(x0, y0, x1, y1, qx, qy) >= reach:
        s[REACHED] = 1.0
    return first, settle_crossing(s, now, hold)
