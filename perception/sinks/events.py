"""Events: written as JSON Lines, or handed on to be delivered."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from perception.card import ModelCard
from perception.errors import SinkError
from perception.sinks.base import Sink
from perception.sinks.files import LineFile, check_not_source
from perception.types import Prediction, SourceInfo

if TYPE_CHECKING:
    from perception.events.delivery import Delivery


class EventsSink(Sink):
    """Writes one JSON object an event, as UTF-8; see `perception.events.event.Event`.

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

    def write(self, prediction: Prediction) -> None:
        for event in prediction.events:
            self._file.write(f"{event.to_json()}\n".encode())

    def close(self) -> None:
        self._file.close()

    def abort(self) -> None:
        with suppress(SinkError):  # every line is whole
            self._file.close()


class DeliverySink(Sink):
    """Hands events on to their targets, in whose threads they are delivered: frames do not wait for that.

    Args:
        delivery: neither opened nor closed here.
    """

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        pass

    def write(self, prediction: Prediction) -> None:
        for event in prediction.events:
            self._delivery.publish(event)

    def close(self) -> None:
        pass
