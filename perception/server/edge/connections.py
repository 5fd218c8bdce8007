"""Serving with Uvicorn: connection limits and time-outs, and the filter of the server's own log.

Idle and stuck connections are closed, and their number is limited: each holds a file descriptor.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from functools import partial
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

from perception.server.edge.log_limit import LogLimitFilter
from perception.server.edge.rates import ClientRates
from perception.server.edge.sockets import Sockets, most_sockets
from perception.server.edge.tarpit import MESSAGE
from perception.server.settings import Limits

WEBSOCKET_BYTES = 8 << 20
"""Size limit of a client's WebSocket message: a JPEG of its camera."""

SHUTDOWN_S = 3
"""Seconds that viewers have to leave when the server stops."""

HEAD_TIMEOUT_S = 20.0
"""Time-out for the head of a request; for the first one, from the beginning of the connection."""

LINGER_S = 2.0
"""Seconds that a client may go on sending a body after its answer, for example when the body is too large: if the
connection were closed at once, many clients would not see the answer."""

KEEP_ALIVE_S = 5
"""Seconds that an idle connection is kept open after an answer, for the next request."""

SEND_TIMEOUT_S = 60.0
"""Send time-out: a client that accepts no data for so long, or has vanished, is disconnected. Otherwise a viewer who
stopped reading would keep its place, and its stream running, forever. Where the system can do that (Linux)."""

HEAD_BYTES = 64 << 10
"""Size limit of a request without its body: its head, and the framing of chunks."""

_BUSY = object()

_log = logging.getLogger("uvicorn.error")


