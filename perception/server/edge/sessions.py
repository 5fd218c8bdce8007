"""Logins of browsers: each is a secret that its cookie holds and the server remembers, until it is logged out."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

COOKIE = "perception_session"
SESSION_S = 12 * 3600
"""A login lasts so long, or until it is logged out, or the server stops."""

MOST = 10_000
"""Logins at once; the oldest one makes room."""


class Sessions:
    """Who is logged in.

    Args:
        clock: seconds, of any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: OrderedDict[bytes, float] = OrderedDict()  # by the cookie's digest, oldest first

    def begin(self) -> str:
        """Log somebody in.

        Returns:
            what the cookie holds.
        """
        cookie = secrets.token_urlsafe(32)
        self._until[_digest(cookie)] = self._clock() + SESSION_S
        while len(self._until) > MOST:
            self._until.popitem(last=False)
        return cookie

    def holds(self, cookie: str) -> bool:
        """Whether a cookie is of a login that lasts."""
        until = self._until.get(_digest(cookie))
        return until is not None and until > self._clock()

    def end(self, cookie: str) -> None:
        """Log out: the cookie is worth nothing any more, wherever a copy of it is."""
        self._until.pop(_digest(cookie), None)


def _digest(cookie: str) -> bytes:
    """What is looked up instead of a cookie, so that the time it takes tells nothing of those that there are."""
    return hashlib.sha256(cookie.encode()).digest()
