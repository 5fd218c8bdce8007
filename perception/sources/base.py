"""The base class of all sources, which are iterated for frames.

A source is its own iterator and is read once, by one thread at a time; ``close`` may come from any thread.
"""

from __future__ import annotations

import logging
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType

from perception.errors import UsageError
from perception.sources.thinner import Thinner
from perception.types import Frame, SourceInfo

log = logging.getLogger("perception")

JOIN_TIMEOUT = 2.0
"""Seconds that ``close`` waits for a read in progress. Reader threads are daemons, so none outlives the process."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The frames of a source that are wanted.

    Attributes:
        start: seconds after the source's beginning; the first frame is the first one not before it.
        duration: seconds from ``start``; frames at ``start + duration`` and later are left out. None: to the end.
        every: only each ``every``-th frame, counted from the first one.
        max_frames: at most this many frames. None: all.

    Raises:
        UsageError: a value out of its range.
    """

    start: float = 0.0
    duration: float | None = None
    every: int = 1
    max_frames: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and self.start >= 0):
            raise UsageError(f"start must be 0 or more seconds, not {self.start:g}")
        if self.duration is not None and not (math.isfinite(self.duration) and self.duration > 0):
            raise UsageError(f"duration must be more than 0 seconds, not {self.duration:g}")
        if self.every < 1:
            raise UsageError(f"every must be 1 or more, not {self.every}")
        if self.max_frames is not None and self.max_frames < 1:
            raise UsageError(f"max_frames must be 1 or more, not {self.max_frames}")

    @property
    def end(self) -> float:
        """Seconds after the source's beginning at which reading stops; infinity where it does not."""
        return math.inf if self.duration is None else self.start + self.duration

    @property
    def whole(self) -> bool:
        """True where no part of the source is cut off by time."""
        return self.start == 0 and self.duration is None

    def count(self, frames: int | None, fps: Fraction | None) -> int | None:
        """Return how many frames will come of ``frames`` frames at ``fps``; None where it cannot be told."""
        if not self.whole:
            if fps is None:
                return self.max_frames if frames is None else None
            in_window = None if self.duration is None else math.ceil(Fraction(self.duration) * fps)
            if frames is not None:
                after_start = max(0, frames - math.ceil(Fraction(self.start) * fps))
                in_window = after_start if in_window is None else min(in_window, after_start)
            frames = in_window
        if frames is None:
            return self.max_frames
        frames = -(-frames // self.every)
        return frames if self.max_frames is None else min(frames, self.max_frames)


class Source(ABC):
    """Frames from somewhere. Use as a context manager and iterate once.

    Attributes:
        info: what is known before the first frame.
        dropped: frames that a live source gave and nobody took in time; always 0 for files.
        corrupt: packets or images that could not be decoded and were skipped.
        unreadable: the images among them that are files, by path.
    """

    info: SourceInfo

    def __init__(self) -> None:
        self.corrupt = 0
        self.unreadable: list[str] = []
        self._closing = False
        self._reading = threading.Lock()
        self._frames: Iterator[Frame] | None = None

    @property
    def dropped(self) -> int:
        return 0

    @property
    def received(self) -> int:
        """Frames that came to a live source, those included that it does not give, being asked to; 0 where it gives all
        that come."""
        return 0

    @property
    def thinner(self) -> Thinner | None:
        """What frames can be asked of that are further apart; None: it gives each."""
        return None

    @abstractmethod
    def _read(self) -> Iterator[Frame]:
        """Yield the frames, once. Runs inside ``__next__``, under the lock that keeps ``close`` out."""

    def _interrupt(self) -> None:  # noqa: B027 (most sources have nothing to wake)
        """Make a read in progress return soon. Called by ``close`` without the lock."""

    def _release(self) -> None:  # noqa: B027 (some sources hold nothing)
        """Give back what the source holds. Called once, when no read is in progress."""

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        """Return the next frame.

        Raises:
            StopIteration: at the end, or after ``close``.
            SourceError: the source fails; what came before it stays valid.
        """
        with self._reading:
            if self._closing:
                raise StopIteration
            if self._frames is None:
                self._frames = self._read()
            return next(self._frames)

    def close(self) -> None:
        """Stop reading and give back files, devices and threads. Safe to call twice and from any thread."""
        if self._closing:
            return
        self._closing = True
        self._interrupt()
        # A read that is stuck in a codec or a driver keeps its lock: leave it to its daemon thread rather than hang.
        if self._reading.acquire(timeout=JOIN_TIMEOUT):
            try:
                self._release()
            finally:
                self._frames = None
                self._reading.release()
        else:
            log.warning("%s: a read did not finish within %g s; abandoned", self.info.uri, JOIN_TIMEOUT)

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
