"""How the application is served, and what is no matter of a request: connections, and the server's own log.

Connections that say or take nothing are closed: each holds a file descriptor, and there are only so many.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol

from perception.server.sparing import SparingFilter

WEBSOCKET_BYTES = 8 << 20
"""Largest message of a client: a JPEG of its camera."""

SHUTDOWN_S = 3
"""Viewers that are there when the server stops have so long to leave."""

SILENCE_S = 20.0
"""Within so long the head of a request is complete: the first one's from the connection's beginning."""

STUCK_S = 60.0
"""A client that takes nothing of what it is sent for so long, or is gone without a word, is hung up on. A viewer who
stopped reading would else keep its place, and its stream running, for ever. Where the system can do that (Linux)."""

HEAD_BYTES = 64 << 10
"""Most bytes of a request's head, its address and its headers. Httptools itself has no limit."""

_COUNTS = hasattr(AutoHTTPProtocol, "on_headers_complete")  # h11, which is taken where httptools is not, has a limit

_BUSY = object()

_log = logging.getLogger("uvicorn.error")


class Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Uvicorn's HTTP, which waits for ever for a request's head, however long, and for who does not read."""

    _unread = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # Of the connection itself: it holds for the WebSocket that may become of it, too.
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * STUCK_S))
        asyncio.get_running_loop().call_later(SILENCE_S, self._look, transport, None)

    def data_received(self, data: bytes) -> None:
        self._unread += len(data)
        try:
            super().data_received(data)
        except Exception as error:  # whatever odd bytes lead to
            _log.warning("an HTTP request that cannot be read (%s)", type(error).__name__)
            self.transport.abort()
        # Httptools keeps a head, and what comes after a body, until it is complete.
        if _COUNTS and self._unread > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def on_headers_complete(self) -> None:
        self._unread = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread = 0
        super().on_message_complete()

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


class WebSocketProtocol(AutoWebSocketsProtocol):  # type: ignore[misc, valid-type]
    """Uvicorn's WebSocket, which answers pings into memory, however many, where a client takes no answers."""

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
        """Whether the client takes what it is sent."""
        writable = getattr(self, "writable", None)
        return not isinstance(writable, asyncio.Event) or writable.is_set()


def make_config(app: Any) -> uvicorn.Config:
    """How Uvicorn serves an application."""
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws=WebSocketProtocol,
        log_level="warning",
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
            logger.addFilter(SparingFilter())
    return config


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of Uvicorn's tells something; what clients did wrong is one line, without traceback."""
    # That viewers and open pages were cut off at the end would be a page of traceback for each.
    if record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError):
        return False
    if record.exc_info and isinstance(record.exc_info[1], UnicodeError):
        record.exc_info = None
    return not str(record.msg).startswith("Cancel %s running task")
