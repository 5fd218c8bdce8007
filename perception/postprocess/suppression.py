"""Kernels of `perception.postprocess.detection`: find candidates, order by score, group by class, suppress.

Boxes are sorted by score once (radix sort), then split by class without disturbing that order. Within a class the
inner loop runs over separate coordinate arrays without branches, so that it compiles to vector instructions.

Loops over part of an array count in unsigned integers: for signed ones Numba handles negative indices, which keeps
LLVM from vectorising.
"""

from __future__ import annotations

import numpy as np
from numba.core import types

from perception.common.jit import F32_1D, F32_1D_IN, F32_2D, F32_2D_IN, I32_1D, I64_1D, helper, kernel

_F = types.float32


@helper
def _order(scores):  # type: ignore[no-untyped-def]
    """Indices of ``scores`` from highest to lowest, ties by index: least significant digit radix sort."""
    n = len(scores)
    bits = scores.view(np.uint32)
    keys = np.empty(n, np.uint32)
    other_keys = np.empty(n, np.uint32)
    order = np.empty(n, np.int32)
    other = np.empty(n, np.int32)
    digits = np.zeros((4, 256), np.int32)
    for i in range(n):
        b = bits[i]
        if b == np.uint32(0x80000000):  # -0 is equal to 0
            b = np.uint32(0)
        # Floats order like their bits once negative ones are inverted; inverted again for descending order.
        key = b if b >> np.uint32(31) else np.uint32(~b & np.uint32(0x7FFFFFFF))
        keys[i] = key
        order[i] = i
        for d in range(4):
            digits[d, (key >> np.uint32(8 * d)) & np.uint32(255)] += 1
    for d in range(4):
        count = digits[d]
        total = 0
        single = False
        for j in range(256):
            single |= count[j] == n
            start = total
            total += count[j]
            count[j] = start
        if single:
            continue
        for i in range(n):
            key = keys[i]
            digit = (key >> np.uint32(8 * d)) & np.uint32(255)
            at = np.uint32(count[digit])
            count[digit] += 1
            other_keys[at] = key
            other[at] = order[i]
        keys, other_keys = other_keys, keys
        order, other = other, order
    return order


@helper
def _groups(ids, order, most):  # type: ignore[no-untyped-def]
    """Positions in ``order`` grouped by class id, each group ascending; and where the groups start.

    No groups if the ids are too far apart to count them in a table of ``most`` entries.
    """
    n = len(order)
    low = ids[0]
    high = ids[0]
    for i in range(n):
        low = min(low, ids[i])
        high = max(high, ids[i])
    size = high - low + 1
    if size > most:
        return np.empty(0, np.int32), np.zeros(1, np.int64)
    starts = np.zeros(size + 1, np.int64)
    for i in range(n):
        starts[np.uint64(ids[i] - low + 1)] += 1
    fill = np.empty(size, np.int64)
    for c in range(size):
        fill[c] = starts[c]
        starts[c + 1] += starts[c]
    positions = np.empty(n, np.int32)
    for i in range(n):
        group = np.uint64(ids[order[i]] - low)
        positions[fill[group]] = i
        fill[group] += 1
    return positions, starts


