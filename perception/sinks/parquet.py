"""Parquet: a row a detection, for data frames."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.card import ModelCard
from perception.errors import SinkError
from perception.sinks.base import Sink
from perception.sinks.files import PartFile, check_not_source, sink_errors
from perception.sinks.table import Table
from perception.types import Prediction, SourceInfo

if TYPE_CHECKING:
    import pyarrow.parquet

ROW_GROUP = 16384


class ParquetSink(Sink):
    """Writes the rows of :class:`perception.sinks.table.Table`; ``source`` and ``class`` are dictionary-encoded.

    At most ``ROW_GROUP`` rows are held in memory. The file is ``NAME.part`` until it is closed; after an error
    it keeps that name and can be read up to the error.

    Args:
        path: the file.
        overwrite: replace a file that is there.

    Raises:
        UsageError: the file is there and ``overwrite`` is False.
        SinkError: its folder is not there or not writable.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        self._file = PartFile(path, overwrite)
        self.where = str(path)
        self._table = Table(None)
        self._rows: list[tuple[Any, ...]] = []
        self._writer: pyarrow.parquet.ParquetWriter | None = None
        self._schema: Any = None
        self._sink: Any = None

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        check_not_source(self._file.path, info.path)
        self._table = Table(card)
        types = {
            "int64": pa.int64(),
            "int32": pa.int32(),
            "float64": pa.float64(),
            "float32": pa.float32(),
            "string": pa.dictionary(pa.int32(), pa.string()),
        }
        self._schema = pa.schema([(name, types[kind]) for name, kind in self._table.columns.items()])
        self._sink = self._file.open()
        with sink_errors(self.where):
            self._writer = pq.ParquetWriter(self._sink, self._schema, compression="zstd")

    def write(self, prediction: Prediction) -> None:
        self._rows += self._table.rows(prediction)
        if len(self._rows) >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        assert self._writer is not None, "write before open"
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [pa.array(c, f.type) for c, f in zip(columns, self._schema, strict=True)]
            self._rows = []
            with sink_errors(self.where):
                self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        if self._writer is None:
            return
        self._flush()
        with sink_errors(self.where), self._sink:
            self._writer.close()
        self._writer = None
        self._file.publish()

    def abort(self) -> None:
        if self._writer is None:
            return
        with suppress(SinkError, OSError):
            self._flush()
        with suppress(OSError), self._sink:
            self._writer.close()
        self._writer = None
        self._file.leave()
