"""A recording played at the speed of the clock."""

from __future__ import annotations

import time
from collections.abc import Callable

LATE_S = 0.25
"""A frame may come so much too late before times are stretched."""

LONGEST_PAUSE_S = 10.0
"""No pause between two frames is longer."""


class RealTime:
    """Waits until each frame of a recording is due.

    Who watches something live expects that its times go on as fast as the clock. So where frames come too late, because
    the machine is too slow, their times are stretched, and a long pause is shortened.

    Args:
        first: time of the first frame in seconds, which is due now.
        clock: the time in seconds.
        sleep: waits for some seconds.
    """

    def __init__(
        self,
        first: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        # Moments at which the recording's time 0 was played, and would have been to be where it is now.
        self._zero = self._began = clock() - first

    def wait(self, seconds: float) -> float:
        """Wait until the frame with this time is due; return the time that it is played with."""
        wait = self._began + seconds - self._clock()
        if wait > LONGEST_PAUSE_S:
            self._began -= wait - LONGEST_PAUSE_S
            wait = LONGEST_PAUSE_S
        elif wait < -LATE_S:
            self._began -= wait + LATE_S
        if wait > 0:
            self._sleep(wait)
        return self._began + seconds - self._zero
