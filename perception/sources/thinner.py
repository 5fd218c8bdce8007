"""Which packets of a live stream are decoded, where not all of its frames are looked at.

A frame can be decoded only after all that it refers to, back to its key frame. So whoever wants a frame each second of
a camera with a key frame each second needs the key frames alone, and whoever wants one each 0.7 s the first part of
most groups of pictures. What lies between the last frame of a group that is wanted and the next key frame is held
back, compressed, until that key frame makes it worthless; where the key frame does not come when it is expected, as
with cameras that send one where something moves, what was held back is decoded after all, and nothing is lost.

    thinner = Thinner(left_out)
    thinner.spacing = Spacing(enough=1.0)              # from any thread: a frame a second is enough
    for packet in packets:
        due, anew = thinner.admit(packet, seconds)     # mostly the packet itself, nothing, or all that was held back
        ...                                            # decode these; begin anew where it says so
            if thinner.takes(frame.key_frame): ...     # frames are wanted about so far apart
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from perception.sources.pace import Pace

_GROUPS = 4
"""Groups of pictures by which the length of the next one is judged."""

_LONG = 4.0
"""Frames that are wanted more often than so many times in a group of pictures are taken as they come: too little could
be left out, and they would be uneven for nothing."""

_EARLY = 0.5
_LATE = 0.75
"""A key frame may take the place of a frame that is due, by so many steps early; what is held back waits so many."""

_MOST_HELD_BYTES = 16 << 20


def _nobody() -> None:
    pass


class Spacing(NamedTuple):
    """How far apart frames are wanted, in seconds.

    Attributes:
        least: frames that are nearer are not looked at.
        enough: frames need not be nearer, where decoding fewer costs less.
    """

    least: float = 0.0
    enough: float = 0.0


class Due(NamedTuple):
    """What is to be decoded now.

    Attributes:
        packets: these, in order; only what the last one gives is wanted.
        anew: what the decoder knows is worthless: they begin with a key frame, and what came before it is missing.
    """

    packets: list[Any]
    anew: bool


class Thinner:
    """Chooses packets, and frames of those that are decoded. One thread drives it.

    Args:
        left_out: called for each packet that is held back.

    Attributes:
        spacing: how far apart frames are wanted from now on; set by any thread.
        possible: packets may be left out; where not, only frames are chosen.
    """

    def __init__(self, left_out: Callable[[], None] = lambda: None) -> None:
        self.possible = True
        self._left_out = left_out
        self.spacing = Spacing()
        self._now = 0.0
        self._pace = Pace()
        self._key_at: float | None = None
        self._key_stamp: float | None = None
        self._groups: deque[float] = deque(maxlen=_GROUPS)
        self._holding = False
        self._held: list[Any] = []
        self._held_bytes = 0
        self._missing = False
        self._decoded: deque[tuple[int, int]] = deque(maxlen=_GROUPS)  # of past groups: packets decoded, and all
        self._counts = [0, 0]
        self._keys_only = False
        self._beyond_key = False

    def end(self) -> None:
        """No more packets come: what is held back goes, and nobody is told any more."""
        self._held, self._held_bytes = [], 0
        self._left_out = _nobody

    @property
    def share(self) -> float:
        """Part of the packets that was decoded, of the latest groups of pictures, in 0..1."""
        groups = [*self._decoded]
        total = sum(count for _, count in groups)
        return sum(decoded for decoded, _ in groups) / total if total else 1.0

    @property
    def keys_only(self) -> bool:
        """True where but key frames came out of the latest group of pictures, and there was more in it."""
        return self._keys_only

    def admit(self, packet: Any, now: float, stamp: float | None = None) -> Due:
        """Say what is to be decoded now that a packet has come.

        Args:
            packet: with ``is_keyframe`` and ``size``.
            now: seconds of a clock that only runs ahead, at which it is to be decoded.
            stamp: seconds of the stream's own clock, where it has one. Where decoding falls behind, ``now`` runs slower
                than that: groups would seem ever longer, so that less is left out, and it would fall behind further.
        """
        self._now = now
        step, due = self._update(), self._pace.due
        if packet.is_keyframe:
            self._begin_group(now, stamp)
        self._counts[1] += 1
        if not self._holding:
            self._counts[0] += 1
            return Due([packet], False)
        if packet.is_keyframe:
            self._missing |= bool(self._held)
            self._held, self._held_bytes = [], 0
        self._held.append(packet)
        self._held_bytes += packet.size
        key = packet.is_keyframe and now >= due - _EARLY * step
        over = not step or not self.possible or self._held_bytes > _MOST_HELD_BYTES
        if not (key or over or now > due + _LATE * step):
            self._left_out()
            return Due([], False)
        now_due = Due(self._held, self._missing)
        self._counts[0] += len(self._held)
        self._held, self._held_bytes, self._holding, self._missing = [], 0, False, False
        return now_due

    def takes(self, key_frame: bool) -> bool:
        """Whether a frame that the packet admitted last has given is wanted."""
        self._beyond_key |= not key_frame
        step = self._update()
        worth = self._worth(step)
        wanted = self._pace.takes(self._now, _EARLY + 0.1) if worth and key_frame else self._pace.takes(self._now)
        if worth and self.possible:
            assert self._key_at is not None
            next_key = self._key_at + max(self._groups)
            self._holding = self._now < next_key <= self._pace.due + _EARLY * step
        return wanted

    def _update(self) -> float:
        """Seconds between two frames that are wanted now."""
        least, enough = self.spacing
        self._pace.step_s = step = enough if enough > least and self._worth(enough) else least
        return step

    def _worth(self, step: float) -> bool:
        """Whether something is left out where a frame is wanted each ``step`` seconds."""
        return step > 0 and bool(self._groups) and _LONG * step >= max(self._groups)

    def _begin_group(self, now: float, stamp: float | None) -> None:
        if self._key_at is not None and now > self._key_at:
            passed = now - self._key_at
            told = 0.0 if stamp is None or self._key_stamp is None else stamp - self._key_stamp
            self._groups.append(min(passed, told) if told > 0 else passed)
            self._keys_only = self._counts[1] > 1 and not self._beyond_key
            self._decoded.append((self._counts[0], self._counts[1]))
        self._key_at, self._key_stamp = now, stamp
        self._counts = [0, 0]
        self._beyond_key = False
