"""The base class of sinks that append whole lines to one file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from perception.card import ModelCard
from perception.errors import SinkError
from perception.sinks.base import Sink
from perception.sinks.files import LineFile, check_not_source
from perception.types import SourceInfo


class LineSink(Sink):
    """Writes lines to ``self._file``, which always ends with a whole one: after an error nothing is to be marked.

    Args:
        path: the file, or ``-`` for standard output.
        overwrite: replace a file that is there.

    Raises:
        UsageError: the file is there and ``overwrite`` is False.
        SinkError: its folder is not there or not writable.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        self._file = LineFile(path, overwrite)
        self.where = self._file.where

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        if self._file.path is not None:
            check_not_source(self._file.path, info.path)
        self._file.open()

    def close(self) -> None:
        self._file.close()

    def abort(self) -> None:
        with suppress(SinkError):
            self._file.close()
