"""Connections that say nothing are closed: each holds a file descriptor, and there are only so many."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

SILENCE_S = 20.0
"""From a connection's beginning until the head of its first request is complete."""


class Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """Uvicorn's HTTP, which waits for ever for a first request."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        asyncio.get_running_loop().call_later(SILENCE_S, self._close_if_silent, transport)

    def _close_if_silent(self, transport: asyncio.Transport) -> None:
        # A WebSocket has a protocol of its own by now, and a request has its cycle.
        if self.cycle is None and transport.get_protocol() is self and not transport.is_closing():
            transport.close()
