"""Connections that say or take nothing are closed, and there are only so many: each holds a file descriptor."""

from __future__ import annotations

import asyncio
import json
import socket
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

from perception.server.settings import Limits
from perception.server.sockets import Sockets, most_sockets

SILENCE_S = 20.0
"""Within so long the head of a request is complete: the first one's from the connection's beginning."""

LINGER_S = 2.0
"""Who is answered before its request is complete, a body that is too large for one, may go on sending for so long:
hung up on at once, many clients would not see the answer."""

KEEP_ALIVE_S = 5
"""A connection is kept for so long after an answer, for the next request."""

STUCK_S = 60.0
"""A client that takes nothing of what it is sent for so long, or is gone without a word, is hung up on. A viewer who
stopped reading would else keep its place, and its stream running, for ever. Where the system can do that (Linux)."""

HEAD_BYTES = 64 << 10
"""The most that a request may hold beside its body: its head, and whatever is around the body's pieces."""

_BUSY = object()


def connection_options(limits: Limits, descriptors: int | None = None) -> dict[str, Any]:
    """What Uvicorn is to be configured with.

    Args:
        limits: how many connections there may be.
        descriptors: how many files this process may open.
    """
    sockets = Sockets(most_sockets(limits.sockets, descriptors), limits.share)
    return {
        "http": partial(Protocol, sockets=sockets),
        "ws": partial(WebSocket, sockets=sockets),
        "timeout_keep_alive": KEEP_ALIVE_S,
    }


class Protocol(HttpToolsProtocol):
    """Uvicorn's HTTP, which takes connections without end, waits for ever for the rest of a request's head, however
    long that is, and for who does not read.

    Args:
        sockets: the connections of this server.
    """

    def __init__(self, *arguments: Any, sockets: Sockets, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sockets = sockets
        self._admitted = False
        self._unused = 0  # bytes that came and made no progress

    def connection_made(self, transport: Any) -> None:
        self._admitted = self._sockets.admit(transport)
        if not self._admitted:
            transport.write(_refusal(503, "too many connections; try again shortly"))
            transport.close()
            return
        super().connection_made(transport)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # Of the connection itself: it holds for the WebSocket that may become of it, too.
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * STUCK_S))
        asyncio.get_running_loop().call_later(SILENCE_S, self._look, transport, None)

    def connection_lost(self, error: Exception | None) -> None:
        if self._admitted:
            self._sockets.leave(self.transport)
            super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        if not self._admitted or self.transport.is_closing():
            return
        self._unused += len(data)
        super().data_received(data)
        if self._unused > HEAD_BYTES and not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(_refusal(431, f"the head of a request has at most {HEAD_BYTES} bytes"))
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._unused = 0
        self._sockets.busy(self.transport)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unused = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        last = not self.pipeline
        super().on_response_complete()
        if last:
            self._sockets.idle(self.transport)
            if self.cycle.more_body:
                asyncio.get_running_loop().call_later(LINGER_S, self._hang_up, self.cycle)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self.cycle is not None:
            self.cycle.more_body = False  # also where it is answered already

    def _hang_up(self, cycle: object) -> None:
        """Close a connection on which the body of an answered request still comes: nobody reads it."""
        if self.cycle is cycle and self.cycle.more_body:
            self.transport.close()

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


class WebSocket(AutoWebSocketsProtocol):  # type: ignore[misc, valid-type]
    """Uvicorn's WebSocket, which is counted as the connection that it was made of."""

    def __init__(self, *arguments: Any, sockets: Sockets, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sockets = sockets

    def connection_lost(self, error: Exception | None) -> None:
        self._sockets.leave(self.transport)
        super().connection_lost(error)


def _refusal(status: int, message: str) -> bytes:
    """An answer for which there is no application yet."""
    body = json.dumps({"error": message}).encode()
    retry = "Retry-After: 2\r\n" if status == 503 else ""
    reason = {431: "Request Header Fields Too Large", 503: "Service Unavailable"}[status]
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{retry}"
    return f"{head}Connection: close\r\n\r\n".encode() + body
