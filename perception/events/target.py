"""What events are delivered to."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

from perception.events.outbox import Letter


class DeliveryError(Exception):
    """A target did not take an event; ``str(error)`` is one line without secrets.

    Args:
        message: what happened.
        retry_after: seconds that the target wants to be left alone.
        refused: id of an event that this target will never take, while it may take others.
    """

    def __init__(self, message: str, *, retry_after: float = 0.0, refused: str | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.refused = refused


class Target(ABC):
    """Takes events in the order in which they happened. One thread drives it.

    Attributes:
        name: what it is called in messages and in the outbox: the same over restarts, and without secrets.
        batch: events that it is offered at once.
        longest_pause_s: most seconds between two attempts.
    """

    batch: ClassVar[int] = 1
    longest_pause_s: ClassVar[float] = 300.0
    name: str

    @abstractmethod
    def deliver(self, letters: Sequence[Letter], accepted: Callable[[str], None]) -> None:
        """Deliver events, or some of them: those that are not accepted are offered again.

        Args:
            letters: the oldest events that are not accepted yet.
            accepted: called with the id of each event that the target has for good.

        Raises:
            DeliveryError: it takes none now, or one of them never.
        """

    def rest(self, woken: threading.Event, seconds: float) -> None:
        """Wait until there are events, at most ``seconds``; a connection is looked after meanwhile.

        Raises:
            DeliveryError: it would take none now.
        """
        woken.wait(seconds)

    def close(self) -> None:  # noqa: B027 (many have nothing to close)
        """Give up what is open. Called once, by the thread that drives it; raises nothing."""
