"""Rate limit of log lines, so that clients cannot fill the log: a few of a kind per minute, then a count."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

LINES = 10
PER_S = 60.0
KINDS = 200
"""Number of kinds that are distinguished; all further ones count as one kind."""


@dataclass
class _Kind:
    since: float
    written: int = 0
    left_out: int = 0


class LogLimit:
    """Rate limit of log lines by kind.

    Args:
        clock: seconds, of any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[str, _Kind] = {}

    def left_out(self, kind: str) -> int | None:
        """Count a line, and decide whether it may be written.

        Returns:
            the number of lines left out before this one; None if this one must be left out, too.
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


class LogLimitFilter(logging.Filter):
    """Logging filter that leaves out lines that repeat too often, whatever their arguments.

    Args:
        clock: seconds, of any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._lines = LogLimit(clock)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is written."""
        left_out = self._lines.left_out(f"{record.levelno} {record.msg}"[:200])
        if left_out:
            record.msg, record.args = f"{record.getMessage()} ({left_out} more like it were left out)", None
        return left_out is not None
