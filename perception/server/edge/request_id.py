"""An id for each request: in the header ``X-Request-ID`` of its answer, and in the lines of the log that it causes."""

from __future__ import annotations

import re
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perception.common.log_lines import REQUEST

HEADER = "X-Request-ID"

_USABLE = re.compile(r"[A-Za-z0-9._-]{8,64}")


class RequestIdMiddleware:
    """ASGI middleware that gives each request an id.

    Args:
        app: the application behind it.
        believed: take the id that a request comes with, where it can be one. Only for servers behind a proxy: from
            others anybody could name his requests like somebody else's.
    """

    def __init__(self, app: ASGIApp, believed: bool = False) -> None:
        self._app = app
        self._believed = believed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "") if self._believed else ""
        request = given if _USABLE.fullmatch(given) else secrets.token_hex(8)
        # Not reset: each request has a context of its own, and what answers a fault comes after this.
        REQUEST.set(request)

        async def named(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start", "websocket.accept"):
                MutableHeaders(scope=message)[HEADER] = request
            await send(message)

        await self._app(scope, receive, named)
