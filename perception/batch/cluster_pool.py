"""A Ray cluster that does the tasks of a batch: plain Ray tasks, which are given out again here where they are lost."""

from __future__ import annotations

import logging
import os
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from perception.annotate.settings import Annotation
from perception.batch.annotating import Outcome
from perception.batch.cluster import connected
from perception.batch.node import Answer, Job
from perception.batch.pool import Pool
from perception.batch.task import Task
from perception.common.files import sha256_of
from perception.common.objects import remembered
from perception.common.version import __version__
from perception.errors import PerceptionError, UsageError
from perception.weights.library import find_with_card

log = logging.getLogger("perception")

TRIES = 5
"""A task whose machine was lost is given out so often: machines of a cluster go for reasons of their own."""
THREADS = 2
"""Cores of a task, where nothing else is said; an encoder has as many threads."""

_LOOK_S = 0.2
_COUNT_S = 5.0
_END_S = 10.0
_GPU_ENGINES = ("tensorrt",)


class ClusterPool(Pool):
    """A Ray cluster.

    Each task asks it for as many cores as ``annotation.threads``, and for a GPU if its engine runs on one. The files
    that it needs (model, card, rules) are sent by their content, once to each machine.

    Args:
        address: see `perception.batch.cluster.connected`.
        annotation: what is done; with everything decided, so that all machines do the same.
        jobs: how many tasks are in work at most; None: as many as there is room for.
        folder: of the drafts.
    """

    def __init__(self, address: str, annotation: Annotation, jobs: int | None, folder: Path | None) -> None:
        self._address = address
        self._jobs = jobs
        self._waiting: deque[Task] = deque()
        self._needs: dict[str, float] = {"num_cpus": annotation.threads or THREADS}
        if annotation.engine.startswith(_GPU_ENGINES):
            self._needs["num_gpus"] = 1
        self._contents: dict[str, Path] = {}
        model, card = find_with_card(annotation.model, annotation.card)
        annotation = replace(annotation, model=model, card=card)
        files: dict[str, tuple[str, str]] = {}
        for name in ("model", "card", "rules"):
            path = getattr(annotation, name)
            if path is not None and Path(path).is_file():
                files[name] = (sha256_of(Path(path)), Path(path).suffix)
                self._contents[files[name][0]] = Path(path)
        self._job = pickle.dumps(Job(annotation, files, folder, os.getcwd(), remembered()))  # noqa: PTH109
        self._room = 0
        self._counted = -_COUNT_S

    def run(
        self, tasks: Sequence[Task], moved: Callable[[dict[int, float]], None] | None = None
    ) -> Iterator[tuple[Task, Outcome]]:
        self._waiting = deque(tasks)
        running: dict[Any, Task] = {}
        with connected(self._address) as ray:
            begin = self._function(ray)
            try:
                while self._waiting or running:
                    while self._waiting and len(running) < self._most(ray):
                        task = self._waiting.popleft()
                        running[begin(task)] = task
                    for reference in ray.wait(list(running), timeout=_LOOK_S)[0]:
                        task = running.pop(reference)
                        outcome = self._outcome(ray, reference, task)
                        if outcome is None:
                            self._waiting.appendleft(task.again())
                        else:
                            yield task, outcome
                    if moved is not None:
                        moved({})
            except (ConnectionError, ray.exceptions.RaySystemError) as error:
                raise PerceptionError(f"the connection to the cluster was lost: {error}", self._address) from None
            finally:
                _end(ray, list(running))

    def begin_no_more(self) -> None:
        self._waiting.clear()

    def _function(self, ray: Any) -> Callable[[Task], Any]:
        """Return what begins a task, and gives the reference to its answer."""
        import numpy as np

        contents = {
            digest: ray.put(np.frombuffer(path.read_bytes(), np.uint8)) for digest, path in self._contents.items()
        }

        # Sent by its code, as all functions inside of others are, and with bytes only: it runs where another version
        # of the package is, or none, and says so.
        def annotate(version: str, job: bytes, task: bytes, contents: dict[str, Any]) -> Any:
            import platform

            try:
                from perception.common.version import __version__ as found
            except ImportError as error:
                return platform.node(), f"none ({error})"
            if found != version:
                return platform.node(), found
            import ray

            from perception.batch.node import do

            return do(job, task, lambda digest: ray.get(contents[digest]))

        remote = ray.remote(annotate).options(max_retries=0, name="perception annotate", **self._needs)
        return lambda task: remote.remote(__version__, self._job, pickle.dumps(task), contents)

    def _most(self, ray: Any) -> int:
        """Return how many tasks are given out at once: some more than there is room for, so that no core waits."""
        now = time.monotonic()
        if now - self._counted >= _COUNT_S:
            alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            names = {"num_cpus": "CPU", "num_gpus": "GPU"}
            room = sum(min(int(has.get(names[k], 0) // n) for k, n in self._needs.items()) for has in alive)
            if not room and self._room == 0 and self._counted < 0:
                needs = " and ".join(f"{count:g} {names[name]}" for name, count in self._needs.items())
                log.warning("%s: no machine of the cluster has %s; waiting for one", self._address, needs)
            self._room, self._counted = room, now
        return min(2 * self._room + 2, self._jobs or 2 * self._room + 2)

    def _outcome(self, ray: Any, reference: Any, task: Task) -> Outcome | None:
        """Return what became of a task; None where it is to be given out again."""
        errors = ray.exceptions
        try:
            answer = ray.get(reference)
        except (
            errors.WorkerCrashedError, errors.NodeDiedError, errors.LocalRayletDiedError, errors.OutOfMemoryError,
            errors.ObjectLostError,
        ) as error:  # fmt: skip
            if task.lost + 1 < TRIES:
                log.debug("%s is given out again: %s", task.source, error)
                return None
            why = f"the machine or process that annotates it was lost {TRIES} times; it may need more memory"
            return Outcome(error=PerceptionError(why, task.source))
        except errors.RayTaskError as error:
            return Outcome(error=PerceptionError(str(error).strip().splitlines()[-1], task.source))
        if not isinstance(answer, Answer):
            node, found = answer
            raise UsageError(
                f"the machine {node} of the cluster has perception {found}, and this one has {__version__}; install "
                "the same on all",
                self._address,
            )
        for name, level, text in answer.logged:
            logging.getLogger(name).log(level, "%s", text)
        if answer.broken is not None:
            raise answer.broken
        assert answer.outcome is not None
        return answer.outcome


def _end(ray: Any, running: list[Any]) -> None:
    """End tasks that are in work, and wait until they have."""
    with suppress(Exception):  # the connection is lost, perhaps: then they end by themselves
        for reference in running:
            ray.cancel(reference, force=True)
        if running:
            ray.wait(running, num_returns=len(running), timeout=_END_S)
