"""A viewer's place at a stream."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Protocol

from perception.server.streams.views import RenderedView, Result
from perception.types import Prediction


class Publisher(Protocol):
    """The side of a stream that its subscriptions know."""

    @property
    def over(self) -> bool:
        """True once nothing will come any more."""

    def newer_than(self, number: int, timeout: float | None, closed: Callable[[], bool]) -> Result | None:
        """The newest result if its number is above ``number``, waiting for one; None once ``closed`` or too late."""

    def leave(self, subscription: Subscription) -> None:
        """A subscription is closed."""


class Subscription:
    """One viewer's place at a stream. It holds no frames: ``next`` gives the newest one, and what came between is lost.

    Attributes:
        view: see `perception.server.streams.views`.
        interval_s: seconds between two results that are wanted.
        missed: results that came and went between two calls of ``next``.
    """

    def __init__(self, stream: Publisher, view: RenderedView, interval_s: float = 0.0) -> None:
        self.view = view
        self.interval_s = interval_s
        self.missed = 0
        self._stream = stream
        self._seen = -1
        self._closed = False

    @property
    def over(self) -> bool:
        """True once nothing will come any more."""
        return self._closed or self._stream.over

    def next(self, timeout: float | None = None, picture: bool = True) -> Prediction | None:
        """The newest result that was not given yet.

        Args:
            timeout: seconds to wait for one; None: as long as it takes.
            picture: with its annotated picture, which is drawn for the first one who asks.

        Returns:
            a prediction, shared by all who have the same options: never write into it. None where nothing came in
            time, or nothing will come any more (``over``).
        """
        result = self._stream.newer_than(self._seen, timeout, lambda: self._closed)
        if result is None:
            return None
        number, prediction = self.view.of(result, picture)
        if self._seen >= 0:
            self.missed += number - self._seen - 1
        self._seen = number
        return prediction

    def close(self) -> None:
        """Leave. Wakes who waits in ``next``."""
        if not self._closed:
            self._closed = True
            self._stream.leave(self)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
