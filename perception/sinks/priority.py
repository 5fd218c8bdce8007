"""Scheduling priority of encoder threads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_TASKS = Path("/proc/self/task")


@contextmanager
def ordinary_priority() -> Iterator[None]:
    """Give threads that become real-time in here their ordinary scheduling back.

    SVT-AV1, where it runs as root (in a container, say), makes its own threads and the one that opens it real-time
    (SCHED_FIFO): nothing else on the machine runs while they want to. Only Linux has that to undo.
    """
    if not _TASKS.is_dir() or os.sched_getscheduler(0) != os.SCHED_OTHER:
        yield
        return
    before = {int(task.name) for task in _TASKS.iterdir() if _policy(int(task.name)) not in (None, os.SCHED_OTHER)}
    try:
        yield
    finally:
        for task in {int(task.name) for task in _TASKS.iterdir()} - before:
            if _policy(task) != os.SCHED_OTHER:
                with suppress(OSError):  # a thread may have ended meanwhile
                    os.sched_setscheduler(task, os.SCHED_OTHER, os.sched_param(0))


def _policy(thread: int) -> int | None:
    with suppress(OSError):
        return os.sched_getscheduler(thread)
    return None
