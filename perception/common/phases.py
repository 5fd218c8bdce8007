"""Where the time of a start goes: what is done once, and when, for ``--debug``.

    with phase("kernels"):
        warmup()

Phases overlap where threads do, and lie in each other where one calls another.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MOST = 200
"""Phases that are kept, the latest ones: a server loads models for as long as it runs."""

STARTED = time.perf_counter() - time.process_time()
"""When the process began, nearly: until this module was imported it had one thread, which seldom waited."""

_noted: deque[tuple[str, float, float]] = deque(maxlen=MOST)


def note(what: str, began: float, ended: float | None = None) -> None:
    """Note a phase by ``time.perf_counter()`` when it began and ended; None: now."""
    _noted.append((what, began, time.perf_counter() if ended is None else ended))


@contextmanager
def phase(what: str) -> Iterator[None]:
    """Note when what is done inside begins and how long it takes, also where it fails."""
    began = time.perf_counter()
    try:
        yield
    finally:
        note(what, began)


def phase_rows() -> list[dict[str, Any]]:
    """Return what was noted as it began: ``what``, ``from_s``, seconds since the process began, and ``took_s``."""
    noted = sorted(_noted, key=lambda one: one[1])
    return [{"what": what, "from_s": began - STARTED, "took_s": ended - began} for what, began, ended in noted]