class Protocol(HttpToolsProtocol):
    """Uvicorn's HTTP protocol, with limits that it lacks: connections, time and size of a request's head, sending.

    Args:
        sockets: the connections of this server.
        rates: of its clients.
    """

    def __init__(self, *arguments: Any, sockets: Sockets, rates: ClientRates, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sockets = sockets
        self._rates = rates
        self._admitted = False
        self._early: list[bytes] | None = None  # what came while it is not read from
        self._reading: asyncio.TimerHandle | None = None
        self._unused = 0  # bytes that came and made no progress

    def connection_made(self, transport: Any) -> None:
        peer = transport.get_extra_info("peername")
        wait = self._rates.connect(str(peer[0]) if isinstance(peer, tuple) and peer else "")
        self._admitted = wait is not None and self._sockets.admit(transport)
        if wait is None or not self._admitted:
            transport.write(_TURNED_AWAY if wait is None else _FULL)
            transport.close()
            return
        super().connection_made(transport)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # Of the connection itself: it holds for the WebSocket that may become of it, too.
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * SEND_TIMEOUT_S))
        loop = asyncio.get_running_loop()
        loop.call_later(HEAD_TIMEOUT_S, self._close_if_idle, transport, None)
        if wait:
            self._early = []
            transport.pause_reading()
            self._reading = loop.call_later(wait, self._read)

    def _read(self) -> None:
        """Read from a connection that had to wait."""
        early, self._early = self._early or [], None
        if not self.transport.is_closing():
            self.transport.resume_reading()
            for data in early:
                self.data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self._reading is not None:
            self._reading.cancel()
        if self._admitted:
            self._sockets.leave(self.transport)
            super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        if not self._admitted or self.transport.is_closing():
            return
        if self._early is not None:
            self._early.append(data)
            return
        self._unused += len(data)
        try:
            super().data_received(data)
        except Exception as error:  # whatever odd bytes lead to
            _log.warning("an HTTP request that cannot be read (%s)", type(error).__name__)
            self.transport.abort()
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
                asyncio.get_running_loop().call_later(LINGER_S, self._disconnect, self.cycle)

    def on_message_complete(self) -> None:
        self._unused = 0
        super().on_message_complete()
        if self.cycle is not None:
            self.cycle.more_body = False  # also where it is answered already

    def _disconnect(self, cycle: object) -> None:
        """Close a connection that still sends the body of an answered request: nobody reads it."""
        if self.cycle is cycle and self.cycle.more_body:
            self.transport.close()

    def _close_if_idle(self, transport: asyncio.Transport, before: object) -> None:
        """Close a connection that is idle, and has been since the last check.

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
            asyncio.get_running_loop().call_later(HEAD_TIMEOUT_S, self._close_if_idle, transport, latest)


class WebSocketProtocol(AutoWebSocketsProtocol):  # type: ignore[misc, valid-type]
    """Uvicorn's WebSocket protocol, which stops reading from a client that does not accept its answers.

    Args:
        sockets: the connections of this server; an upgraded connection stays the same one.
    """

    def __init__(self, *arguments: Any, sockets: Sockets, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._sockets = sockets

    def connection_lost(self, error: Exception | None) -> None:
        self._sockets.leave(self.transport)
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except Exception as error:  # whatever odd bytes lead to
            self._refuse(type(error).__name__)
        else:
            # The first bytes are a whole handshake; one that is refused without an answer would be held for ever.
            if not getattr(self, "handshake_initiated", True):
                self._refuse("no handshake")
        if not self._is_taken() and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not getattr(self, "read_paused", False) and not self.transport.is_closing():
            self.transport.resume_reading()

    def _refuse(self, why: str) -> None:
        _log.warning("a WebSocket that cannot be read (%s)", why)
        if not self.handshake_complete:
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        self.transport.close()

    def _is_taken(self) -> bool:
        """Return whether the client accepts data."""
        writable = getattr(self, "writable", None)
        return not isinstance(writable, asyncio.Event) or writable.is_set()


def _refusal(status: int, message: str) -> bytes:
    """Build an error response, for connections that do not reach the application."""
    body = json.dumps({"error": message}).encode()
    retry = "" if status == 431 else "Retry-After: 3\r\n"
    reason = HTTPStatus(status).phrase
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{retry}"
    return f"{head}Connection: close\r\n\r\n".encode() + body


_FULL = _refusal(503, "too many connections; try again shortly")
_TURNED_AWAY = _refusal(429, MESSAGE)


def make_config(
    app: Any, limits: Limits, descriptors: int | None = None, rates: ClientRates | None = None
) -> uvicorn.Config:
    """Configure Uvicorn for an application.

    Args:
        app: the application.
        limits: how many connections there may be.
        descriptors: how many files this process may open.
        rates: of the application's clients; None: there are no others than these limits.
    """
    sockets = Sockets(most_sockets(limits.sockets, descriptors), limits.share)
    http: Any = partial(Protocol, sockets=sockets, rates=rates or ClientRates(limits))
    websocket: Any = partial(WebSocketProtocol, sockets=sockets)
    config = uvicorn.Config(
        app,
        http=http,
        ws=websocket,
        timeout_keep_alive=KEEP_ALIVE_S,
        log_level="warning",
        log_config=None
        if logging.getLogger("uvicorn").handlers
        else uvicorn.config.LOGGING_CONFIG,  # the command's own
        access_log=False,  # it would write tokens of URLs down
        ws_max_size=WEBSOCKET_BYTES,
        ws_per_message_deflate=False,  # pictures do not get smaller
        timeout_graceful_shutdown=SHUTDOWN_S,
        server_header=False,
        proxy_headers=False,  # the application knows whom to believe
    )
    for name in ("uvicorn.error", "asyncio"):
        logger = logging.getLogger(name)
        if _is_news not in logger.filters:
            logger.addFilter(_is_news)
            logger.addFilter(LogLimitFilter())
    return config


def _is_news(record: logging.LogRecord) -> bool:
    """Filter Uvicorn's log: errors of clients become one line, without traceback."""
    # That viewers and open pages were cut off at the end would be a page of traceback for each.
    if record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError):
        return False
    if record.exc_info and isinstance(record.exc_info[1], UnicodeError):
        record.exc_info = None
    return not str(record.msg).startswith("Cancel %s running task")