@helper
def _survivors(boxes, order, positions, starts, threshold, limit):  # type: ignore[no-untyped-def]
    """Indices of the first ``limit`` boxes that greedy suppression within the groups leaves, best first."""
    n = len(order)
    x1 = np.empty(n, np.float32)
    y1 = np.empty(n, np.float32)
    x2 = np.empty(n, np.float32)
    y2 = np.empty(n, np.float32)
    area = np.empty(n, np.float32)
    for i in range(n):
        k = order[positions[i]]
        x1[i], y1[i], x2[i], y2[i] = boxes[k, 0], boxes[k, 1], boxes[k, 2], boxes[k, 3]
        area[i] = (x2[i] - x1[i]) * (y2[i] - y1[i])
    gone = np.zeros(n, np.uint8)
    keep = np.zeros(n, np.uint8)  # by rank
    zero = np.float32(0)
    for c in range(len(starts) - 1):
        stop = np.uint64(starts[c + 1])
        kept = 0
        for p in range(np.uint64(starts[c]), stop):
            if gone[p]:
                continue
            keep[positions[p]] = 1
            kept += 1
            if kept == limit:
                break
            ax1, ay1, ax2, ay2, a = x1[p], y1[p], x2[p], y2[p], area[p]
            for j in range(p + np.uint64(1), stop):
                w = min(ax2, x2[j]) - max(ax1, x1[j])
                h = min(ay2, y2[j]) - max(ay1, y1[j])
                w = w if w > zero else zero
                h = h if h > zero else zero
                inter = w * h
                gone[j] |= inter / (a + area[j] - inter) > threshold
    picked = np.empty(n, np.int64)
    m = 0
    for i in range(n):
        if keep[i] and m < limit:
            picked[m] = order[i]
            m += 1
    return picked[:m]


@kernel(I64_1D(F32_2D_IN, F32_1D_IN, I64_1D, types.float32, types.int64))
def nms(boxes, scores, ids, threshold, limit):  # type: ignore[no-untyped-def]
    """Greedy suppression: int64 indices of the first ``limit`` survivors, best first.

    ``[-1]`` if the ids are too far apart; the caller then numbers them densely.
    """
    n = len(scores)
    if n == 0:
        return np.empty(0, np.int64)
    order = _order(scores)
    positions, starts = _groups(ids, order, 4 * n + 1024)
    if len(positions) == 0:
        return np.full(1, -1, np.int64)
    return _survivors(boxes, order, positions, starts, threshold, limit)


@helper
def _iou(boxes, i, j):  # type: ignore[no-untyped-def]
    w = min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0])
    h = min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1])
    if not (w > 0 and h > 0):
        return np.float32(0)
    inter = w * h
    a = (boxes[i, 2] - boxes[i, 0]) * (boxes[i, 3] - boxes[i, 1])
    b = (boxes[j, 2] - boxes[j, 0]) * (boxes[j, 3] - boxes[j, 1])
    return inter / (a + b - inter)


@kernel(I64_1D(F32_2D_IN, F32_1D, F32_1D, I64_1D, types.float32, types.boolean, types.float32, types.int64))
def soft_nms(boxes, scores, floors, ids, threshold, gaussian, sigma, limit):  # type: ignore[no-untyped-def]
    """Soft-NMS; lowers ``scores`` in place and returns int64 indices of the first ``limit`` that stay, best first.

    In each class the candidate with the best score is taken, the others are lowered by their overlap with it, and so
    on; one that falls below its floor is out. The ids must be dense.
    """
    n = len(scores)
    if n == 0:
        return np.empty(0, np.int64)
    order = np.empty(n, np.int32)
    for i in range(n):
        order[i] = i
    group, starts = _groups(ids, order, 4 * n + 1024)
    keep = np.zeros(n, np.uint8)
    for c in range(len(starts) - 1):
        taken = starts[c]
        stop = starts[c + 1]
        most = taken + limit
        while taken < min(stop, most):
            best = taken
            for i in range(taken + 1, stop):
                g = group[i]
                b = group[best]
                if scores[g] > scores[b] or (scores[g] == scores[b] and g < b):
                    best = i
            b = group[best]
            group[best] = group[taken]
            group[taken] = b
            keep[b] = 1
            taken += 1
            i = taken
            while i < stop:
                k = group[i]
                overlap = _iou(boxes, b, k)
                if gaussian:
                    if overlap > 0:
                        scores[k] *= np.exp(-(overlap * overlap) / sigma)
                elif overlap > threshold:
                    scores[k] *= np.float32(1) - overlap
                if scores[k] < floors[k]:
                    stop -= 1
                    group[i] = group[stop]
                else:
                    i += 1
    order = _order(scores)
    picked = np.empty(n, np.int64)
    m = 0
    for i in range(n):
        if keep[order[i]] and m < limit:
            picked[m] = order[i]
            m += 1
    return picked[:m]


