"""What a machine of a cluster does: one task after the other, with files that it was sent once."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from perception.annotate.settings import Annotating, Annotation
from perception.batch.annotating import Outcome, annotate_task, plain_error
from perception.batch.lock import FolderLock
from perception.batch.worker import prepare_process
from perception.common.files import sha256_of, write_atomic
from perception.common.objects import restore
from perception.common.private import private_cache
from perception.errors import PerceptionError, UsageError

FILES = 16
"""So many files that were sent are kept: those used last."""
LINES = 100
"""So many lines of a task's log are sent back."""


@dataclass(frozen=True)
class Job:
    """What is the same for all tasks of a batch.

    Attributes:
        annotation: how; with everything decided, so that all machines do the same.
        files: SHA-256 and ending, by the names of those fields of it that are files.
        folder: of the drafts, held locked while something is written there; None where they are objects.
        place: the working directory, from which paths without a beginning are.
        stores: see `perception.common.objects.restore`.
    """

    annotation: Annotation
    files: dict[str, tuple[str, str]]
    folder: Path | None
    place: str
    stores: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What is sent back of a task.

    Attributes:
        outcome: what became of it; None where the machine cannot do any.
        broken: why it cannot.
        logged: logger, level and text of what was said meanwhile.
    """

    outcome: Outcome | None = None
    broken: PerceptionError | None = None
    logged: list[tuple[str, int, str]] = field(default_factory=list)


_jobs: dict[bytes, tuple[Job, Annotating]] = {}
"""The job whose model is loaded in this process, by what was sent; there is one at most."""
_ending = ExitStack()


def do(sent: bytes, task: bytes, fetch: Callable[[str], Any]) -> Answer:
    """Do one task.

    Args:
        sent: the `Job`, pickled.
        task: the `Task`, pickled.
        fetch: gets the content of a file by its SHA-256.
    """
    with _logged() as lines:
        try:
            job, opened = _opened(sent, fetch)
            with ExitStack() as ending:
                if job.folder is not None:
                    ending.callback(FolderLock(job.folder, shared=True).release)
                return Answer(annotate_task(pickle.loads(task), job.annotation, opened), logged=lines)
        except PerceptionError as error:
            return Answer(broken=plain_error(error), logged=lines)


def _opened(sent: bytes, fetch: Callable[[str], Any]) -> tuple[Job, Annotating]:
    """Return the job with its model loaded; it stays so for the tasks that follow in this process."""
    job: Job = pickle.loads(sent)
    with suppress(OSError):
        os.chdir(job.place)
    restore(job.stores)
    if job.folder is not None and not job.folder.is_dir():
        raise UsageError(
            f"the machine {platform.node()} does not see this folder; sources and outputs must be on storage that all "
            "machines of the cluster have at the same place",
            job.folder.parent,
        )
    if sent not in _jobs:
        _jobs.clear()
        _ending.close()
        prepare_process(job.annotation.threads)
        kept: dict[str, Any] = {name: _kept(digest, ending, fetch) for name, (digest, ending) in job.files.items()}
        job = replace(job, annotation=replace(job.annotation, **kept))
        _jobs[sent] = job, _ending.enter_context(job.annotation.opened())
    return _jobs[sent]


def _kept(digest: str, ending: str, fetch: Callable[[str], Any]) -> Path:
    """Return the file of a digest in this machine's cache, fetched where it is not there or was changed."""
    try:
        folder = private_cache("sent")
        path = folder / f"{digest}{ending}"
        if not path.is_file() or sha256_of(path) != digest:
            data = memoryview(fetch(digest))
            if hashlib.sha256(data).hexdigest() != digest:
                raise PerceptionError(f"a file was damaged on its way to the machine {platform.node()}; try again")
            write_atomic(path, bytes(data), private=True)
        path.touch()
        _prune(folder)
    except OSError as error:
        raise PerceptionError(
            f"the machine {platform.node()} cannot keep a file that it was sent: {error.strerror or error}"
        ) from None
    return path


def _prune(folder: Path) -> None:
    """Drop the files used longest ago; other processes, and machines that share the folder, do so, too."""
    with suppress(OSError):
        used = sorted(folder.iterdir(), key=lambda file: -file.stat().st_mtime)
        for old in used[FILES:]:
            old.unlink(missing_ok=True)


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.lines) < LINES:
            with suppress(Exception):
                self.lines.append((record.name, record.levelno, self.format(record)))


@contextmanager
def _logged() -> Iterator[list[tuple[str, int, str]]]:
    """Collect what the package logs."""
    handler = _Lines()
    logger = logging.getLogger("perception")
    before, logger.handlers = logger.handlers, [handler]
    try:
        yield handler.lines
    finally:
        logger.handlers = before
