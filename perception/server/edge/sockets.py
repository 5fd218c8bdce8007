"""Limits on the network connections of one server, in total and per client.

Each takes a file descriptor from the beginning, before authentication. A server that runs out of descriptors can
neither accept connections, nor read a file, nor open a camera.
"""

from __future__ import annotations

from asyncio import Transport
from collections import Counter

from perception.server.edge.places import group_of, share_of

KEPT_DESCRIPTORS = 256
"""File descriptors kept for other uses: files, models, cameras, pipes. If there are few, a quarter of them."""


def raise_descriptor_limit() -> int | None:
    """Raise the limit on open files as far as the system allows; return it, None where it is unlimited."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):  # macOS says unlimited, and means less
            pass
    return None if soft == resource.RLIM_INFINITY else soft


def most_sockets(wanted: int, descriptors: int | None) -> int:
    """Return the limit on connections for a number of file descriptors."""
    if descriptors is None:
        return wanted
    return max(1, min(wanted, descriptors - min(KEPT_DESCRIPTORS, descriptors // 4)))


class Sockets:
    """The open connections. For one event loop.

    Args:
        count: limit on their number.
        share: part of them, in 0..1, that one address may have.
    """

    def __init__(self, count: int, share: float) -> None:
        self._count = count
        self._most = share_of(count, share)
        self._by_client: Counter[str] = Counter()
        self._clients: dict[Transport, str] = {}
        self._idle: dict[Transport, None] = {}  # in the order in which they fell silent

    def __len__(self) -> int:
        return len(self._clients)

    def admit(self, transport: Transport) -> bool:
        """Admit a new connection, if need be in place of the one idle longest; False if it must be refused."""
        peer = transport.get_extra_info("peername")
        client = group_of(str(peer[0])) if isinstance(peer, tuple) and peer else ""
        if client and self._by_client[client] >= self._most < self._count:
            return False
        if len(self._clients) >= self._count:
            oldest = next(iter(self._idle), None)
            if oldest is None:
                return False
            self.leave(oldest)
            oldest.abort()
        self._clients[transport] = client
        self._by_client[client] += 1
        self._idle[transport] = None
        return True

    def busy(self, transport: Transport) -> None:
        """Mark a connection as being in a request."""
        self._idle.pop(transport, None)

    def idle(self, transport: Transport) -> None:
        """Mark a connection as idle: it has its answer, and may be closed for others."""
        if transport in self._clients:
            self._idle[transport] = None

    def leave(self, transport: Transport) -> None:
        """Remove a closed connection."""
        self._idle.pop(transport, None)
        client = self._clients.pop(transport, None)
        if client is not None:
            self._by_client[client] -= 1
            if not self._by_client[client]:
                del self._by_client[client]
