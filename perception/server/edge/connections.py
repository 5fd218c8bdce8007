"""Connections that say or take nothing are closed: each holds a file descriptor, and there are only so many."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

SILENCE_S = 20.0
"""Within so long the head of a request is complete: the first one's from the connection's beginning."""

STUCK_S = 60.0
"""A client that takes nothing of what it is sent for so long, or is gone without a word, is hung up on. A viewer who
stopped reading would else keep its place, and its stream running, for ever. Where the system can do that (Linux)."""

_BUSY = object()


class Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Uvicorn's HTTP, which waits for ever for the rest of a request's head, and for who does not read."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # Of the connection itself: it holds for the WebSocket that may become of it, too.
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * STUCK_S))
        asyncio.get_running_loop().call_later(SILENCE_S, self._look, transport, None)

    def _look(self, transport: asyncio.Transport, before: object) -> None:
        """Close a connection that is in no request, nor was when it was looked at before.

        Args:
            before: the last request that was answered by then; None: there was none, `_BUSY`: one was in progress.
        """
        # A WebSocket has a protocol of its own by now.
        if transport.is_closing() or transport.get_protocol() is not self:
            return
        answered = self.cycle is None or self.cycle.response_complete
        if answered and self.cycle is before:
            transport.close()
        else:
            latest = self.cycle if answered else _BUSY
            asyncio.get_running_loop().call_later(SILENCE_S, self._look, transport, latest)
