"""Threads that a test started, apart from those of a server that others are using."""

from __future__ import annotations

import threading


class NewThreads:
    """Threads started since this was made."""

    def __init__(self) -> None:
        self._before = set(threading.enumerate())

    def named(self, *prefixes: str) -> list[str]:
        """Names of those that run and are called like this."""
        return sorted(t.name for t in set(threading.enumerate()) - self._before if t.name.startswith(prefixes))
