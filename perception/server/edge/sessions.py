"""Login sessions of browsers: each is a secret in a cookie, which the server remembers until logout."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

COOKIE = "perception_session"
"""Name of the cookie; under a path of a proxy that path is part of it, see `cookie_name`."""
SESSION_S = 12 * 3600
"""Seconds that a session lasts, unless it is logged out or the server stops."""

MOST = 10_000
"""Limit on the number of sessions; the oldest is dropped first."""


def cookie_name(root_path: str) -> str:
    """Return the name of the cookie of a server under ``root_path``: servers of one host have cookies of their own."""
    return COOKIE + root_path.replace("/", "-")


class Sessions:
    """The current sessions.

    Args:
        clock: seconds, of any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: OrderedDict[bytes, float] = OrderedDict()  # by the cookie's digest, oldest first

    def begin(self) -> str:
        """Begin a session.

        Returns:
            the value of its cookie.
        """
        cookie = secrets.token_urlsafe(32)
        self._until[_digest(cookie)] = self._clock() + SESSION_S
        while len(self._until) > MOST:
            self._until.popitem(last=False)
        return cookie

    def holds(self, cookie: str) -> bool:
        """Return whether a cookie belongs to a valid session."""
        until = self._until.get(_digest(cookie))
        return until is not None and until > self._clock()

    def end(self, cookie: str) -> None:
        """End a session; copies of its cookie become invalid, too."""
        self._until.pop(_digest(cookie), None)


def _digest(cookie: str) -> bytes:
    """Hash a cookie, so that the time of a lookup tells nothing about valid ones."""
    return hashlib.sha256(cookie.encode()).digest()
