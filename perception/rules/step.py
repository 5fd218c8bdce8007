"""The hot part of rules: all tracks of a frame at all lines and zones, in one kernel.

Places are in units of the frame's shorter side, so that a distance is the same in both directions and at any
resolution.
"""

from __future__ import annotations

import numpy as np
from numba.core import types

from perception.common.jit import I64_1D, helper, kernel
from perception.rules import visit
from perception.rules.crossing import FREE as CROSSING_FREE
from perception.rules.crossing import SINCE as CROSSING_SINCE
from perception.rules.crossing import begin_crossing, distance, settle_crossing, step_crossing
from perception.rules.visit import LIMITS, begin_visit, end_visit, step_visit

F64_1D = types.Array(types.float64, 1, "C")
F64_2D = types.Array(types.float64, 2, "C")
F64_3D = types.Array(types.float64, 3, "C")
BOOL_2D = types.Array(types.boolean, 2, "C")
I64_2D = types.Array(types.int64, 2, "C")

CROSSED, ENTERED, LEFT, LOITERING, PARKED, MOVED = range(6)
KIND, RULE, ID, CLASS, SCORE, VALUE, BOX = range(7)
"""Columns of what happened: one of the kinds above, number of the rule among the lines or among the zones, track, class
and score; the direction of a crossing, 1 or -1, else seconds; then the box, xyxy."""
HAPPENING = BOX + 4

ANCHOR_X, ANCHOR_Y, HOLD, DISTANCE, POINTS = range(5)
"""Columns of a line; its ends x, y, x, y are the last ones."""
LINE = POINTS + 4
DEPTH, LOITERING_S, PARKED_S, FIRST, LAST = range(4, 9)
"""Columns of a zone after the first four: half its thickness; seconds, infinite for never; its corners among all."""
ZONE = LAST + 1

TRACK, OF_CLASS, TIMES = range(3)
"""Whole numbers of a track: identity, class, and how often it was seen."""
SEEN, SCORED, AT_EDGE, PLACE, SPEED = 0, 1, 2, 3, 7
"""The rest: when it was last seen, its score, whether its box then touched the edge of the frame; centre and sides of
the box; how the centre moves in a second."""
FACTS = SPEED + 2

BOX_PART = 0.1
"""A box must get away from a line by this part of its shorter side: its edges tremble in proportion."""
REST_PART = 0.25
"""A box that stays within this part of its shorter side stands still."""
EDGE = 0.01
"""A box so near to the edge of the frame is cut by it: how far it goes on beyond cannot be seen."""
SPEED_S = 0.15
"""Time constant with which the speed of a box is averaged."""
SWAP_NEAR, SWAP_FAR, SWAP_S = 0.5, 0.6, 1.0
"""Two tracks have changed identities if each is where the other may be, within this part of their sizes, and both are
so much farther from where they may be themselves; they must have been seen within so many seconds."""


@helper
def _tell(found, n, kind, rule, value, marks, facts):  # type: ignore[no-untyped-def]
    """Add what happened to a track; return all that did, in a larger array if need be."""
    if n == len(found):
        larger = np.empty((2 * n, HAPPENING))
        larger[:n] = found
        found = larger
    row = found[n]
    row[KIND], row[RULE], row[VALUE] = kind, rule, value
    row[ID], row[CLASS], row[SCORE] = marks[TRACK], marks[OF_CLASS], facts[SCORED]
    for a in range(2):
        row[BOX + a] = facts[PLACE + a] - 0.5 * facts[PLACE + 2 + a]
        row[BOX + 2 + a] = facts[PLACE + a] + 0.5 * facts[PLACE + 2 + a]
    return found


@helper
def _anchor(rule, facts):  # type: ignore[no-untyped-def]
    x = facts[PLACE] + (rule[ANCHOR_X] - 0.5) * facts[PLACE + 2]
    y = facts[PLACE + 1] + (rule[ANCHOR_Y] - 0.5) * facts[PLACE + 3]
    return x, y


@helper
def _reach(rule, place, at_edge):  # type: ignore[no-untyped-def]
    """How far from a line, or an edge, the anchor of a box must get to be believed beyond it."""
    return rule[DISTANCE] if at_edge else max(rule[DISTANCE], BOX_PART * min(place[2], place[3]))


