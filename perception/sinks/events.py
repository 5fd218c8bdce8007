"""Events: written as JSON Lines, or handed on to be delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perception.card import ModelCard
from perception.sinks.base import Sink
from perception.sinks.lines import LineSink
from perception.types import Prediction, SourceInfo

if TYPE_CHECKING:
    from perception.events.delivery import Delivery


class EventsSink(LineSink):
    """Writes one JSON object an event, as UTF-8; see `perception.events.event.Event`."""

    def write(self, prediction: Prediction) -> None:
        for event in prediction.events:
            self._file.write(f"{event.to_json()}\n".encode())


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
