"""Pauses before something that failed is tried again."""

from __future__ import annotations

import random


def back_off(failures: int, first_s: float, longest_s: float) -> float:
    """Return the pause after that many failures in a row: exponential back-off with jitter.

    Args:
        failures: at least 1.
        first_s: the pause after the first failure in seconds, doubled with each further one.
        longest_s: the longest pause in seconds.

    Returns:
        seconds, less up to a third by chance, so that all who lost the same connection do not come back at once.
    """
    return min(first_s * 2.0 ** min(failures - 1, 30), longest_s) * random.uniform(2 / 3, 1)
