"""One frame of tracking, as a kernel: predict, match in stages, correct, begin, confirm, forget."""

from __future__ import annotations

import numpy as np
from numba.core import types

from perception.common.jit import F32_1D_IN, F32_2D_IN, I64_1D, helper, inline_helper, kernel
from perception.tracking.assignment import F64_2D, match
from perception.tracking.association import LIMIT, costs_of, overlap
from perception.tracking.motion import SPEED, VALUE, VAR, begin, correct, predict, replay

F64_1D = types.Array(types.float64, 1, "C")
F64_3D = types.Array(types.float64, 3, "C")
I64_2D = types.Array(types.int64, 2, "C")
I32_1D_IN = types.Array(types.int32, 1, "C", readonly=True)

PARAMETERS = (
    *("high_score", "low_score", "start_score", "sure_score"),
    *("overlap", "low_overlap", "lost_overlap", "new_overlap"),
    *("confirm_s", "patience_s", "memory_s", "jitter"),
)
"""Fields of `perception.card.TrackingSettings`, in the order of the kernel's vector."""
HIGH, LOW, START, SURE, OVERLAP, LOW_OVERLAP, LOST_OVERLAP, NEW_OVERLAP, CONFIRM_S, PATIENCE_S, MEMORY_S, JITTER = (
    range(12)
)

# columns of `facts`, float64 [T, 3], and of `marks`, int64 [T, 4]
BORN, SEEN, SCORE = range(3)
ID, HITS, CLASS, POINTS = range(4)
TRAIL = 16
"""Points kept of each track's way, each its time, x and bottom y."""
TRAIL_EVERY_S = 0.1

REPLAY_S = 0.1
"""A track that was not seen for longer is moved to where it is found again by a straight walk."""
LOW_JITTER = 1.4
"""Boxes of low score are less exact: what they show is often covered in part."""
SCORE_S, VOTE_S = 0.3, 2.0
"""Time constants of the score and of the votes for a class along a track."""
TWIN = 0.7
"""A box that overlaps one of another class that has a track so much begins none: it is the same thing."""


@inline_helper
def _point(trail, marks, now, x, y):  # type: ignore[no-untyped-def]
    """Add a point to the way of a track: the last one moves along until it is `TRAIL_EVERY_S` from the one before."""
    count = marks[POINTS]
    if count >= 2 and now - trail[(count - 2) % TRAIL, 0] < TRAIL_EVERY_S:
        count -= 1
    else:
        marks[POINTS] = count + 1
    trail[count % TRAIL, 0] = now
    trail[count % TRAIL, 1] = x
    trail[count % TRAIL, 2] = y


@helper
def _observe(t, seen, score, class_id, now, dt, p, filters, anchors, facts, marks, trails, votes):  # type: ignore[no-untyped-def]
    """Give a box to a track."""
    f = filters[t]
    gap = now - facts[t, SEEN]
    jitter = p[JITTER] if score >= p[HIGH] else LOW_JITTER * p[JITTER]
    if gap > REPLAY_S and gap > 1.5 * dt and marks[t, HITS] > 1:
        replay(f, anchors[t], seen, gap, dt, jitter)
    else:
        correct(f, seen, jitter)
    anchors[t] = f
    fade = np.exp(-gap / SCORE_S)
    facts[t, SCORE] = fade * facts[t, SCORE] + (1.0 - fade) * score
    votes[t] *= np.exp(-gap / VOTE_S)
    votes[t, class_id] += score
    best = marks[t, CLASS]
    for c in range(votes.shape[1]):
        if votes[t, c] > votes[t, best]:
            best = c
    marks[t, CLASS] = best
    marks[t, HITS] += 1
    facts[t, SEEN] = now
    _point(trails[t], marks[t], now, f[0, VALUE], f[1, VALUE] + 0.5 * f[3, VALUE])


@helper
def _begin(t, seen, score, class_id, now, p, filters, anchors, facts, marks, trails, votes):  # type: ignore[no-untyped-def]
    begin(filters[t], seen, p[JITTER])
    anchors[t] = filters[t]
    facts[t, BORN] = now
    facts[t, SEEN] = now
    facts[t, SCORE] = score
    marks[t, ID] = 0
    marks[t, HITS] = 1
    marks[t, CLASS] = class_id
    marks[t, POINTS] = 0
    votes[t] = 0.0
    votes[t, class_id] = score
    _point(trails[t], marks[t], now, seen[0], seen[1] + 0.5 * seen[3])


@helper
def _is_twin(i, boxes, class_ids, track_of):  # type: ignore[no-untyped-def]
    """True for a box on one of another class that has a track."""
    for j in range(len(track_of)):
        if track_of[j] >= 0 and class_ids[j] != class_ids[i]:
            a, b = boxes[i], boxes[j]
            if overlap(a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]) > TWIN:
                return True
    return False


