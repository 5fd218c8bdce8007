"""The assignment problem with the choice to leave a row alone, exactly, for costs of which few are small."""

from __future__ import annotations

import numpy as np
from numba.core import types

from perception.common.jit import I64_1D, helper, kernel

F64_2D = types.Array(types.float64, 2, "C")


@helper
def match(costs, limit):  # type: ignore[no-untyped-def]
    """Choose pairs of a row and a column, each at most once, so that the sum of ``costs - limit`` is least.

    Shortest augmenting paths (Jonker and Volgenant, 1987; Crouse, 2016), as in SciPy's ``linear_sum_assignment``, with
    a column for each row in which it is left alone at the cost ``limit``. Only pairs below the limit are looked at, so
    where boxes are far apart each search ends within its own little group.

    Args:
        costs: float64 ``[R, C]``.
        limit: pairs that cost as much or more are never chosen.

    Returns:
        int64 ``[R]``: the column of each row, -1 for none.
    """
    rows, columns = costs.shape
    column_of = np.full(rows, -1, np.int64)
    if rows == 0 or columns == 0:
        return column_of
    starts = np.zeros(rows + 1, np.int64)
    near = np.empty(rows * columns, np.int64)
    count = 0
    for i in range(rows):
        for j in range(columns):
            if costs[i, j] < limit:
                near[count] = j
                count += 1
        starts[i + 1] = count
    row_of = np.full(columns, -1, np.int64)
    u = np.zeros(rows)
    v = np.zeros(columns)
    distance = np.full(columns, np.inf)
    before = np.full(columns, -1, np.int64)
    done = np.zeros(columns, np.bool_)
    reached = np.empty(columns, np.int64)
    tree = np.empty(rows, np.int64)
    for first in range(rows):
        found = 0  # columns in `reached`
        in_tree = 0
        row = first
        reach = 0.0  # cost of the shortest path to `row`
        alone, alone_cost = -1, np.inf  # the row that it is cheapest to leave alone, and the cost of the path there
        end = -1
        while True:
            tree[in_tree] = row
            in_tree += 1
            leave = reach + limit - u[row]
            if leave < alone_cost:
                alone, alone_cost = row, leave
            for k in range(starts[row], starts[row + 1]):
                j = near[k]
                if done[j]:
                    continue
                if distance[j] == np.inf:
                    reached[found] = j
                    found += 1
                there = reach + costs[row, j] - u[row] - v[j]
                if there < distance[j]:
                    distance[j] = there
                    before[j] = row
            end = -1
            best = alone_cost
            for k in range(found):
                j = reached[k]
                # of equal ones a free column: it ends the search
                if not done[j] and (distance[j] < best or (distance[j] == best and row_of[j] < 0)):
                    best = distance[j]
                    end = j
            if end < 0 or row_of[end] < 0:
                reach = best
                break
            done[end] = True
            reach = best
            row = row_of[end]
        u[first] += reach
        for k in range(1, in_tree):
            i = tree[k]
            u[i] += reach - distance[column_of[i]]
        for k in range(found):
            j = reached[k]
            if done[j]:
                v[j] -= reach - distance[j]
            distance[j] = np.inf
            done[j] = False
        if end < 0:  # `alone` gives up its column, which those before it on the path take over
            end = column_of[alone]
            column_of[alone] = -1
            if alone == first:
                continue
        while True:
            i = before[end]
            row_of[end] = i
            column_of[i], end = end, column_of[i]
            if i == first:
                break
    return column_of


@kernel(I64_1D(F64_2D, types.float64))
def assign(costs, limit):  # type: ignore[no-untyped-def]
    """`match` for callers in Python."""
    return match(costs, limit)
