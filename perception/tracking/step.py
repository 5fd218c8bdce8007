"""One frame of tracking, as a kernel: predict, match in stages, correct, begin, confirm, forget."""

from __future__ import annotations

import numpy as np
from numba.core import types

from perception.common.jit import F32_1D_IN, F32_2D_IN, I64_1D, helper, inline_helper, kernel
from perception.tracking.assignment import match
from perception.tracking.motion import COV, SPEED, SPEED_VAR, VALUE, VAR, correct_axis, predict_axis

F64_1D = types.Array(types.float64, 1, "C")
F64_2D = types.Array(types.float64, 2, "C")
F64_3D = types.Array(types.float64, 3, "C")
I64_2D = types.Array(types.int64, 2, "C")
I32_1D_IN = types.Array(types.int32, 1, "C", readonly=True)

# columns of `facts`, float64 [T, FACTS]
BORN, SEEN, SCORE, DT = 0, 1, 2, 3
FACTS = 4
# columns of `marks`, int64 [T, MARKS]
ID, HITS, CLASS, NEXT = 0, 1, 2, 3
MARKS = 4
PAST = 16  # observations kept of each track: time, centre x, centre y
PARAMETERS = (
    "high_score", "low_score", "start_score", "sure_score", "min_overlap", "low_overlap", "recover_overlap", "tentative_overlap",
    "direction_weight", "direction_s", "class_weight", "confirm_s", "patience_s", "memory_s",
    "jitter", "accel", "size_accel", "fade_s", "size_fade_s", "start_speed", "replay_s",
    "maha", "grow", "score_s", "vote_s", "twin", "confirm_hits", "lost_weight", "hiou",
    "low_recent_s", "size_of_low_noise",
)  # fmt: skip
(
    P_HIGH, P_LOW, P_START, P_SURE, P_MIN, P_LOWIOU, P_RECOVER, P_TENT,
    P_DIRW, P_DIRS, P_CLASSW, P_CONFIRM, P_PATIENCE, P_MEMORY,
    P_JITTER, P_ACCEL, P_SACCEL, P_FADE, P_SFADE, P_SPEED, P_REPLAY,
    P_MAHA, P_GROW, P_SCORES, P_VOTES, P_TWIN, P_HITS, P_LOSTW, P_HIOU, P_LOWRECENT, P_LOWNOISE,
) = range(len(PARAMETERS))  # fmt: skip


@inline_helper
def _scale(f):  # type: ignore[no-untyped-def]
    return np.sqrt(max(f[2, VALUE], 1.0) * max(f[3, VALUE], 1.0))


@helper
def _predict(f, dt, p):  # type: ignore[no-untyped-def]
    size = _scale(f)
    for a in range(4):
        if a < 2:
            predict_axis(f[a], dt, p[P_FADE], (p[P_ACCEL] * size) ** 2)
        else:
            predict_axis(f[a], dt, p[P_SFADE], (p[P_SACCEL] * size) ** 2)


@inline_helper
def _noise(f, a, p):  # type: ignore[no-untyped-def]
    side = max(f[2 + (a & 1), VALUE], 1.0)
    v = (p[P_JITTER] * side) ** 2
    return 0.5 * v if a < 2 else 2.0 * v


@helper
def _correct(f, z, p, factor):  # type: ignore[no-untyped-def]
    for a in range(4):
        correct_axis(f[a], z[a], factor * _noise(f, a, p))


@helper
def _overlap(ax0, ay0, ax1, ay1, bx0, by0, bx1, by1, hpower):  # type: ignore[no-untyped-def]
    w = min(ax1, bx1) - max(ax0, bx0)
    h = min(ay1, by1) - max(ay0, by0)
    if w <= 0 or h <= 0:
        return 0.0
    inter = w * h
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - inter
    if union <= 0:
        return 0.0
    iou = inter / union
    if hpower > 0:
        iou *= (h / (max(ay1, by1) - min(ay0, by0))) ** hpower
    return iou


