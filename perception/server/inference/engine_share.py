"""How often the engine gets to a live client, where more frames come than it has time for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

SCARCE_S = 0.25
"""Turns that are further apart than this are few beside the frames of any camera."""

MANY = 4
"""While fewer clients than this share the engine, it is slow rather than crowded: decoding their frames costs little
beside what the network takes, and these had better be as new as can be."""

MOST_S = 4.0
"""Frames are never asked for further apart, however busy the machine is."""

FORGOTTEN_S = 5.0
"""Clients that had no turn for so long, and in the time of two rounds, are gone."""

_ENOUGH = 0.7
"""Part of what is scarce, below which turns are not scarce any more."""

_SURE = 8
_WAITED = 0.35
_LOST = 1.05
_GOT = 0.99
"""Factors of the time between two frames of a client: after a turn before which one of its frames was replaced, or had
waited for more than so much of that time, and after one before which that was not so. At about one turn in six of the
first kind the engine hardly ever waits, and most frames have their turn soon after they came."""

_MOST = 1.2
"""They are asked for no further apart than so many times the turns of those that lose frames."""


class EngineShare:
    """Finds how far apart frames of live clients need to be so that nearly all have their turn. Any thread may tell.

    It is one for all clients of an engine, so that all have as much.

    Args:
        clock: seconds.

    Attributes:
        interval_s: seconds between two frames of a client that are enough; 0: there are turns enough for all.
        frame_s: seconds that the engine takes for a frame; set by its scheduler.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.interval_s = 0.0
        self.frame_s = 0.0
        self._now = clock
        self._lock = threading.Lock()
        self._turns: dict[str, float] = {}
        self._apart_s = 0.0
        self._scarce = 0

    def turn(self, client: str, lost: bool, waited_s: float = 0.0, weight: float = 1.0, eager: bool = True) -> None:
        """A client has had a turn.

        Args:
            client: who it is.
            lost: a frame of its was replaced by a newer one since the last one, or came too late.
            waited_s: seconds from when its frame came to when its turn began.
            weight: of the client.
            eager: it takes all the turns it can get.
        """
        with self._lock:
            now = self._now()
            last = self._turns.pop(client, None)
            self._turns[client] = now  # behind all others
            self._forget(now)
            lost = lost or (self.interval_s > 0 and weight * waited_s > _WAITED * self.interval_s)
            if last is None or not (lost or eager):
                return
            if lost:  # else it could have had more
                apart_s = weight * (now - last)
                self._apart_s += 0.1 * (apart_s - self._apart_s) if self._apart_s else apart_s
            scarce_s = max(SCARCE_S, MANY * self.frame_s)
            if self.interval_s:
                crowd_s = len(self._turns) * self.frame_s  # if each of them had a frame waiting all the time
                most = min(_MOST * self._apart_s, _MOST * crowd_s, MOST_S)
                wanted = min(self.interval_s * (_LOST if lost else _GOT), most)
                self.interval_s = wanted if wanted >= _ENOUGH * scarce_s else 0.0
            else:
                self._scarce = self._scarce + 1 if lost and self._apart_s > scarce_s else 0
                if self._scarce >= _SURE:
                    self.interval_s, self._scarce = min(self._apart_s, MOST_S), 0

    def _forget(self, now: float) -> None:
        """Forget clients that are gone."""
        oldest = now - max(FORGOTTEN_S, 2 * len(self._turns) * self.frame_s)
        while self._turns[first := next(iter(self._turns))] < oldest:
            del self._turns[first]
