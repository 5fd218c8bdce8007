"""The connections of a stream to its source, one after the other."""

from __future__ import annotations

from collections.abc import Callable

from perception.server.streams.capture import Capture, Clock
from perception.sources.base import Source
from perception.types import Frame

MAX_ABANDONED = 3
"""Connections stuck in a driver or a library, beyond which a stream fails instead of leaving another thread behind."""


class Connections:
    """Opens the connections of one stream and keeps count of those that hang. One thread opens and closes them.

    Args:
        connect, deliver, changed, loop, name: see `Capture`.
        now: seconds, of any beginning.

    Attributes:
        newest: the one that was opened last; None before the first.
    """

    def __init__(
        self,
        connect: Callable[[], Source],
        deliver: Callable[[Frame], None],
        changed: Callable[[], None],
        now: Callable[[], float],
        *,
        loop: bool = False,
        name: str = "",
    ) -> None:
        self.newest: Capture | None = None
        self._connect = connect
        self._deliver = deliver
        self._changed = changed
        self._clock = Clock(now)
        self._loop = loop
        self._name = name
        self._abandoned: list[Capture] = []

    @property
    def hanging(self) -> int:
        """How many were closed and have not ended, where they are too many to open another one; else 0."""
        return len(self._abandoned) if len(self._abandoned) >= MAX_ABANDONED else 0

    @property
    def alive(self) -> bool:
        """True while a thread of one runs."""
        return any(each.alive for each in (*self._abandoned, *([self.newest] if self.newest is not None else [])))

    @property
    def decoding(self) -> tuple[str, float]:
        """Which frames of the source are decoded: ``all``, ``some`` or ``key frames``; and which part, in 0..1."""
        thinner = None if self.newest is None else self.newest.thinner
        if thinner is None:
            return "all", 1.0
        share = thinner.share
        return "key frames" if thinner.keys_only else "all" if share == 1 else "some", share

    @property
    def let_go(self) -> bool:
        """True once all that were closed are done with their source."""
        return all(each.ended for each in self._abandoned)

    def open(self) -> Capture:
        """Begin to connect."""
        self.newest = Capture(
            self._connect, self._deliver, self._changed, self._clock, loop=self._loop, name=self._name
        )
        return self.newest

    def close(self, capture: Capture) -> None:
        """End one. Waits for a read in progress, but not for long."""
        capture.stop()
        self._abandoned = [each for each in (*self._abandoned, capture) if each.alive]
