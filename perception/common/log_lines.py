"""Lines of the log as JSON, and the request that a line belongs to."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from contextvars import ContextVar
from datetime import datetime, timezone
from typing import Any, TextIO

REQUEST: ContextVar[str | None] = ContextVar("perception_request", default=None)
"""Id of the HTTP request that this context answers; None outside of requests."""


def json_line(level: str, logger: str, message: str, seconds: float, **more: Any) -> str:
    """Make one line: a JSON object with ``time`` (UTC, ISO 8601), ``level``, ``logger``, ``message``, and ``request``.

    Args:
        level: such as ``warning``.
        logger: who says it.
        message: line breaks in it are escaped.
        seconds: since 1970.
        **more: further fields; those that are None are left out.
    """
    time = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    fields = {"time": time, "level": level, "logger": logger, "message": message, "request": REQUEST.get(), **more}
    return json.dumps({name: value for name, value in fields.items() if value is not None}, ensure_ascii=False)


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON; of an exception with its traceback, in ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        trace = self.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else None
        level = record.levelname.lower()
        return json_line(level, record.name, record.getMessage(), record.created, exception=trace)


class JsonPrinter(io.StringIO):
    """A text stream whose lines become lines of JSON on another one; ``error: ...`` and ``warning: ...`` are levels.

    Args:
        out: where they go.
        clock: seconds since 1970.
    """

    def __init__(self, out: TextIO, clock: Callable[[], float]) -> None:
        super().__init__()
        self._out = out
        self._clock = clock
        self._rest = ""

    def write(self, text: str) -> int:
        """Print the lines that are whole."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(str.strip, lines):
            level, colon, message = line.partition(": ")
            level, message = (level, message) if colon and level in ("error", "warning") else ("info", line)
            self._out.write(json_line(level, "perception.command", message, self._clock()) + "\n")
        self._out.flush()
        return len(text)
