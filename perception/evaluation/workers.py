"""Several threads over a list of pictures, results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

Progress = Callable[[int, int], None]
"""Called with (pictures done, all pictures)."""


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], total: int, threads: int, progress: Progress | None = None
) -> Iterator[Result]:
    """``work`` of each item, in the order of the items, at most ``2 * threads`` of them ahead of the consumer.

    The first error ends it and is raised where the results are taken; nothing new is started then.

    Args:
        work: may be called from several threads at once, and releases the GIL where it takes long.
        items: what to work on.
        total: how many there are, for ``progress``.
        threads: how many calls run at once.
        progress: told of every result.
    """
    rest = iter(items)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="evaluate")
    try:
        pending: deque[Future[Result]] = deque(pool.submit(work, item) for item in islice(rest, 2 * threads))
        done = 0
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(work, item) for item in islice(rest, 1))
            yield result
            done += 1
            if progress is not None:
                progress(done, total)
    finally:
        pool.shutdown(cancel_futures=True)
