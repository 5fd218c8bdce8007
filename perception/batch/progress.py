"""How far a batch is, and how long it takes yet."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

SETTLED_S = 5.0
"""Seconds of work before anything is said of the time that is left."""
WINDOW_S = 300.0
"""Seconds over which the rate is measured."""


@dataclass(frozen=True)
class Progress:
    """How far a batch is.

    Attributes:
        done: sources that are behind it, those of earlier runs too.
        total: all sources.
        part: the part of this run's work that is done, in 0..1.
        remaining_s: seconds that it takes yet, by the rate of the last minutes; None while that is not known.
    """

    done: int
    total: int
    part: float
    remaining_s: float | None


class Meter:
    """Measures the rate of the work. Its unit is the byte of a source: how many frames there are is not known before.

    Args:
        sizes: bytes of the sources to be done, by number.
        total: all sources, those that were done before too.
    """

    def __init__(self, sizes: Mapping[int, int], total: int) -> None:
        self._left = {number: max(1, size) for number, size in sizes.items()}
        self._whole = sum(self._left.values())
        self._total = total
        self._seen: deque[tuple[float, float]] = deque()

    def ended(self, number: int) -> None:
        """Count a source as done."""
        self._left.pop(number, None)

    def measure(self, parts: Mapping[int, float]) -> Progress:
        """Return how far it is.

        Args:
            parts: of the sources in work that are done, by number.
        """
        left = sum(size * (1 - parts.get(number, 0.0)) for number, size in self._left.items())
        done, now = self._whole - left, time.monotonic()
        if done > 0 or self._seen:  # what came before the first frame, such as starting processes, comes once
            self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[0][0] > WINDOW_S:
            self._seen.popleft()
        remaining = None
        if self._seen:
            began, before = self._seen[0]
            if now - began >= SETTLED_S and done > before:
                remaining = left * (now - began) / (done - before)
        part = done / self._whole if self._whole else 1.0
        return Progress(self._total - len(self._left), self._total, part, remaining)
