"""Logs that no client can fill: so many lines of a kind in a minute, and then how many were left out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

LINES = 10
PER_S = 60.0
KINDS = 200
"""Kinds of lines that are told apart; all further ones are one kind."""


@dataclass
class _Kind:
    since: float
    written: int = 0
    left_out: int = 0


class Sparing:
    """Counts lines by kind.

    Args:
        clock: seconds, of any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[str, _Kind] = {}

    def left_out(self, kind: str) -> int | None:
        """Whether a line may be written now.

        Returns:
            how many were left out before this one; None: this one is to be left out, too.
        """
        if len(self._kinds) >= KINDS and kind not in self._kinds:
            kind = ""
        now = self._clock()
        known = self._kinds.setdefault(kind, _Kind(now))
        if now - known.since >= PER_S:
            known.since, known.written = now, 0
        if known.written >= LINES:
            known.left_out += 1
            return None
        known.written += 1
        before, known.left_out = known.left_out, 0
        return before


class SparingFilter(logging.Filter):
    """A logger's filter that leaves out what comes too often. What differs only in its arguments is of one kind.

    Args:
        clock: seconds, of any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._lines = Sparing(clock)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written."""
        left_out = self._lines.left_out(f"{record.levelno} {record.msg}"[:200])
        if left_out:
            record.msg, record.args = f"{record.getMessage()} ({left_out} more like it were left out)", None
        return left_out is not None