@kernel(
    types.UniTuple(types.int64, 2)(
        F32_2D_IN, F32_1D_IN, I32_1D_IN, types.float64, types.float64, F64_1D, types.int64, types.int64,
        F64_3D, F64_3D, F64_2D, I64_2D, F64_3D, F64_2D, I64_1D,
    )
)  # fmt: skip
def step(  # type: ignore[no-untyped-def]
    boxes, scores, class_ids, now, dt, p, count, next_id, filters, anchors, facts, marks, trails, votes, row_of
):
    """Track the boxes of one frame.

    Confirmed tracks come first: with boxes of high score, then with those of low score (Zhang et al., "ByteTrack", ECCV
    2022), then by where they were last seen (OC-SORT). What is left of the boxes goes to tracks that are not confirmed
    yet, or begins one.

    Args:
        boxes, scores, class_ids: float32 ``[N, 4]`` xyxy, float32 ``[N]``, int32 ``[N]``.
        now, dt: seconds, and since the last frame.
        p: `PARAMETERS`.
        count: tracks that there are, in the first rows of the arrays.
        next_id: identity of the next track that is confirmed.
        filters, anchors: float64 ``[T, 4, 5]``, now and when last seen, see `perception.tracking.motion`.
        facts, marks, trails, votes: by column as above; votes ``[T, C]`` for each class.
        row_of: int64 ``[N]``, written: the row of each box's track, if it is confirmed, else -1.

    Returns:
        the tracks that there are, those to be forgotten included (see `drop_lost`), and the next identity.
    """
    n = len(scores)
    seen = np.empty((n, 4))
    for i in range(n):
        for a in range(2):
            seen[i, a] = 0.5 * (boxes[i, a] + boxes[i, 2 + a])
            seen[i, 2 + a] = boxes[i, 2 + a] - boxes[i, a]
    unseen = np.empty(count)
    taken = np.zeros(count, np.bool_)
    for t in range(count):
        predict(filters[t], dt)
        unseen[t] = now - facts[t, SEEN]
    track_of = np.full(n, -1, np.int64)
    classes = marks[:, CLASS].copy()
    for stage in range(4):
        tracks = np.empty(count, np.int64)
        columns = np.empty(n, np.int64)
        rows = 0
        for t in range(count):
            if not taken[t] and (marks[t, ID] > 0) == (stage < 3):
                tracks[rows] = t
                rows += 1
        found = 0
        for i in range(n):
            score = scores[i]
            if stage == 1:
                wanted = p[LOW] <= score < p[HIGH]
            elif stage == 3:
                wanted = score >= min(p[HIGH], p[START])
            else:
                wanted = score >= p[HIGH]
            if track_of[i] < 0 and wanted:
                columns[found] = i
                found += 1
        if rows == 0 or found == 0:
            continue
        least = p[OVERLAP + stage]
        at = anchors if stage == 2 else filters
        costs = costs_of(tracks[:rows], columns[:found], boxes, class_ids, at, stage != 2, unseen, classes, least)
        column_of = match(costs, LIMIT)
        for r in range(rows):
            if column_of[r] >= 0:
                i, t = columns[column_of[r]], tracks[r]
                taken[t] = True
                track_of[i] = t
                _observe(t, seen[i], scores[i], class_ids[i], now, dt, p, filters, anchors, facts, marks, trails, votes)
    for i in range(n):
        good = scores[i] >= p[START] and seen[i, 2] > 0 and seen[i, 3] > 0 and np.isfinite(seen[i].sum())
        if track_of[i] < 0 and good and count < len(facts) and not _is_twin(i, boxes, class_ids, track_of):
            _begin(count, seen[i], scores[i], class_ids[i], now, p, filters, anchors, facts, marks, trails, votes)
            track_of[i] = count
            count += 1
    for i in range(n):
        t = track_of[i]
        row_of[i] = -1
        if t < 0:
            continue
        if marks[t, ID] == 0:
            lasting = marks[t, HITS] > 1 and now - facts[t, BORN] >= p[CONFIRM_S] - 1e-6
            if lasting or scores[i] >= p[SURE]:
                marks[t, ID] = next_id
                next_id += 1
        if marks[t, ID] > 0:
            row_of[i] = t
    return count, next_id


@helper
def _move(f, motion, scale):  # type: ignore[no-untyped-def]
    for k in (VALUE, SPEED):
        x, y = f[0, k], f[1, k]
        f[0, k] = motion[0, 0] * x + motion[0, 1] * y
        f[1, k] = motion[1, 0] * x + motion[1, 1] * y
        f[2, k] *= scale
        f[3, k] *= scale
    f[0, VALUE] += motion[0, 2]
    f[1, VALUE] += motion[1, 2]
    f[:, VAR:] *= scale * scale


@kernel(types.void(F64_2D, types.int64, F64_3D, F64_3D, F64_3D))
def move(motion, count, filters, anchors, trails):  # type: ignore[no-untyped-def]
    """Take all tracks along with the camera, by a motion of `perception.tracking.camera`."""
    scale = np.hypot(motion[0, 0], motion[1, 0])
    for t in range(count):
        _move(filters[t], motion, scale)
        _move(anchors[t], motion, scale)
        for k in range(TRAIL):
            x, y = trails[t, k, 1], trails[t, k, 2]
            trails[t, k, 1] = motion[0, 0] * x + motion[0, 1] * y + motion[0, 2]
            trails[t, k, 2] = motion[1, 0] * x + motion[1, 1] * y + motion[1, 2]


@kernel(types.int64(types.float64, F64_1D, types.int64, F64_3D, F64_3D, F64_2D, I64_2D, F64_3D, F64_2D))
def drop_lost(now, p, count, filters, anchors, facts, marks, trails, votes):  # type: ignore[no-untyped-def]
    """Drop tracks that were not seen for too long; return how many are left, in the first rows."""
    kept = 0
    for t in range(count):
        limit = p[MEMORY_S] if marks[t, ID] > 0 else p[PATIENCE_S]
        if now - facts[t, SEEN] > limit + 1e-6:
            continue
        if kept != t:
            filters[kept] = filters[t]
            anchors[kept] = anchors[t]
            facts[kept] = facts[t]
            marks[kept] = marks[t]
            trails[kept] = trails[t]
            votes[kept] = votes[t]
        kept += 1
    return kept
