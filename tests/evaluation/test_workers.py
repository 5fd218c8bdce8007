"""Threads over a list: order, bound, errors."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from perception.evaluation.workers import in_order


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 50])
def test_results_come_in_order_and_progress_counts_them(threads: int, count: int) -> None:
    waits = np.random.default_rng(0).uniform(0, 0.003, 50)
    seen: list[tuple[int, int]] = []
    pause = threading.Event()

    def work(i: int) -> int:
        pause.wait(waits[i])
        return i * i

    results = list(in_order(work, range(count), count, threads, lambda *done: seen.append(done)))
    assert results == [i * i for i in range(count)]
    assert seen == [(i + 1, count) for i in range(count)]


def test_work_is_never_far_ahead_of_the_consumer() -> None:
    started: list[int] = []
    for taken, _ in enumerate(in_order(started.append, range(40), 40, 2)):
        assert len(started) <= taken + 1 + 4


def test_threads_work_at_the_same_time() -> None:
    meeting = threading.Barrier(3, timeout=20)
    assert len(list(in_order(lambda _: meeting.wait(), range(6), 6, 3))) == 6


def test_an_error_ends_it() -> None:
    started: list[int] = []

    def work(i: int) -> int:
        started.append(i)
        if i == 5:
            raise OSError("five")
        return i

    results = in_order(work, range(1000), 1000, 2)
    with pytest.raises(OSError, match="five"):
        list(results)
    assert len(started) <= 5 + 1 + 4
    assert not [t for t in threading.enumerate() if t.name.startswith("evaluate")]
