"""Request body limits: bodies that are not uploads, usually a few lines of JSON, are read whole, within limits.

Otherwise the routes would wait forever for what does not come, and keep in memory whatever does.
"""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perception.server.edge.uploads import receive_bytes
from perception.server.problems import Problem, headers_of

MOST_BYTES = 1 << 20

UPLOADS = ("/v1/predict", "/v1/explain", "/v1/jobs")
"""Routes that read their body as it arrives, see `perception.server.edge.uploads`."""

_WITHOUT = ("GET", "HEAD", "OPTIONS", "TRACE")


class BodyLimitMiddleware:
    """ASGI middleware that calls the application once a request's body is complete, within limits.

    Args:
        app: the application behind it.
        timeout_s: seconds without data after which a request is refused.
        total_s: seconds in which the whole body must arrive.
    """

    def __init__(self, app: ASGIApp, timeout_s: float, total_s: float) -> None:
        self._app = app
        self._timeout_s = timeout_s
        self._total_s = total_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _WITHOUT or scope["path"] in UPLOADS:
            await self._app(scope, receive, send)
            return
        try:
            stream = Request(scope, receive).stream()
            body = await receive_bytes(stream, MOST_BYTES, self._timeout_s, "the body", self._total_s)
        except ClientDisconnect:
            return  # nobody is there to be answered
        except Problem as problem:
            await JSONResponse({"error": str(problem)}, problem.status, headers_of(problem))(scope, receive, send)
            return
        await self._app(scope, _then(body, receive), send)


def _then(body: bytes, receive: Receive) -> Receive:
    """Wrap ``receive`` to give a body that was read already, and then what comes."""
    given = False

    async def wrapped() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return wrapped
