"""Worker processes: tasks are given to those that are free, and what becomes of each task comes back."""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from perception.annotate.settings import Annotation
from perception.batch.annotating import Outcome
from perception.batch.pool import Pool
from perception.batch.task import Task
from perception.batch.worker import work
from perception.common.objects import remembered
from perception.errors import PerceptionError

TRIES = 2
"""A task whose worker died is given to so many workers; then it is to blame."""

_LOOK_S = 0.2
_END_S = 5.0


@dataclass(eq=False)
class _Worker:
    """One process, and what it is doing."""

    process: Any
    connection: Connection
    ready: bool = False
    task: Task | None = None
    part: float = 0.0  # of the task that is done

    def give(self, task: Task | None) -> None:
        self.task, self.part = task, 0.0
        with suppress(OSError):  # it died, which is seen when it is listened to
            self.connection.send(task)

    def death(self) -> str:
        """Say how it ended."""
        self.process.join(_END_S)
        code = self.process.exitcode
        if code is not None and code < 0:
            with suppress(ValueError):
                return f"was ended by {signal.Signals(-code).name}"
        return f"ended with code {code}"

    def end(self) -> None:
        self.connection.close()  # it ends by itself
        if self.process.is_alive():
            self.process.terminate()

    def wait(self) -> None:
        self.process.join(_END_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class ProcessPool(Pool):
    """Worker processes on this machine.

    Args:
        annotation: what they do.
        jobs: how many there are at most.
        folder: see `perception.batch.worker.work`.
    """

    def __init__(self, annotation: Annotation, jobs: int, folder: Path | None) -> None:
        self._annotation = annotation
        self._jobs = jobs
        self._folder = folder
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._waiting: deque[Task] = deque()
        self._failed_starts = 0

    def run(
        self, tasks: Sequence[Task], moved: Callable[[dict[int, float]], None] | None = None
    ) -> Iterator[tuple[Task, Outcome]]:
        self._waiting = deque(tasks)
        try:
            while self._waiting or any(worker.task for worker in self._workers):
                self._give()
                for worker in self._heard():
                    yield from self._listen(worker)
                if moved is not None:
                    moved({worker.task.number: worker.part for worker in self._workers if worker.task is not None})
        finally:
            for worker in self._workers:
                worker.end()
            for worker in self._workers:
                worker.wait()

    def begin_no_more(self) -> None:
        self._waiting.clear()

    def _give(self) -> None:
        busy = sum(worker.task is not None for worker in self._workers)
        while len(self._workers) < min(self._jobs, busy + len(self._waiting)):
            self._start()
        for worker in self._workers:
            if worker.ready and worker.task is None and self._waiting:
                worker.give(self._waiting.popleft())

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        what = (theirs, self._annotation, self._folder, remembered())
        process = self._context.Process(target=work, args=what, name="perception-batch", daemon=True)
        process.start()
        theirs.close()  # or its end would not be seen
        self._workers.append(_Worker(process, ours))

    def _heard(self) -> list[_Worker]:
        heard = wait([worker.connection for worker in self._workers], _LOOK_S)
        return [worker for worker in self._workers if worker.connection in heard]

    def _listen(self, worker: _Worker) -> Iterator[tuple[Task, Outcome]]:
        """Take one message of a worker, or its death."""
        try:
            what, *rest = worker.connection.recv()
        except (EOFError, OSError):
            yield from self._buried(worker)
            return
        if what == "ready":
            worker.ready, self._failed_starts = True, 0
        elif what == "broken":
            raise rest[0]
        elif what == "moved":
            frames, total = rest
            worker.part = min(1.0, frames / total) if total else 0.0
        elif what == "logged":
            name, level, text = rest
            logging.getLogger(name).log(level, "%s", text)
        else:
            task, worker.task = worker.task, None
            assert task is not None
            yield task, rest[0]

    def _buried(self, worker: _Worker) -> Iterator[tuple[Task, Outcome]]:
        how = worker.death()
        worker.end()
        worker.wait()
        self._workers.remove(worker)
        task = worker.task
        if task is None:
            self._failed_starts += not worker.ready
            if self._failed_starts >= TRIES:
                raise PerceptionError(f"worker processes end before they begin (the last {how}); try fewer at once")
            return
        if task.lost + 1 < TRIES:
            self._waiting.appendleft(task.again())
        else:
            why = f"the process that annotates it {how}, {TRIES} times; it may need more memory, or crash a library"
            yield task, Outcome(error=PerceptionError(why, task.source))