@helper
def _limits(limits, zone, place, at_edge):  # type: ignore[no-untyped-def]
    reach = _reach(zone, place, at_edge)
    limits[visit.HOLD], limits[visit.REACH], limits[visit.DEPTH] = zone[HOLD], reach, min(reach, zone[DEPTH])
    limits[visit.LOITERING_S], limits[visit.PARKED_S] = zone[LOITERING_S], zone[PARKED_S]
    limits[visit.REST] = max(zone[DISTANCE], REST_PART * min(place[2], place[3]))


@helper
def _off(facts, place, time):  # type: ignore[no-untyped-def]
    """How far a box is from where a track was or may have gone; and half the difference of their sides."""
    gone = time - facts[SEEN]
    x, y = facts[PLACE], facts[PLACE + 1]
    off = distance(x, y, x + gone * facts[SPEED], y + gone * facts[SPEED + 1], place[0], place[1])
    for k in (2, 3):
        off += 0.5 * abs(place[k] - facts[PLACE + k])
    return off


@helper
def _undo_swaps(rows, places, now, marks, facts):  # type: ignore[no-untyped-def]
    """Where two tracks have changed identities, let what is known of them change with these."""
    for i in range(len(rows)):
        for j in range(i + 1, len(rows)):
            s, t = rows[i], rows[j]
            if s < 0 or t < 0 or marks[s, TIMES] < 2 or marks[t, TIMES] < 2:
                continue
            if now - facts[s, SEEN] > SWAP_S or now - facts[t, SEEN] > SWAP_S:
                continue
            size = 0.0
            for place in (places[i], places[j]):
                size += np.sqrt(max(place[2] * place[3], 0.0))
            swapped = _off(facts[s], places[j], now) + _off(facts[t], places[i], now)
            if swapped > SWAP_NEAR * size:
                continue
            if _off(facts[s], places[i], now) + _off(facts[t], places[j], now) > swapped + SWAP_FAR * size:
                rows[i], rows[j] = t, s
                marks[s, TRACK], marks[t, TRACK] = marks[t, TRACK], marks[s, TRACK]


@helper
def _observe(marks, facts, place, class_id, score, now, at_edge):  # type: ignore[no-untyped-def]
    """Note where a track is."""
    gone = now - facts[SEEN]
    if marks[TIMES] > 0 and gone > 0:
        new = 1.0 if marks[TIMES] == 1 else 1.0 - np.exp(-gone / SPEED_S)
        for k in range(2):
            facts[SPEED + k] += new * ((place[k] - facts[PLACE + k]) / gone - facts[SPEED + k])
    elif marks[TIMES] == 0:
        facts[SPEED : SPEED + 2] = 0.0
    facts[PLACE : PLACE + 4] = place
    facts[SEEN], facts[SCORED], facts[AT_EDGE] = now, score, 1.0 if at_edge else 0.0
    marks[OF_CLASS] = class_id
    marks[TIMES] += 1


