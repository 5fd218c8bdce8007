"""A worker: a process that annotates one source after the other into drafts, as it is told, until its parent ends.

It is told through a pipe: a `Task`, or None to end. It answers with tuples: ``("ready",)``, ``("moved", frames, of)``,
``("logged", logger, level, text)``, ``("broken", error)`` where it cannot begin, and ``("done", Outcome)``.
"""

from __future__ import annotations

import ctypes
import logging
import os
import queue
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from perception.annotate.result import Result
from perception.annotate.settings import Annotation
from perception.batch.annotating import annotate_task, plain_error
from perception.batch.lock import FolderLock
from perception.batch.task import Task
from perception.common.objects import restore
from perception.errors import PerceptionError
from perception.sources.base import Source


def work(connection: Connection, annotation: Annotation, folder: Path | None, stores: dict[str, str]) -> None:
    """Run as a worker.

    Args:
        connection: the worker's end of the pipe.
        annotation: what to do; with everything decided, so that all workers do the same.
        folder: held locked, so that a later run can tell when all workers of this one have ended; None: there is none.
        stores: see `perception.common.objects.restore`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says what is to be done
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = _Parent(connection)
    logger = logging.getLogger("perception")
    logger.handlers = [_Forward(parent)]
    prepare_process(annotation.threads)
    restore(stores)
    if folder is not None:
        FolderLock(folder, shared=True)  # until the process ends
    try:
        with annotation.opened() as opened:
            parent.say("ready")
            while (task := parent.next_task()) is not None:
                parent.say("done", annotate_task(task, annotation, opened, parent.started))
    except PerceptionError as error:
        parent.say("broken", plain_error(error))


def prepare_process(threads: int | None) -> None:
    """Let the outputs of this process depend on nothing but its tasks, and OpenCV have no more threads than it has.

    glibc clears the memory that it gives out from here on. x264 (core 165) decides by some that it has not written, in
    videos of a few macroblocks such as 80x48, so that the same pictures would be encoded in one of two ways by chance.
    """
    import cv2

    cv2.setNumThreads(threads or 0)
    with suppress(AttributeError, TypeError, OSError):  # a C library that is not glibc
        ctypes.CDLL(None).mallopt(_M_PERTURB, 255)


_M_PERTURB = -6


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
