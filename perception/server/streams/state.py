"""What state a stream is in."""

from __future__ import annotations

import logging
import threading
from typing import Literal

from perception.server.metrics import Metrics

log = logging.getLogger("perception")

State = Literal["connecting", "running", "stalled", "reconnecting", "paused", "ended", "failed"]

OVER: tuple[State, ...] = ("ended", "failed")
"""States that a stream does not leave."""


class StreamState:
    """The state of one stream. One thread enters states, any may look.

    Args:
        id: of the stream.
        metrics: told of each.
        changed: notified of each.

    Attributes:
        name: see `State`.
        message: one line on it; mostly empty.
        reconnects: how often it ran again after it was lost.
    """

    def __init__(self, id: str, metrics: Metrics, changed: threading.Condition) -> None:
        self.name: State = "connecting"
        self.message = ""
        self.reconnects = 0
        self._id = id
        self._metrics = metrics
        self._changed = changed

    @property
    def over(self) -> bool:
        """True in a state that is not left."""
        return self.name in OVER

    def enter(self, state: State, message: str = "") -> None:
        """Go to a state; to the same one with the same message, nothing happens."""
        if state == self.name and message == self.message:
            return
        if state == "running" and self.name == "reconnecting":
            self.reconnects += 1
            self._metrics.reconnected(self._id)
        if state in ("stalled", "reconnecting", "failed"):
            log.warning("stream %s: %s%s", self._id, state, f": {message}" if message else "")
        with self._changed:
            self.name, self.message = state, message
            self._changed.notify_all()
        self._metrics.stream_state(self._id, state)
