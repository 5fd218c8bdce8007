"""Throttling of logins: after a few wrong credentials, an address must wait before more of them are checked.

The wait doubles with each failure. Nothing waits inside the server for it: what comes too early is refused unchecked,
right or wrong, so that a thousand connections at once get no more guesses than one, and hold nothing. The same wrong
credentials again are refused without being counted: a program with an old token that asks every second does not lock
out its neighbours. Sessions of browsers continue meanwhile: their cookies cannot be guessed.
"""

from __future__ import annotations

import hashlib
import ipaddress
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from perception.server.problems import Busy

FREE = 5
"""Failures of an address until it must wait: typing errors have no consequences."""

FIRST_S, LONGEST_S = 0.5, 30.0
"""The first wait in seconds, and the longest."""

FORGET_S = 900.0
"""Seconds without a failure after which the failures of an address are forgotten."""

MOST = 10_000
"""Number of addresses remembered; the one that failed longest ago is dropped first."""

_REMEMBERED = 4
"""Number of wrong credentials remembered per address."""


@dataclass
class _Failures:
    count: int = 0
    latest: float = -math.inf
    until: float = -math.inf
    wrong: list[bytes] = field(default_factory=list)


class LoginThrottle:
    """Failed logins, by the address that they came from.

    Args:
        clock: seconds, of any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._failures: OrderedDict[str, _Failures] = OrderedDict()  # longest ago first

    def is_known(self, address: str, credentials: bytes) -> bool:
        """Return whether these credentials are known to be wrong; otherwise they may be checked.

        Raises:
            Busy: it is too early for another attempt.
        """
        failures = self._failures.get(block(address))
        if failures is None:
            return False
        if self._digest(credentials) in failures.wrong:
            return True
        wait = failures.until - self._clock()
        if wait > 0:
            raise Busy("too many wrong credentials from this address", wait, HTTPStatus.TOO_MANY_REQUESTS)
        return False

    def failed(self, address: str, credentials: bytes) -> int:
        """Record wrong credentials.

        Returns:
            the number of failures so far.
        """
        now = self._clock()
        failures = self._failures.setdefault(block(address), _Failures())
        if now - failures.latest > FORGET_S:
            failures.count = 0
        failures.count += 1
        failures.latest = now
        if failures.count >= FREE:
            failures.until = now + min(FIRST_S * 2.0 ** min(failures.count - FREE, 30), LONGEST_S)
        failures.wrong = [*failures.wrong, self._digest(credentials)][-_REMEMBERED:]
        self._failures.move_to_end(block(address))
        while len(self._failures) > MOST:
            self._failures.popitem(last=False)
        return failures.count

    def _digest(self, credentials: bytes) -> bytes:
        """Hash credentials with a key: wrong ones may be a password of another service."""
        return hashlib.blake2b(credentials, digest_size=16, key=self._key).digest()


def block(address: str) -> str:
    """Return the addresses of one client: a /64 network of IPv6, or the address itself."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(ip, ipaddress.IPv6Address):
        return str(ip.ipv4_mapped or ipaddress.ip_network((int(ip) >> 64 << 64, 64)))
    return str(ip)
