"""Comma-separated values: a row a detection, whole rows at any moment."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from perception.card import ModelCard
from perception.sinks.lines import LineSink
from perception.sinks.table import Rows, Table
from perception.types import Prediction, SourceInfo


class CsvSink(LineSink):
    """Writes a header and the rows of :class:`perception.sinks.table.Table`, as UTF-8 (RFC 4180, lines end in LF).

    Args:
        path: the file, or ``-`` for standard output.
        overwrite: replace a file that is there.

    Raises:
        UsageError: the file is there and ``overwrite`` is False.
        SinkError: its folder is not there or not writable.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        super().__init__(path, overwrite=overwrite)
        self._table: Rows = Table(None)

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        self._table = self._rows_of(card)
        super().open(info, card)
        self._append([tuple(self._table.columns)])

    def _rows_of(self, card: ModelCard | None) -> Rows:
        return Table(card)

    def write(self, prediction: Prediction) -> None:
        rows = self._table.rows(prediction)
        if rows:
            self._append(rows)

    def _append(self, rows: list[tuple[object, ...]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode())