@helper
def _observe(t, i, z, now, dt, boxes, scores, ids, filters, anchors, facts, marks, past, votes, p):  # type: ignore[no-untyped-def]
    """Give track ``t`` the detection ``i``."""
    gap = now - facts[t, SEEN]
    factor = 1.0 if scores[i] >= p[P_HIGH] else p[P_LOWNOISE]
    if gap > p[P_REPLAY] and gap > 1.5 * dt and marks[t, HITS] > 1:
        # observation-centred re-update: what was guessed meanwhile is replaced by a straight walk to where it is
        steps = min(max(int(round(gap / max(dt, 0.02))), 2), 32)
        f = filters[t]
        start = np.empty(4)
        for a in range(4):
            for k in range(5):
                f[a, k] = anchors[t, a, k]
            start[a] = anchors[t, a, VALUE]
        w = np.empty(4)
        for s in range(1, steps + 1):
            _predict(f, gap / steps, p)
            for a in range(4):
                w[a] = start[a] + (z[a] - start[a]) * s / steps
            _correct(f, w, p, factor)
    else:
        _correct(filters[t], z, p, factor)
    for a in range(4):
        for k in range(5):
            anchors[t, a, k] = filters[t, a, k]
    fade = np.exp(-gap / p[P_SCORES])
    facts[t, SCORE] = fade * facts[t, SCORE] + (1.0 - fade) * scores[i]
    fade = np.exp(-gap / p[P_VOTES])
    best = 0
    for c in range(votes.shape[1]):
        votes[t, c] *= fade
    votes[t, ids[i]] += scores[i]
    best = marks[t, CLASS]
    for c in range(votes.shape[1]):
        if votes[t, c] > votes[t, best]:
            best = c
    marks[t, CLASS] = best
    facts[t, SEEN] = now
    facts[t, DT] = gap
    marks[t, HITS] += 1
    k = marks[t, NEXT] % PAST
    past[t, k, 0] = now
    past[t, k, 1] = z[0]
    past[t, k, 2] = z[1]
    marks[t, NEXT] += 1


@helper
def _direction(t, cx, cy, now, past, marks, p):  # type: ignore[no-untyped-def]
    """Angle in 0..1 between where a track went lately and where the box would have it gone."""
    n = min(marks[t, NEXT], PAST)
    if n < 2:
        return 0.0
    last = (marks[t, NEXT] - 1) % PAST
    old = last
    for k in range(1, n):
        j = (marks[t, NEXT] - 1 - k) % PAST
        old = j
        if past[last, 0] if False else past[t, last, 0] - past[t, j, 0] >= p[P_DIRS]:
            break
    ux = past[t, last, 1] - past[t, old, 1]
    uy = past[t, last, 2] - past[t, old, 2]
    vx = cx - past[t, old, 1]
    vy = cy - past[t, old, 2]
    un = np.sqrt(ux * ux + uy * uy)
    vn = np.sqrt(vx * vx + vy * vy)
    if un < 1e-6 or vn < 1e-6:
        return 0.0
    c = (ux * vx + uy * vy) / (un * vn)
    return np.arccos(min(max(c, -1.0), 1.0)) / np.pi


