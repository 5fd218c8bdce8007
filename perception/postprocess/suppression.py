"""Kernels of `perception.postprocess.detection`: order by score, group by class, suppress.

Boxes are sorted by score once (radix sort), then split by class without disturbing that order. Within a class the
inner loop runs over separate coordinate arrays without branches, so that it compiles to vector instructions.
"""

from __future__ import annotations

import numpy as np
from numba.core import types

from perception.jit import F32_1D, F32_2D, F32_2D_IN, I32_1D, I64_1D, helper, kernel

METHODS = {"nms": 0, "soft-linear": 1, "soft-gaussian": 2}


@helper
def _order(scores, n):  # type: ignore[no-untyped-def]
    """Indices of ``scores[:n]`` from highest to lowest, ties by index: least significant digit radix sort."""
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
            j = (key >> np.uint32(8 * d)) & np.uint32(255)
            at = count[j]
            count[j] = at + 1
            other_keys[at] = key
            other[at] = order[i]
        keys, other_keys = other_keys, keys
        order, other = other, order
    return order


@helper
def _groups(ids, order):  # type: ignore[no-untyped-def]
    """Positions in ``order`` grouped by class id, each group in order; and where the groups start."""
    n = len(order)
    low = ids[0]
    high = ids[0]
    for i in range(n):
        low = min(low, ids[i])
        high = max(high, ids[i])
    dense = np.empty(n, np.int64)
    if high - low < 4 * n + 1024:
        size = high - low + 1
        for i in range(n):
            dense[i] = ids[order[i]] - low
    else:  # ids far apart: number them
        values = np.unique(ids)
        size = len(values)
        for i in range(n):
            dense[i] = np.searchsorted(values, ids[order[i]])
    starts = np.zeros(size + 1, np.int64)
    for i in range(n):
        starts[dense[i] + 1] += 1
    for c in range(size):
        starts[c + 1] += starts[c]
    fill = starts[:-1].copy()
    ranks = np.empty(n, np.int32)
    for i in range(n):
        c = dense[i]
        ranks[fill[c]] = i
        fill[c] += 1
    return ranks, starts


@helper
def _suppress(boxes, order, ranks, threshold, limit, keep):  # type: ignore[no-untyped-def]
    """Greedy suppression of one class; sets ``keep[rank]`` of the first ``limit`` survivors."""
    n = len(ranks)
    x1 = np.empty(n, np.float32)
    y1 = np.empty(n, np.float32)
    x2 = np.empty(n, np.float32)
    y2 = np.empty(n, np.float32)
    area = np.empty(n, np.float32)
    gone = np.zeros(n, np.int32)
    for i in range(n):
        k = order[ranks[i]]
        x1[i], y1[i], x2[i], y2[i] = boxes[k, 0], boxes[k, 1], boxes[k, 2], boxes[k, 3]
        area[i] = (x2[i] - x1[i]) * (y2[i] - y1[i])
    kept = 0
    zero = np.float32(0)
    for i in range(n):
        if gone[i]:
            continue
        keep[ranks[i]] = True
        kept += 1
        if kept == limit:
            return
        ax1, ay1, ax2, ay2, a = x1[i], y1[i], x2[i], y2[i], area[i]
        for j in range(i + 1, n):
            w = min(ax2, x2[j]) - max(ax1, x1[j])
            h = min(ay2, y2[j]) - max(ay1, y1[j])
            w = w if w > zero else zero
            h = h if h > zero else zero
            inter = w * h
            gone[j] |= inter / (a + area[j] - inter) > threshold


@helper
def _keep_best(boxes, ids, order, threshold, limit):  # type: ignore[no-untyped-def]
    """Indices of the boxes that survive, best first, at most ``limit``."""
    n = len(order)
    keep = np.zeros(n, np.bool_)
    if n:
        ranks, starts = _groups(ids, order)
        for c in range(len(starts) - 1):
            if starts[c] < starts[c + 1]:
                _suppress(boxes, order, ranks[starts[c] : starts[c + 1]], threshold, limit, keep)
    picked = np.empty(n, np.int64)
    m = 0
    for i in range(n):
        if keep[i] and m < limit:
            picked[m] = order[i]
            m += 1
    return picked[:m]


@kernel(I64_1D(F32_2D_IN, types.Array(types.float32, 1, "C", readonly=True), I64_1D, types.float32))
def nms(boxes, scores, ids, threshold):  # type: ignore[no-untyped-def]
    """See `perception.postprocess.detection.nms`."""
    n = len(scores)
    return _keep_best(boxes, ids, _order(scores, n), threshold, n)


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