@kernel(
    types.Tuple((types.int64, F64_2D))(
        F64_2D, I64_1D, I64_1D, F64_1D, types.float64, types.float64, types.float64, types.float64, types.float64,
        F64_2D, F64_2D, F64_2D, BOOL_2D, types.int64, I64_2D, F64_2D, F64_3D, F64_3D,
    )
)  # fmt: skip
def step(  # type: ignore[no-untyped-def]
    boxes,
    ids,
    class_ids,
    scores,
    now,
    dt,
    memory,
    width,
    height,
    lines,
    zones,
    corners,
    wanted,
    count,
    marks,
    facts,
    crossings,
    visits,
):
    """Take the tracked boxes of the next frame.

    Args:
        boxes: float64 ``[N, 4]`` xyxy, in units of the frame's shorter side.
        ids, class_ids, scores: int64 ``[N]``, int64 ``[N]``, float64 ``[N]``.
        now, dt: seconds, and since the last frame.
        memory: a track that was not seen for more seconds is forgotten.
        width, height: of the frame, in the same unit.
        lines, zones: float64 ``[L, LINE]``, ``[Z, ZONE]``.
        corners: float64 ``[K, 2]`` of all polygons, one after the other.
        wanted: bool ``[Z, C]``: classes of boxes that a zone looks at.
        count: tracks that there are, in the first rows of what follows.
        marks, facts: int64 ``[T, 3]``, float64 ``[T, FACTS]``, with room for N more.
        crossings, visits: float64 ``[T, L, 7]``, ``[T, Z, 16]``: see `perception.rules.crossing` and ``visit``. Where a
            stay began ``UNSEEN``, the rule looks at a track for the first time.

    Returns:
        tracks that there are now, and what happened, float64 ``[M, HAPPENING]``.
    """
    n_boxes = len(ids)
    found = np.empty((16, HAPPENING))
    n = 0
    rows = np.full(n_boxes, -1, np.int64)
    places = np.empty((n_boxes, 4))
    cuts = np.empty(len(corners) + 1)
    said = np.empty((2 * len(corners) + 8, 2))
    limits = np.empty(LIMITS)
    for i in range(n_boxes):
        for t in range(count):
            if marks[t, TRACK] == ids[i]:
                rows[i] = t
                break
        for a in range(2):
            places[i, a] = 0.5 * (boxes[i, a] + boxes[i, 2 + a])
            places[i, 2 + a] = boxes[i, 2 + a] - boxes[i, a]
    _undo_swaps(rows, places, now, marks, facts)
    for i in range(n_boxes):
        b = boxes[i]
        at_edge = b[0] <= EDGE or b[1] <= EDGE or b[2] >= width - EDGE or b[3] >= height - EDGE
        t = rows[i]
        new = t < 0
        if new:
            if count == len(marks):
                continue
            t = count
            count += 1
            marks[t, TRACK], marks[t, TIMES] = ids[i], 0
        before = facts[t, SEEN]
        old = facts[t].copy()
        _observe(marks[t], facts[t], places[i], class_ids[i], scores[i], now, at_edge)
        for r in range(len(lines)):
            line = lines[r]
            qx, qy = _anchor(line, facts[t])
            s = crossings[t, r]
            px, py = qx, qy
            since = before
            if new or s[CROSSING_SINCE] < 0:
                since = now - dt
                begin_crossing(s, since, at_edge)
            else:
                px, py = _anchor(line, old)
            first, second = step_crossing(
                s, line[POINTS], line[POINTS + 1], line[POINTS + 2], line[POINTS + 3], px, py, qx, qy, since, now,
                _reach(line, places[i], at_edge), line[HOLD],
            )  # fmt: skip
            for way in (first, second):
                if way != 0:
                    found = _tell(found, n, CROSSED, r, way, marks[t], facts[t])
                    n += 1
        for r in range(len(zones)):
            zone = zones[r]
            shape = corners[int(zone[FIRST]) : int(zone[LAST])]
            qx, qy = _anchor(zone, facts[t])
            z = visits[t, r]
            px, py = qx, qy
            since = before
            if new or z[visit.SINCE] < 0:
                since = now - dt
                begin_visit(z, shape, qx, qy, since, at_edge)
            else:
                px, py = _anchor(zone, old)
            _limits(limits, zone, places[i], at_edge)
            much = step_visit(z, shape, px, py, qx, qy, since, now, limits, wanted[r, class_ids[i]], cuts, said)
            for k in range(much):
                found = _tell(found, n, int(said[k, 0]), r, said[k, 1], marks[t], facts[t])
                n += 1
    kept = 0
    for t in range(count):
        if now - facts[t, SEEN] > memory:
            left_frame = facts[t, AT_EDGE] > 0
            until = facts[t, SEEN] + dt
            for r in range(len(lines)):
                if left_frame:
                    crossings[t, r, CROSSING_FREE] = 1.0
                way = settle_crossing(crossings[t, r], until, lines[r, HOLD])
                if way != 0:
                    found = _tell(found, n, CROSSED, r, way, marks[t], facts[t])
                    n += 1
            for r in range(len(zones)):
                _limits(limits, zones[r], facts[t, PLACE : PLACE + 4], left_frame)
                want = wanted[r, marks[t, OF_CLASS]]
                much = end_visit(visits[t, r], facts[t, SEEN], until, left_frame, limits, want, said)
                for k in range(much):
                    found = _tell(found, n, int(said[k, 0]), r, said[k, 1], marks[t], facts[t])
                    n += 1
            continue
        if kept != t:
            marks[kept] = marks[t]
            facts[kept] = facts[t]
            crossings[kept] = crossings[t]
            visits[kept] = visits[t]
        kept += 1
    return kept, found[:n]
