"""A worker: a process that annotates one source after the other into drafts, as it is told, until its parent ends.

It is told through a pipe: a `Task`, or None to end. It answers with tuples: ``("ready",)``, ``("moved", frames, of)``,
``("logged", logger, level, text)``, ``("broken", error)`` where it cannot begin, and ``("done", Outcome)``.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from perception.annotate.result import Result
from perception.annotate.run import annotate_one
from perception.annotate.settings import Annotation
from perception.batch.lock import FolderLock
from perception.card import ModelCard
from perception.errors import PerceptionError, SinkError
from perception.pipeline import Report
from perception.sinks import Sink, open_sink
from perception.sinks.names import ClassNames
from perception.sources.base import Source
from perception.sources.choice import Choice
from perception.types import Prediction, SourceInfo

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class Task:
    """One source, and where its outputs are written.

    Attributes:
        number: of the source in the plan.
        source: what is opened.
        pictures, chosen: see `perception.annotate.Result`.
        drafts: paths by kind, none of which exists.
        outputs: what they become, for messages.
    """

    number: int
    source: str
    pictures: bool
    chosen: Choice | None
    drafts: dict[str, str]
    outputs: dict[str, str]


@dataclass(frozen=True)
class Outcome:
    """What became of a task: its drafts are whole if there is a report.

    Attributes:
        report: where nothing failed.
        error: what failed.
        unreadable: images that could not be read.
        boxes: how many were found, by class.
        full: it failed because nothing more can be written there.
    """

    report: Report | None = None
    error: PerceptionError | None = None
    unreadable: tuple[str, ...] = ()
    boxes: dict[str, int] = field(default_factory=dict)
    full: bool = False


def work(connection: Connection, annotation: Annotation, folder: Path) -> None:
    """Run as a worker.

    Args:
        connection: the worker's end of the pipe.
        annotation: what to do; with everything decided, so that all workers do the same.
        folder: held locked, so that a later run can tell when all workers of this one have ended.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says what is to be done
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = _Parent(connection)
    logger = logging.getLogger("perception")
    logger.handlers = [_Forward(parent)]
    _few_threads(annotation.threads)
    FolderLock(folder, shared=True)  # until the process ends
    try:
        with annotation.opened() as (model, annotator, stages):
            parent.say("ready")
            while (task := parent.next_task()) is not None:
                tally = _Tally()

                def sinks(task: Task = task, tally: _Tally = tally) -> list[Sink]:
                    for path in task.drafts.values():
                        shutil.rmtree(Path(path).parent, ignore_errors=True)  # of a worker that died
                        Path(path).parent.mkdir(parents=True)
                    options = annotation.sink_options
                    made = [open_sink(path, kind=kind, **options.get(kind, {})) for kind, path in task.drafts.items()]
                    return [*made, tally]

                result = Result(task.source, task.drafts, pictures=task.pictures, chosen=task.chosen)
                annotate_one(
                    result, model, sinks, annotator=annotator, stages=stages,
                    source_options=dict(annotation.source_options), max_loss=annotation.max_loss,
                    started=parent.started,
                )  # fmt: skip
                parent.say("done", _outcome(task, result, tally))
    except PerceptionError as error:
        parent.say("broken", _plain(error))


def _few_threads(threads: int | None) -> None:
    import cv2

    cv2.setNumThreads(threads or 0)


def _outcome(task: Task, result: Result, tally: _Tally) -> Outcome:
    error = result.error
    if error is None:
        return Outcome(result.report, None, tuple(result.unreadable), tally.boxes())
    if is_full(error):
        place = next(iter(task.outputs.values()))
        return Outcome(error=SinkError("the disk is full or cannot be written any more", place), full=True)
    text = str(error)
    for kind, draft in task.drafts.items():
        text = text.replace(draft, task.outputs[kind])
    return Outcome(error=_plain(error, text))


def is_full(error: PerceptionError | None) -> bool:
    """Return whether an error says that nothing more can be written."""
    return isinstance(error, SinkError) and getattr(error.__cause__, "errno", None) in _FULL


def _plain(error: PerceptionError, text: str | None = None) -> PerceptionError:
    """Return an error of the same class that a pipe can carry: without what caused it."""
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == PerceptionError.__module__)
    return kind(str(error) if text is None else text)


class _Parent:
    """The pipe to the parent. Where the parent has gone, the process ends at once: nobody wants what it makes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, name="perception-parent", daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                task = self._connection.recv()
            except (EOFError, OSError):
                os._exit(1)
            self._tasks.put(task)

    def next_task(self) -> Task | None:
        """Wait for the next task; None: there are no more."""
        return self._tasks.get()

    def say(self, *message: Any) -> None:
        """Send one message."""
        try:
            with self._lock:
                self._connection.send(message)
        except OSError:
            os._exit(1)

    def started(self, result: Result, source: Source) -> Callable[[int, int], None]:
        """Tell how far a source is."""
        total = source.info.frame_count or 0
        return lambda frames, dropped: self.say("moved", frames, total)


class _Forward(logging.Handler):
    """Sends what is logged to the parent, which prints it between its own lines."""

    def __init__(self, parent: _Parent) -> None:
        super().__init__()
        self._parent = parent

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(Exception):
            self._parent.say("logged", record.name, record.levelno, self.format(record))


class _Tally(Sink):
    """Counts boxes by class; writes nothing."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._names = ClassNames(None)

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        self._names = ClassNames(card)

    def write(self, prediction: Prediction) -> None:
        if prediction.detections is not None:
            self._counts.update(prediction.detections.class_ids.tolist())

    def close(self) -> None:
        pass

    def boxes(self) -> dict[str, int]:
        """Return how many there were by name, in the order of the classes."""
        return {self._names.detection(i): self._counts[i] for i in sorted(self._counts)}
