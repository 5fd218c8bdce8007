"""How often the engine gets to a live client, where more frames come than it has time for."""

from __future__ import annotations

import threading

SCARCE_S = 0.25
"""Turns that are further apart than this are few beside the frames of any camera."""

MANY = 4
"""While fewer clients than this share the engine, it is slow rather than crowded: decoding their frames costs little
beside what the network takes, and these had better be as new as can be."""

_ENOUGH = 0.6
"""Part of these, below which clients are no longer short of turns."""

_SURE = 8
_LOST = 1.1
_GOT = 0.99
"""Factors of the time between two frames of a client, after a turn before which one of its frames was replaced, and
after one before which none was. So about one turn in ten is of the first kind, which tells that the engine never waits,
while most frames have their turn soon after they came."""


class EngineShare:
    """Finds how far apart frames of live clients need to be so that nearly all have their turn. Any thread may tell.

    It is one for all clients of an engine, so that all have as much.

    Attributes:
        interval_s: seconds between two frames of a client that are enough; 0: there are turns enough for all.
        frame_s: seconds that the engine takes for a frame; set by its scheduler.
    """

    def __init__(self) -> None:
        self.interval_s = 0.0
        self.frame_s = 0.0
        self._lock = threading.Lock()
        self._apart_s = 0.0
        self._scarce = 0

    def turn(self, apart_s: float, lost: bool) -> None:
        """A client that takes all the turns it can get has had one.

        Args:
            apart_s: seconds since its last one, as if its weight were 1.
            lost: a frame of its was replaced by a newer one meanwhile, or came too late.
        """
        with self._lock:
            if lost:  # else it could have had more
                self._apart_s += 0.1 * (apart_s - self._apart_s) if self._apart_s else apart_s
            scarce_s = max(SCARCE_S, MANY * self.frame_s)
            if self.interval_s:
                wanted = min(self.interval_s * _LOST, self._apart_s) if lost else self.interval_s * _GOT
                self.interval_s = wanted if wanted >= _ENOUGH * scarce_s else 0.0
            else:
                self._scarce = self._scarce + 1 if lost and self._apart_s > scarce_s else 0
                if self._scarce >= _SURE:
                    self.interval_s, self._scarce = self._apart_s, 0
