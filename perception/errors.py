"""The errors a user meets. Each says what happened to which file, and what to do about it.

The command line prints one line of them and exits with ``exit_code``; the API raises them.
"""

from __future__ import annotations

import errno
from pathlib import Path


class PerceptionError(Exception):
    """Something failed. ``str(error)`` is one line, complete without a traceback.

    Args:
        message: what happened and what to do about it, one line.
        where: the file, URL or device it happened to; put in front of the message.
    """

    exit_code = 1

    def __init__(self, message: str, where: str | Path | None = None) -> None:
        self.message = " ".join(str(message).split())
        self.where = None if where is None else str(where)
        super().__init__(self.message if self.where is None else f"{self.where}: {self.message}")


class UsageError(PerceptionError):
    """A request that does not make sense: an unknown option, name or combination."""

    exit_code = 2


class SourceError(PerceptionError):
    """An input cannot be opened, or not read to its end."""

    exit_code = 2


class SinkError(PerceptionError):
    """An output cannot be created or written."""

    exit_code = 1


class StageError(PerceptionError):
    """A stage of the pipeline failed on a frame."""


class ModelError(PerceptionError):
    """A model file, its card, or the two together are not usable."""

    exit_code = 2


class EngineError(PerceptionError):
    """An engine is not installed, refuses the model, or fails while running it."""

    exit_code = 1


_NO_MEMORY = (
    "bad_alloc", "bad alloc", "cannot allocate memory", "can't start new thread", "failed to allocate",
    "failed to map segment", "insufficient memory", "not enough memory", "out of memory", "unable to allocate",
)  # fmt: skip


def out_of_memory(error: BaseException, where: str | Path | None = None) -> PerceptionError | None:
    """Return the error of a process that gets no more memory, as a user is told it; None where ``error`` is another.

    Python, FFmpeg, OpenCV, the loader of libraries and engines each say it in a way of their own.

    Args:
        error: what was raised.
        where: what was being worked on.
    """
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None or isinstance(seen, PerceptionError):
            return None
        said = str(seen).lower()
        if (
            isinstance(seen, MemoryError)
            or (isinstance(seen, OSError) and seen.errno == errno.ENOMEM)
            or any(words in said for words in _NO_MEMORY)
        ):
            text = "there is not enough memory; give it more, or smaller pictures, fewer threads or a smaller model"
            found = PerceptionError(text, where)
            found.__cause__ = error
            return found
        seen = seen.__cause__ or seen.__context__
    return None
