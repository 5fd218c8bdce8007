"""One output for several sources."""

from __future__ import annotations

from types import TracebackType

from perception.card import ModelCard
from perception.sinks.base import Sink
from perception.types import Prediction, SourceInfo


class SharedSink(Sink):
    """Gives several runs, one after the other, the same sink: a table whose rows name their source.

    ``open``, ``close`` and ``abort`` are those of one source; the sink itself is opened with the first of them. It is
    closed, or aborted after an error of its own, when this object ends as a context manager.

    Args:
        sink: not open yet.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._is_open = self._failed = False
        self.where = sink.where

    @property
    def name(self) -> str:
        return self._sink.name

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        if not self._is_open:
            self._sink.open(info, card)
            self._is_open = True

    def write(self, prediction: Prediction) -> None:
        try:
            self._sink.write(prediction)
        except BaseException:
            self._failed = True
            raise

    def close(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None and not self._failed:
            self._sink.close()
        else:
            self._sink.abort()
