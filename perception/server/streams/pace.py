"""Which frames of a stream are looked at, where not all of them are to be."""

from __future__ import annotations

import math


class Pace:
    """Picks frames at a rate, evenly by their own time; on average never more, and as many if so many come.

    Attributes:
        fps: frames a second; None: all of them.
    """

    def __init__(self, fps: float | None = None) -> None:
        self.fps = fps
        self._due = -math.inf

    def takes(self, time: float) -> bool:
        """Whether the frame of that time, in seconds, is one of them. Times rise."""
        fps = self.fps
        if fps is None:
            self._due = -math.inf
            return True
        step = 1 / fps
        if time < self._due - 0.01 * step:  # a sum of steps is not exact
            return False
        # From when it was due, or the unsteady times of a camera would cost frames; a gap is not caught up with.
        self._due = time + step if time > self._due + 2 * step else max(self._due + step, time)
        return True
