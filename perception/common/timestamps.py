"""Reliable time stamps, derived from those of a source.

Pure arithmetic, no clock and no codec. `Timeline` is for what is recorded: stamps in whole units, and the next few
where they are known. `ArrivalTimeline` is for what comes live: seconds, and when the frame came.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import TypeVar

Item = TypeVar("Item")

JUMP_S = 10
"""A clock of a joined or broadcast recording that goes ahead by more has been set, or another recording begins."""

LOOK_AHEAD = 4
"""Stamps that are looked at to tell a few wrong ones from a clock that was set."""

_NEAR_S = Fraction(1, 4)  # a stamp so little ahead of the last one is not looked at any further
_LATE_JOINED_S = Fraction(1, 10)  # as FFmpeg's own transcoding, of containers whose clock may jump
_LATE_S = 1


_TS_DISCONT = 0x0200  # AVFMT_TS_DISCONT


def clock_may_jump(name: str, flags: int) -> bool:
    """Return whether a format, by its FFmpeg name and flags, holds joined or broadcast recordings."""
    return bool(flags & _TS_DISCONT) or name == "flv"


class Timeline:
    """Stamps of frames in the order shown, made to increase without invented gaps; sane ones are left as they are.

    A stamp far off from which the clock comes back is a single wrong one, and is placed just behind the last frame. A
    clock that goes back for good begins a new stretch, which continues one frame after the last one. One that goes
    ahead for good does so too in containers that are joined or broadcast (``joins``): their clocks are set, wrap, and
    differ between recordings. Elsewhere a gap is a genuine pause, and stays. A stamp that is merely repeated or a
    little late is moved just behind the last one.

    Args:
        time_base: seconds per unit.
        step: units for which a frame is shown.
        joins: whether the container's clock may jump.

    Attributes:
        shift: units that are added to the stamps of the present stretch.
        stretch: how many stretches came before this one.
        outlier: whether the last stamp was a single wrong one.
    """

    def __init__(self, time_base: Fraction, step: int, joins: bool) -> None:
        self.shift = 0
        self.stretch = 0
        self.outlier = False
        self._step = step
        self._joins = joins
        self._near = max(int(_NEAR_S / time_base), 3 * step)
        self._late = int((_LATE_JOINED_S if joins else _LATE_S) / time_base)
        self._jump = max(int(JUMP_S / time_base), 10 * step)
        self._second = int(1 / time_base)
        self._last: int | None = None

    def is_odd(self, stamp: int) -> bool:
        """Return whether `place` needs the stamps that follow this one."""
        return self._last is None or not 0 < stamp + self.shift - self._last <= self._near

    def place(self, stamp: int, following: Sequence[int] = ()) -> int:
        """Return the reliable stamp, later than the one before.

        Args:
            stamp: the next one, as stored.
            following: those that come after it, as far as they are known; see `is_odd`.
        """
        self.outlier = False
        last = self._last
        if last is None:
            placed = self._first(stamp, following)
        else:
            ahead = stamp + self.shift - last
            if 0 < ahead <= self._near:
                placed = last + ahead
            elif -self._late <= ahead <= 0:
                placed = last + 1
            elif returned := self._returned(ahead, [after + self.shift - last for after in following[:LOOK_AHEAD]]):
                self.outlier = True
                placed = last + max(1, min(self._step, returned // 2))
            elif ahead < 0 or (self._joins and ahead > self._jump):
                placed = last + self._step
                self.shift = placed - stamp
                self.stretch += 1
            else:
                placed = last + ahead
        self._last = placed
        return placed

    def _first(self, stamp: int, following: Sequence[int]) -> int:
        """Return the first stamp; if those after it agree that they come well before it, one just before them."""
        after = following[:LOOK_AHEAD]
        agree = len(after) > 1 and all(0 < b - a <= self._jump for a, b in pairwise(after))
        self.outlier = agree and stamp - after[0] > self._second
        return after[0] - self._step if self.outlier else stamp

    def _returned(self, ahead: int, following: Sequence[int]) -> int:
        """Return how far ahead of the last frame the clock is if it recovers at once from a wrong stamp, else 0.

        Args:
            ahead: how far ahead of the last frame the stamp lies; negative: behind it.
            following: the same of those that follow.
        """
        before = ahead
        for after in following:
            turned = before - after if ahead > 0 else after - before
            enough = 2 * turned >= ahead if ahead > 0 else turned > max(-ahead // 2, 3 * self._step // 2)
            if enough and 0 < after <= self._jump and (ahead < 0 or after < ahead):
                return after
            before = after
        return 0


def believed(items: Iterable[Item], stamp_of: Callable[[Item], int], timeline: Timeline) -> Iterator[tuple[int, Item]]:
    """Yield things with their stamps from `Timeline.place`, with those that follow where it needs them.

    Args:
        items: in the order shown. Where they end with an error, those that are held come first.
        stamp_of: the stamp of each, as stored.
        timeline: places them.
    """
    source = iter(items)
    held: deque[Item] = deque()
    error: Exception | None = None
    ended = False
    while True:
        while not ended and (not held or (len(held) <= LOOK_AHEAD and timeline.is_odd(stamp_of(held[0])))):
            try:
                held.append(next(source))
            except StopIteration:
                ended = True
            except Exception as failure:
                error, ended = failure, True
        if not held:
            break
        item = held.popleft()
        yield timeline.place(stamp_of(item), [stamp_of(after) for after in held]), item
        del item  # while the next one is waited for, nothing here keeps the memory of this one
    if error is not None:
        raise error


class ArrivalTimeline:
    """Times of a live source's frames: its own stamps as long as they agree with the time of arrival.

    Stamps say better than arrival when a picture was taken, because networks deliver in fits. But their clock may run
    in another unit than is announced, or jump, or be a guess; then arrival decides. The time told never strays from
    that of arrival by more than `HOLD_S`, so what is recorded lasts as long as the clock on the wall says.

    Args:
        stamped: whether the source has a clock at all; else arrival alone counts.
    """

    HOLD_S = 0.5
    FAR_S = 5.0
    """A stamp further off than this is ignored, and after `MAX_STRANGERS` of them the clock was set."""
    MAX_STRANGERS = 3
    MOST_SETTINGS = 3
    """A clock that is set more often is ignored."""
    MOST_GATHERED_S = 10.0
    """Longest backlog in seconds, as servers and FFmpeg's probing may hold it ready at the beginning."""
    MOST_GATHERED_STEP_S = 0.2
    """Frames of a backlog are nearer to each other, or their clock runs in another unit than it says."""

    _LEAST_S = 0.001  # from one frame to the next
    _PULLING_S = 1.0
    _PULLED_FRAMES = 8

    def __init__(self, stamped: bool = True) -> None:
        self._stamped = stamped
        self._began: float | None = None
        self._shift: float | None = 0.0
        self._lead = 0.0
        self._gathered = True
        self._last = 0.0
        self._last_arrival = 0.0
        self._strangers = 0
        self._settings = 0
        self._pull: tuple[float, int, bool] | None = None  # since when, how many frames, which way

    def place(self, stamp: float | None, arrived: float, waited: bool = True) -> float:
        """Return the seconds since the first frame, more than for the frame before.

        Args:
            stamp: the source's own, in seconds; None where it has none.
            arrived: when the frame came, in seconds of a clock that only runs ahead.
            waited: whether it had to be waited for; what lay ready was taken earlier than it came.
        """
        if self._began is None:
            self._began = self._last_arrival = arrived
            self._shift = None if stamp is None else -stamp
            return 0.0
        arrival = arrived - self._began + self._lead
        told = arrival
        if self._stamped and stamp is not None:
            if self._shift is None:  # the first frame had no stamp: others may count from it
                self._shift = 0.0 if abs(stamp - arrival) <= self.HOLD_S else arrival - stamp
            told = self._compared(stamp, arrived, arrival, waited)
        self._last = max(told, self._last + self._LEAST_S)
        self._last_arrival = arrived
        return self._last

    def _compared(self, stamp: float, arrived: float, arrival: float, waited: bool) -> float:
        assert self._shift is not None
        ahead = stamp + self._shift - arrival
        step = stamp + self._shift - self._last
        self._gathered = self._gathered and not waited and step <= self.MOST_GATHERED_STEP_S
        if self._gathered and 0 < ahead <= self.MOST_GATHERED_S - self._lead:
            self._lead += ahead
            return arrival + ahead
        if abs(ahead) > self.FAR_S:
            self._strangers += 1
            if self._strangers < self.MAX_STRANGERS:
                return self._last + arrived - self._last_arrival
            self._settings += 1
            self._stamped = self._settings <= self.MOST_SETTINGS
            self._strangers = 0
            self._shift = arrival - stamp
            return arrival
        self._strangers = 0
        if abs(ahead) <= self.HOLD_S:
            self._pull = None
            return arrival + ahead
        since, frames, early = self._pull or (arrived, 0, ahead > 0)
        self._pull = (since, frames + 1, early) if early == (ahead > 0) else (arrived, 1, ahead > 0)
        # A clock that must be held back, or drawn along, at each frame does not tell seconds.
        self._stamped = arrived - self._pull[0] < self._PULLING_S or self._pull[1] < self._PULLED_FRAMES
        told = arrival + (self.HOLD_S if ahead > 0 else -self.HOLD_S)
        self._shift = told - stamp
        return told
