"""Which frames of a stream are looked at, where not all of them are to be."""

from __future__ import annotations

import math


class Pace:
    """Picks frames a step apart, evenly by their own time; on average never more, and as many if so many come.

    Args:
        step_s: see the attribute.

    Attributes:
        due: when the next one is, in seconds.
    """

    def __init__(self, step_s: float = 0.0) -> None:
        self.due = -math.inf
        self._step_s = step_s

    @property
    def step_s(self) -> float:
        """Seconds from one frame that is picked to the next; 0: all are."""
        return self._step_s

    @step_s.setter
    def step_s(self, seconds: float) -> None:
        if seconds < self._step_s:  # the next one is not as late as it was to be
            self.due += seconds - self._step_s
        self._step_s = seconds

    def takes(self, time: float, early: float = 0.01) -> bool:
        """Whether the frame of that time, in seconds, is one of them. Times rise.

        Args:
            time: of the frame.
            early: how long before it is due it may come, in steps; a sum of steps is not exact.
        """
        step = self._step_s
        if not step:
            self.due = -math.inf
            return True
        if time < self.due - early * step:
            return False
        # From when it was due, or the unsteady times of a camera would cost frames; a gap is not caught up with.
        self.due = time + step if time > self.due + 2 * step else max(self.due + step, time)
        return True
