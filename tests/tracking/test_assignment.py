"""The assignment kernel against SciPy's, on random costs of every shape, with ties, and with nothing to choose."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from perception.tracking.assignment import assign


def least(costs: NDArray[np.float64], limit: float) -> float:
    """The least sum that there is: each row may also take a column of its own, at the limit."""
    rows = len(costs)
    alone = np.full((rows, rows), 1e6)
    np.fill_diagonal(alone, limit)
    with_alone = np.concatenate([np.where(costs < limit, costs, 1e6), alone], axis=1)
    return float(with_alone[linear_sum_assignment(with_alone)].sum())


def cost_of(costs: NDArray[np.float64], limit: float, column_of: NDArray[np.int64]) -> float:
    chosen = column_of >= 0
    picked = costs[np.flatnonzero(chosen), column_of[chosen]]
    assert (picked < limit).all()
    assert len(set(column_of[chosen].tolist())) == chosen.sum()
    return float(picked.sum() + limit * (~chosen).sum())


@pytest.mark.parametrize("seed", range(40))
def test_the_sum_is_the_least_there_is(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(25):
        rows, columns = rng.integers(1, 24, 2)
        costs = rng.normal(size=(rows, columns))
        if seed % 3 == 1:
            costs = np.round(costs * 2)  # full of ties
        if seed % 3 == 2:
            costs[rng.random(costs.shape) < 0.8] = 50.0  # few are possible
        limit = float(rng.choice([-0.5, 0.0, 0.7, 3.0, 60.0]))
        found = assign(costs, limit)
        assert found.shape == (rows,) and found.dtype == np.int64
        assert cost_of(costs, limit, found) == pytest.approx(least(costs, limit), abs=1e-9)


@pytest.mark.parametrize("size", [60, 150])
def test_large_and_dense(size: int) -> None:
    rng = np.random.default_rng(size)
    for shape in ((size, size), (size, size // 3), (size // 3, size)):
        costs = rng.random(shape)
        assert cost_of(costs, 2.0, assign(costs, 2.0)) == pytest.approx(least(costs, 2.0), abs=1e-9)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_nothing_to_choose(shape: tuple[int, int]) -> None:
    assert assign(np.zeros(shape), 1.0).tolist() == [-1] * shape[0]


def test_no_pair_below_the_limit() -> None:
    assert assign(np.ones((4, 3)), 1.0).tolist() == [-1] * 4


def test_a_pair_is_given_up_where_two_others_are_worth_more() -> None:
    # the best pair is (0, 0); together (0, 1) and (1, 0) are better
    assert assign(np.array([[-9.0, -6.0], [-6.0, 5.0]]), 0.0).tolist() == [1, 0]
    # and a row that has a column is left alone where another needs it more
    assert assign(np.array([[-2.0], [-3.0]]), 0.0).tolist() == [-1, 0]
