"""Clocks for whatever takes one, so that tests need not sleep."""

from __future__ import annotations

import time


class ManualClock:
    """Stands still until it is advanced."""

    def __init__(self) -> None:
        self._seconds = 1000.0

    def __call__(self) -> float:
        return self._seconds

    def advance(self, seconds: float) -> None:
        self._seconds += seconds


class ShiftedClock:
    """Runs as the machine's own does, and can be advanced."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        self._ahead += seconds
