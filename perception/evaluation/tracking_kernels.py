"""Kernels of `perception.evaluation.tracking`: the overlaps of a sequence, and the matches of each measure.

A sequence is flat: ids of truth and of results by frame, where each frame begins in them, and the IoU of all pairs of
a frame, row by row, one frame after the other.
"""

from __future__ import annotations

import numpy as np
from numba.core import types

from perception.common.jit import I64_1D, helper, inline_helper, kernel
from perception.tracking.assignment import match

F64_1D = types.Array(types.float64, 1, "C")
F64_2D = types.Array(types.float64, 2, "C")
BOOL_1D = types.Array(types.boolean, 1, "C")
EPS = np.finfo(np.float64).eps


@inline_helper
def _area(box):  # type: ignore[no-untyped-def]
    return (box[2] - box[0]) * (box[3] - box[1])


@helper
def _iou(a, b):  # type: ignore[no-untyped-def]
    w = max(min(a[2], b[2]) - max(a[0], b[0]), 0.0)
    h = max(min(a[3], b[3]) - max(a[1], b[1]), 0.0)
    inter = w * h
    union = _area(a) + _area(b) - inter
    return inter / union if _area(a) > EPS and _area(b) > EPS and union > EPS else 0.0


@kernel(F64_1D(F64_2D, I64_1D, F64_2D, I64_1D))
def overlaps(truth, truth_starts, found, found_starts):  # type: ignore[no-untyped-def]
    """IoU of each pair within each frame; boxes are float64 ``[N, 4]`` xyxy."""
    total = 0
    for f in range(len(truth_starts) - 1):
        total += (truth_starts[f + 1] - truth_starts[f]) * (found_starts[f + 1] - found_starts[f])
    out = np.empty(total)
    k = 0
    for f in range(len(truth_starts) - 1):
        for i in range(truth_starts[f], truth_starts[f + 1]):
            for j in range(found_starts[f], found_starts[f + 1]):
                out[k] = _iou(truth[i], found[j])
                k += 1
    return out


@kernel(BOOL_1D(F64_2D, I64_1D, BOOL_1D, F64_2D, I64_1D, types.float64))
def on_neutral(truth, truth_starts, neutral, found, found_starts, least):  # type: ignore[no-untyped-def]
    """bool ``[len(found)]``: results whose best match within a frame is a box of truth that is neutral."""
    out = np.zeros(len(found), np.bool_)
    for f in range(len(truth_starts) - 1):
        t0, t1, r0, r1 = truth_starts[f], truth_starts[f + 1], found_starts[f], found_starts[f + 1]
        if r0 == r1 or not neutral[t0:t1].any():
            continue
        costs = np.empty((t1 - t0, r1 - r0))
        for i in range(t0, t1):
            for j in range(r0, r1):
                iou = _iou(truth[i], found[j])
                costs[i - t0, j - r0] = 0.0 if iou < least - EPS else -iou
        column_of = match(costs, 0.0)
        for i in range(t0, t1):
            if neutral[i] and column_of[i - t0] >= 0:
                out[r0 + column_of[i - t0]] = True
    return out


@kernel(types.Tuple((I64_1D, I64_1D, F64_1D))(I64_1D, I64_1D, I64_1D, I64_1D, F64_1D, I64_1D, I64_1D))
def hota_matches(truth, truth_starts, found, found_starts, iou, truths, founds):  # type: ignore[no-untyped-def]
    """The matches of HOTA, the same at every threshold: ids of truth, ids of results, IoU.

    ``truths`` and ``founds``: the boxes of each id.
    """
    shared = np.zeros((len(truths), len(founds)))
    k = 0
    most = 0
    for f in range(len(truth_starts) - 1):
        n, m = truth_starts[f + 1] - truth_starts[f], found_starts[f + 1] - found_starts[f]
        most += min(n, m)
        part = iou[k : k + n * m].reshape((n, m))
        k += n * m
        of_found = np.zeros(m)
        for i in range(n):
            for j in range(m):
                of_found[j] += part[i, j]
        for i in range(n):
            of_truth = part[i].sum()
            for j in range(m):
                whole = of_found[j] + of_truth - part[i, j]
                if whole > EPS:
                    shared[truth[truth_starts[f] + i], found[found_starts[f] + j]] += part[i, j] / whole
    out_truth, out_found, out_iou = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most)
    count = 0
    k = 0
    for f in range(len(truth_starts) - 1):
        n, m = truth_starts[f + 1] - truth_starts[f], found_starts[f + 1] - found_starts[f]
        costs = np.empty((n, m))
        for i in range(n):
            for j in range(m):
                a, b = truth[truth_starts[f] + i], found[found_starts[f] + j]
                costs[i, j] = -iou[k + i * m + j] * shared[a, b] / (truths[a] + founds[b] - shared[a, b])
        column_of = match(costs, 0.0)
        for i in range(n):
            if column_of[i] >= 0:
                out_truth[count] = truth[truth_starts[f] + i]
                out_found[count] = found[found_starts[f] + column_of[i]]
                out_iou[count] = iou[k + i * m + column_of[i]]
                count += 1
        k += n * m
    return out_truth[:count], out_found[:count], out_iou[:count]


@kernel(types.UniTuple(types.int64, 2)(I64_1D, I64_1D, I64_1D, I64_1D, F64_1D, types.int64, types.float64))
def clear_matches(truth, truth_starts, found, found_starts, iou, truth_count, least):  # type: ignore[no-untyped-def]
    """Matches and changes of identity of MOTA."""
    hits = 0
    switches = 0
    last = np.full(truth_count, -1, np.int64)  # who it was whenever it was last found
    before = np.full(truth_count, -1, np.int64)  # the same, in the last frame that had both truth and results
    k = 0
    for f in range(len(truth_starts) - 1):
        n, m = truth_starts[f + 1] - truth_starts[f], found_starts[f + 1] - found_starts[f]
        if n == 0 or m == 0:
            continue
        costs = np.zeros((n, m))
        for i in range(n):
            for j in range(m):
                value = iou[k + i * m + j]
                if value >= least - EPS:
                    same = before[truth[truth_starts[f] + i]] == found[found_starts[f] + j]
                    costs[i, j] = -value - (1000.0 if same else 0.0)
        k += n * m
        column_of = match(costs, 0.0)
        before[:] = -1
        for i in range(n):
            if column_of[i] >= 0:
                a, b = truth[truth_starts[f] + i], found[found_starts[f] + column_of[i]]
                hits += 1
                switches += last[a] >= 0 and last[a] != b
                last[a] = b
                before[a] = b
    return hits, switches


@kernel(types.int64(I64_1D, I64_1D, I64_1D, I64_1D, F64_1D, types.int64, types.int64, types.float64))
def identity_hits(truth, truth_starts, found, found_starts, iou, truth_count, found_count, least):  # type: ignore[no-untyped-def]
    """Boxes of IDF1 that have the right identity, where each of the truth's is one of the results' for good."""
    costs = np.zeros((truth_count, found_count))
    k = 0
    for f in range(len(truth_starts) - 1):
        for i in range(truth_starts[f], truth_starts[f + 1]):
            for j in range(found_starts[f], found_starts[f + 1]):
                if iou[k] >= least:
                    costs[truth[i], found[j]] -= 1.0
                k += 1
    column_of = match(costs, 0.0)
    hits = 0
    for i in range(truth_count):
        if column_of[i] >= 0:
            hits -= int(costs[i, column_of[i]])
    return hits