@helper
def _soften(boxes, scores, floors, group, threshold, gaussian, sigma, limit, keep):  # type: ignore[no-untyped-def]
    """Soft-NMS of the candidates in ``group``: lowers ``scores``, sets ``keep`` of those that stay.

    The candidate with the best score is taken, the others are lowered by their overlap with it, and so on; one that
    falls below its floor is out.
    """
    n = len(group)
    taken = 0
    while taken < min(n, limit):
        best = taken
        for i in range(taken + 1, n):
            g = group[i]
            b = group[best]
            if scores[g] > scores[b] or (scores[g] == scores[b] and g < b):
                best = i
        b = group[best]
        group[best] = group[taken]
        group[taken] = b
        keep[b] = True
        taken += 1
        i = taken
        while i < n:
            k = group[i]
            overlap = _iou(boxes, b, k)
            if gaussian:
                if overlap > 0:
                    scores[k] *= np.exp(-(overlap * overlap) / sigma)
            elif overlap > threshold:
                scores[k] *= np.float32(1) - overlap
            if scores[k] < floors[k]:
                n -= 1
                group[i] = group[n]
            else:
                i += 1


@helper
def _keep_softened(boxes, scores, floors, ids, threshold, gaussian, sigma, limit):  # type: ignore[no-untyped-def]
    """As `_keep_best`, with soft-NMS; lowers ``scores``."""
    n = len(scores)
    keep = np.zeros(n, np.bool_)
    if n:
        group, starts = _groups(ids, np.arange(n).astype(np.int32))
        for c in range(len(starts) - 1):
            if starts[c] < starts[c + 1]:
                part = group[starts[c] : starts[c + 1]]
                _soften(boxes, scores, floors, part, threshold, gaussian, sigma, limit, keep)
    order = _order(scores, n)
    picked = np.empty(n, np.int64)
    m = 0
    for i in range(n):
        if keep[order[i]] and m < limit:
            picked[m] = order[i]
            m += 1
    return picked[:m]


@helper
def _candidates(scores, thresholds):  # type: ignore[no-untyped-def]
    """``(box, class)`` of every score that reaches its threshold, row by row; int32 ``[M, 2]``."""
    boxes, classes = scores.shape
    found = np.empty((1024, 2), np.int32)
    m = 0
    for k in range(boxes):
        some = 0
        for c in range(classes):  # no early exit, so that it compiles to vector instructions
            some |= scores[k, c] >= thresholds[c]
        if some:
            if m + classes > len(found):
                larger = np.empty((2 * (m + classes), 2), np.int32)
                larger[:m] = found[:m]
                found = larger
            for c in range(classes):
                if scores[k, c] >= thresholds[c]:
                    found[m, 0] = k
                    found[m, 1] = c
                    m += 1
    return found[:m]


_F = types.float32


@kernel(
    types.Tuple((F32_2D, F32_1D, I32_1D))(
        *(F32_2D_IN, F32_2D_IN, F32_1D),
        *(_F, _F, _F, _F, _F, _F),
        *(_F, types.int64, types.int64, types.boolean, types.int64, _F),
    )
)
def decode(  # type: ignore[no-untyped-def]
    boxes, scores, thresholds, left, top, sx, sy, width, height, threshold, limit, most, agnostic, method, sigma
):
    """See `perception.postprocess.detection.decode`. At most ``most`` candidates are suppressed."""
    found = _candidates(scores, thresholds)
    n = len(found)
    candidate = np.empty((n, 4), np.float32)
    score = np.empty(n, np.float32)
    floor = np.empty(n, np.float32)
    class_id = np.empty(n, np.int32)
    zero = np.float32(0)
    m = 0
    for i in range(n):
        k = found[i, 0]
        c = found[i, 1]
        x1, y1, x2, y2 = (
            (boxes[k, 0] - left) * sx,
            (boxes[k, 1] - top) * sy,
            (boxes[k, 2] - left) * sx,
            (boxes[k, 3] - top) * sy,
        )
        total = x1 + y1 + x2 + y2
        if total - total != 0:  # a coordinate is NaN or infinite
            continue
        x1, x2 = min(max(x1, zero), width), min(max(x2, zero), width)
        y1, y2 = min(max(y1, zero), height), min(max(y2, zero), height)
        if not (x2 > x1 and y2 > y1):
            continue
        candidate[m, 0] = x1
        candidate[m, 1] = y1
        candidate[m, 2] = x2
        candidate[m, 3] = y2
        score[m] = scores[k, c]
        floor[m] = thresholds[c]
        class_id[m] = c
        m += 1
    if m > most:
        best = np.sort(_order(score, m)[:most])
        candidate = candidate[best]
        score = score[best]
        floor = floor[best]
        class_id = class_id[best]
        m = most
    group = np.zeros(m, np.int64)
    if not agnostic:
        group[:] = class_id[:m]
    if method == 0:
        picked = _keep_best(candidate, group, _order(score, m), threshold, limit)
    else:
        picked = _keep_softened(candidate, score[:m], floor, group, threshold, method == 2, sigma, limit)
    return candidate[picked], score[picked], class_id[picked]