@helper
def _position(edges, value):  # type: ignore[no-untyped-def]
    """Number of descending ``edges`` that are greater."""
    low = 0
    high = len(edges)
    while low < high:
        middle = (low + high) // 2
        if edges[middle] > value:
            low = middle + 1
        else:
            high = middle
    return low


@helper
def _near(edges, left, right, iou):  # type: ignore[no-untyped-def]
    """Range of descending left ``edges`` that boxes with an IoU of at least ``iou`` with one can have.

    Their common part is at least ``iou`` times as wide as either. A thousandth more is let through, for rounding.
    """
    if iou <= 0:
        return np.uint64(0), np.uint64(len(edges))
    width = right - left
    room = np.float32(0.001) * (width + right)
    first = _position(edges, left + width * (1 - iou) + room)
    return np.uint64(first), np.uint64(_position(edges, left - width * (1 / iou - iou) - room))


@kernel(F32_2D(F32_2D_IN, F32_1D_IN, types.Array(types.int32, 1, "C", readonly=True), I64_1D, _F, _F))
def vote(boxes, scores, ids, picked, threshold, share):  # type: ignore[no-untyped-def]
    """float32 ``[M, 4]``: of each picked box, the mean of those of its class that overlap it enough, itself included.

    Weights are the cubes of the scores; those with less than ``share`` of the picked box's score have no vote.
    """
    n = len(scores)
    voted = np.empty((len(picked), 4), np.float32)
    if len(picked) == 0:
        return voted
    # By the left edge, highest first, so that only those near a picked box need a look.
    edge = np.empty(n, np.float32)
    for i in range(n):
        edge[i] = boxes[i, 0]
    order = _order(edge)
    x1 = np.empty(n, np.float32)
    y1 = np.empty(n, np.float32)
    x2 = np.empty(n, np.float32)
    y2 = np.empty(n, np.float32)
    score = np.empty(n, np.float32)
    own = np.empty(n, np.int32)
    for i in range(n):
        k = order[i]
        x1[i], y1[i], x2[i], y2[i] = boxes[k, 0], boxes[k, 1], boxes[k, 2], boxes[k, 3]
        score[i], own[i] = scores[k], ids[k]
    has_vote = np.empty(n, np.uint8)
    zero = np.float32(0)
    for m in range(len(picked)):
        k = picked[m]
        ax1, ay1, ax2, ay2 = boxes[k, 0], boxes[k, 1], boxes[k, 2], boxes[k, 3]
        a = (ax2 - ax1) * (ay2 - ay1)
        floor = share * scores[k]
        start, stop = _near(x1, ax1, ax2, threshold)
        for i in range(start, stop):  # without branches, so that it compiles to vector instructions
            w = min(ax2, x2[i]) - max(ax1, x1[i])
            h = min(ay2, y2[i]) - max(ay1, y1[i])
            w = w if w > zero else zero
            h = h if h > zero else zero
            inter = w * h
            overlaps = inter / (a + (x2[i] - x1[i]) * (y2[i] - y1[i]) - inter) >= threshold
            has_vote[i] = overlaps & (score[i] >= floor) & (own[i] == ids[k])
        total = left = top = right = bottom = 0.0
        for i in range(start, stop):
            if has_vote[i]:
                weight = np.float64(score[i]) ** 3
                total += weight
                left += weight * x1[i]
                top += weight * y1[i]
                right += weight * x2[i]
                bottom += weight * y2[i]
        if total > 0:
            voted[m, 0], voted[m, 1], voted[m, 2], voted[m, 3] = (
                left / total,
                top / total,
                right / total,
                bottom / total,
            )
        else:
            voted[m, 0], voted[m, 1], voted[m, 2], voted[m, 3] = boxes[k, 0], boxes[k, 1], boxes[k, 2], boxes[k, 3]
    return voted