@helper
def _costs(rows, columns, boxes, scores, ids, z, filters, anchors, facts, marks, past, now, p, least, recover, direction):  # type: ignore[no-untyped-def]
    """Cost in 0..2 of each pair, 9 where it is out of the question."""
    out = np.full((len(rows), len(columns)), 9.0)
    for r in range(len(rows)):
        t = rows[r]
        f = anchors[t] if recover else filters[t]
        lost = now - facts[t, SEEN] - facts[t, DT] * 0
        grow = 1.0 + (p[P_GROW] * min(lost, 2.0) if not recover else 0.0)
        hw = 0.5 * max(f[2, VALUE], 1.0) * grow
        hh = 0.5 * max(f[3, VALUE], 1.0) * grow
        x0, x1 = f[0, VALUE] - hw, f[0, VALUE] + hw
        y0, y1 = f[1, VALUE] - hh, f[1, VALUE] + hh
        for k in range(len(columns)):
            i = columns[k]
            gw = 0.5 * z[i, 2] * (grow - 1.0)
            gh = 0.5 * z[i, 3] * (grow - 1.0)
            o = _overlap(
                x0, y0, x1, y1, boxes[i, 0] - gw, boxes[i, 1] - gh, boxes[i, 2] + gw, boxes[i, 3] + gh, p[P_HIOU]
            )
            if o < least or o <= 0.0:
                continue
            cost = 1.0 - o
            if p[P_MAHA] > 0 and not recover:
                d = 0.0
                for a in range(4):
                    s = f[a, VAR] + _noise(f, a, p)
                    e = z[i, a] - f[a, VALUE]
                    d += e * e / s
                cost += p[P_MAHA] * min(d / 20.0, 1.0)
            if direction and p[P_DIRW] > 0:
                cost += p[P_DIRW] * scores[i] * _direction(t, z[i, 0], z[i, 1], now, past, marks, p)
            if marks[t, CLASS] != ids[i]:
                cost += p[P_CLASSW]
            cost += p[P_LOSTW] * min(lost, 2.0)
            out[r, k] = cost
    return out


