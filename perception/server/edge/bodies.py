"""Bodies of requests that are no uploads, a few lines of JSON as a rule: taken in whole, within limits.

Whatever reads them behind this would else wait for ever for what does not come, and keep in memory whatever does.
"""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perception.server.edge.uploads import receive_bytes
from perception.server.problems import Problem, headers_of

MOST_BYTES = 1 << 20

UPLOADS = ("/v1/predict", "/v1/explain", "/v1/jobs")
"""These take theirs in as it comes, see `perception.server.edge.uploads`."""

_WITHOUT = ("GET", "HEAD", "OPTIONS", "TRACE")


class WholeBody:
    """ASGI middleware: what lies behind is called when a request's body is there.

    Args:
        app: what lies behind.
        timeout_s: seconds without a byte after which a body is given up.
        total_s: seconds in which the whole has to come.
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
    """``receive`` that gives a body which was taken in already, and then what comes."""
    given = False

    async def wrapped() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return wrapped