@kernel(types.Tuple((F32_2D, F32_1D, I32_1D))(F32_2D_IN, F32_2D_IN, F32_1D_IN, F32_1D_IN, types.int64))
def candidates(boxes, scores, thresholds, placement, most):  # type: ignore[no-untyped-def]
    """Boxes in frame pixels, scores and class ids of the pairs of box and class worth a look, in order of the boxes.

    Those are the pairs whose score reaches the class's threshold and whose box is finite and has area in the frame;
    of them the ``most`` with the best scores, ties by index.

    ``placement`` is what `perception.postprocess.detection.placement` gives.
    """
    left, top, sx, sy = placement[0], placement[1], placement[2], placement[3]
    width, height = placement[4], placement[5]
    rows, classes = scores.shape
    some = np.empty(rows, np.int32)
    n = 0
    found = 0
    for k in range(rows):
        count = 0
        for c in range(classes):  # no early exit, so that it compiles to vector instructions
            count += scores[k, c] >= thresholds[c]
        if count:
            some[n] = k
            n += 1
            found += count
    candidate = np.empty((found, 4), np.float32)
    score = np.empty(found, np.float32)
    class_id = np.empty(found, np.int32)
    zero = np.float32(0)
    m = 0
    for i in range(n):
        k = some[i]
        x1 = (boxes[k, 0] - left) * sx
        y1 = (boxes[k, 1] - top) * sy
        x2 = (boxes[k, 2] - left) * sx
        y2 = (boxes[k, 3] - top) * sy
        total = x1 + y1 + x2 + y2
        if total - total != 0:  # a coordinate is NaN or infinite
            continue
        x1, x2 = min(max(x1, zero), width), min(max(x2, zero), width)
        y1, y2 = min(max(y1, zero), height), min(max(y2, zero), height)
        if not (x2 > x1 and y2 > y1):
            continue
        for c in range(classes):
            if scores[k, c] >= thresholds[c]:
                candidate[m, 0], candidate[m, 1], candidate[m, 2], candidate[m, 3] = x1, y1, x2, y2
                score[m] = scores[k, c]
                class_id[m] = c
                m += 1
    if m > most:
        best = np.sort(_order(score[:m])[:most])
        return candidate[best], score[best], class_id[best]
    return candidate[:m], score[:m], class_id[:m]


@kernel(
    types.Tuple((F32_2D, F32_1D, I32_1D))(
        F32_2D_IN, F32_2D_IN, F32_1D_IN, F32_1D_IN, F32_1D_IN, types.boolean, _F, types.int64, _F, _F, types.int64
    )
)
def detect(  # type: ignore[no-untyped-def]
    boxes, scores, thresholds, floors, placement, class_agnostic, threshold, limit, vote_iou, vote_share, most
):
    """Boxes, scores and class ids that greedy suppression keeps, best first: one call from outputs to detections.

    ``floors`` say which candidates suppress others, ``thresholds``, no lower, which of those that stay are wanted.
    With a ``vote_iou`` of 0 or more the boxes are voted on, by weaker ones as well, down to ``vote_share`` of a score.
    """
    voting = vote_iou >= 0
    least = floors * vote_share if voting else floors.copy()
    candidate, score, class_id = candidates(boxes, scores, least, placement, most)
    strong = np.empty(len(score), np.int64)
    m = 0
    for i in range(len(score)):
        if score[i] >= floors[class_id[i]]:
            strong[m] = i
            m += 1
    strong = strong[:m]
    if m == 0:
        return np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int32)
    strong_boxes, strong_scores, group = candidate[strong], score[strong], np.zeros(m, np.int64)
    if not class_agnostic:
        for i in range(m):
            group[i] = class_id[strong[i]]
    order = _order(strong_scores)
    positions, starts = _groups(group, order, scores.shape[1])
    all_wanted = np.array_equal(floors, thresholds)
    kept = strong[_survivors(strong_boxes, order, positions, starts, threshold, limit if all_wanted else m)]
    picked = np.empty(len(kept), np.int64)
    m = 0
    for k in kept:
        if m < limit and score[k] >= thresholds[class_id[k]]:
            picked[m] = k
            m += 1
    picked = picked[:m]
    found = vote(candidate, score, class_id, picked, vote_iou, vote_share) if voting else candidate[picked]
    return found, score[picked], class_id[picked]