@kernel(
    types.int64(
        F32_2D_IN, F32_1D_IN, I32_1D_IN, types.float64, types.float64, F64_1D, types.int64, types.int64,
        F64_3D, F64_3D, F64_2D, I64_2D, F64_3D, F64_2D, I64_1D, I64_1D, F64_2D, F64_1D, I64_1D,
    )
)  # fmt: skip
def step(  # type: ignore[no-untyped-def]
    boxes, scores, ids, now, dt, p, n, next_id, filters, anchors, facts, marks, past, votes, counts,
    out_ids, out_boxes, out_scores, out_classes,
):  # fmt: skip
    count = len(scores)
    z = np.empty((count, 4))
    for i in range(count):
        z[i, 0] = 0.5 * (boxes[i, 0] + boxes[i, 2])
        z[i, 1] = 0.5 * (boxes[i, 1] + boxes[i, 3])
        z[i, 2] = boxes[i, 2] - boxes[i, 0]
        z[i, 3] = boxes[i, 3] - boxes[i, 1]
    for t in range(n):
        _predict(filters[t], dt, p)
    of_box = np.full(count, -1, np.int64)
    taken = np.zeros(n, np.bool_)
    for stage in range(4):
        rows = np.empty(n, np.int64)
        m = 0
        for t in range(n):
            if taken[t]:
                continue
            confirmed = marks[t, ID] > 0
            if stage == 1:
                ok = confirmed and now - facts[t, SEEN] <= p[P_LOWRECENT] + dt * 1.01
            elif stage == 3:
                ok = not confirmed
            else:
                ok = confirmed
            if ok:
                rows[m] = t
                m += 1
        columns = np.empty(count, np.int64)
        c = 0
        for i in range(count):
            if of_box[i] >= 0:
                continue
            high = scores[i] >= p[P_HIGH]
            if stage == 1:
                ok = not high and scores[i] >= p[P_LOW]
            elif stage == 3:
                ok = scores[i] >= min(p[P_HIGH], p[P_START])
            else:
                ok = high
            if ok:
                columns[c] = i
                c += 1
        if m == 0 or c == 0:
            continue
        least = p[P_MIN]
        if stage == 1:
            least = p[P_LOWIOU]
        elif stage == 2:
            least = p[P_RECOVER]
            if least >= 1:
                continue
        elif stage == 3:
            least = p[P_TENT]
        rows, columns = rows[:m].copy(), columns[:c].copy()
        costs = _costs(
            rows, columns, boxes, scores, ids, z, filters, anchors, facts, marks, past, now, p, least, stage == 2, stage == 0
        )
        chosen = match(costs, 2.0)
        for r in range(m):
            if chosen[r] >= 0:
                i = columns[chosen[r]]
                t = rows[r]
                taken[t] = True
                of_box[i] = t
                _observe(t, i, z[i], now, dt, boxes, scores, ids, filters, anchors, facts, marks, past, votes, p)
    room = filters.shape[0]
    for i in range(count):
        if of_box[i] >= 0 or scores[i] < p[P_START] or n >= room or z[i, 2] <= 0 or z[i, 3] <= 0:
            continue
        twin = False
        for j in range(count):
            if of_box[j] >= 0 and j != i:
                o = _overlap(
                    boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3],
                    boxes[j, 0], boxes[j, 1], boxes[j, 2], boxes[j, 3], 0.0,
                )  # fmt: skip
                if o > p[P_TWIN]:
                    twin = True
                    break
        if twin:
            continue
        t = n
        n += 1
        size = np.sqrt(z[i, 2] * z[i, 3])
        for a in range(4):
            filters[t, a, VALUE] = z[i, a]
            filters[t, a, SPEED] = 0.0
            side = z[i, 2 + (a & 1)]
            v = (p[P_JITTER] * side) ** 2
            filters[t, a, VAR] = 0.5 * v if a < 2 else 2.0 * v
            filters[t, a, COV] = 0.0
            s = p[P_SPEED] if a < 2 else 0.3 * p[P_SPEED]
            filters[t, a, SPEED_VAR] = (s * size) ** 2
            for k in range(5):
                anchors[t, a, k] = filters[t, a, k]
        facts[t, BORN] = now
        facts[t, SEEN] = now
        facts[t, SCORE] = scores[i]
        facts[t, DT] = 0.0
        marks[t, ID] = 0
        marks[t, HITS] = 1
        marks[t, CLASS] = ids[i]
        marks[t, NEXT] = 1
        past[t, 0, 0] = now
        past[t, 0, 1] = z[i, 0]
        past[t, 0, 2] = z[i, 1]
        for c in range(votes.shape[1]):
            votes[t, c] = 0.0
        votes[t, ids[i]] = scores[i]
        of_box[i] = t
    for i in range(count):
        out_ids[i] = -1
        t = of_box[i]
        if t < 0:
            continue
        if marks[t, ID] == 0:
            age = now - facts[t, BORN]
            if (marks[t, HITS] >= p[P_HITS] and age >= p[P_CONFIRM] - 1e-9) or scores[i] >= p[P_SURE]:
                marks[t, ID] = next_id
                next_id += 1
        if marks[t, ID] > 0:
            out_ids[i] = marks[t, ID]
            f = filters[t]
            out_boxes[i, 0] = f[0, VALUE] - 0.5 * f[2, VALUE]
            out_boxes[i, 1] = f[1, VALUE] - 0.5 * f[3, VALUE]
            out_boxes[i, 2] = f[0, VALUE] + 0.5 * f[2, VALUE]
            out_boxes[i, 3] = f[1, VALUE] + 0.5 * f[3, VALUE]
            out_scores[i] = facts[t, SCORE]
            out_classes[i] = marks[t, CLASS]
    kept = 0
    for t in range(n):
        unseen = now - facts[t, SEEN]
        if unseen > (p[P_MEMORY] if marks[t, ID] > 0 else p[P_PATIENCE]) + 1e-9:
            continue
        if kept != t:
            filters[kept] = filters[t]
            anchors[kept] = anchors[t]
            facts[kept] = facts[t]
            marks[kept] = marks[t]
            past[kept] = past[t]
            votes[kept] = votes[t]
        kept += 1
    counts[0] = kept
    counts[1] = next_id
    return kept
