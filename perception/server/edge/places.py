"""Limits on how much is in use at once, with a share per client, so that one client cannot take everything."""

from __future__ import annotations

import ipaddress
import math
import threading
from collections import Counter
from functools import lru_cache
from types import TracebackType

from starlette.requests import HTTPConnection

from perception.server.problems import Busy

TOO_MANY_REQUESTS = 429


def client_of(connection: HTTPConnection) -> str:
    """Return the client whose share a request counts for, see `group_of`; behind a proxy, by the forwarded address."""
    return group_of(connection.client.host if connection.client else "")


@lru_cache(maxsize=4096)
def group_of(address: str) -> str:
    """Return the group that an address shares a limit with: one IPv4 address, or a /64 network of IPv6."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def share_of(count: int, share: float) -> int:
    """Return how many of ``count`` one client may have, at least 1."""
    return max(1, math.ceil(count * share))


class Places:
    """Limited places of one kind. Safe to use from any thread.

    Args:
        count: number of places.
        share: part of them, in 0..1, that one client may have.
        what: name in messages: "uploads".
        retry_after_s: seconds after which clients should try again.
    """

    def __init__(self, count: int, share: float, what: str, retry_after_s: float = 1.0) -> None:
        self._count = count
        self._most = share_of(count, share)
        self._what = what
        self._retry_after_s = retry_after_s
        self._lock = threading.Lock()
        self._taken: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """The number of places in use."""
        with self._lock:
            return self._taken.total()

    def take(self, client: str = "") -> Place:
        """Take a place, until the returned context manager is left.

        Args:
            client: see `client_of`; empty where it is unknown, which no share limits.

        Raises:
            Busy: all are taken (503), or the client's share of them (429).
        """
        with self._lock:
            if client and self._taken[client] >= self._most < self._count:
                message = f"too many {self._what} from your address; one client gets {self._most} of {self._count}"
                raise Busy(message, self._retry_after_s, TOO_MANY_REQUESTS)
            if self._taken.total() >= self._count:
                raise Busy(f"too many {self._what}; try again shortly", self._retry_after_s)
            self._taken[client] += 1
        return Place(self, client)

    def _leave(self, client: str) -> None:
        with self._lock:
            self._taken[client] -= 1
            if not self._taken[client]:
                del self._taken[client]  # so that addresses do not pile up


class Place:
    """A place in use: ``with places.take(client): ...``."""

    def __init__(self, places: Places, client: str) -> None:
        self._places = places
        self._client = client

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._places._leave(self._client)
