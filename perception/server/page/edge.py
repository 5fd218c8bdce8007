"""The edge of Gradio: of all that it serves, the page's own files, and of a request, nothing but the path.

Gradio brings eighty routes for uploads, files, calls of functions, streams, other hosts, monitoring, tools. The page
has no use for them: what it does goes over this server's own routes, which have limits. So they are closed, not one by
one but by letting through what a browser that shows the page asks for. Behind the edge Gradio sees no header, no query
and no body, so that there is nothing for it to reflect or to read wrongly.
"""

from __future__ import annotations

import base64
import hashlib
import re

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_FILE = r"[\w-][\w.-]{0,100}"
PATHS = re.compile(rf"/|/theme\.css|/favicon\.ico|/manifest\.json|/assets/{_FILE}|/static/(js|img)/{_FILE}", re.ASCII)
"""Paths of Gradio that a browser needs to show the page."""

_METHODS = ("GET", "HEAD")

_HOST = "page.invalid"
"""Host that Gradio is told it is called by, which it writes into the page: nobody's name."""

_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-eval' {}; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; manifest-src 'self'; "
    "base-uri 'self'; form-action 'none'; frame-ancestors 'self'"
)
"""Gradio makes functions of the texts of its controls' events, so it needs 'unsafe-eval'; scripts that stand in the
page run only if they stood there when it was built."""


class GradioEdge:
    """ASGI application: Gradio's, reduced to what the page needs.

    Args:
        app: Gradio's application.
        root_path: path of the proxy under which browsers find it, empty or ``/perception``.
    """

    def __init__(self, app: ASGIApp, root_path: str = "") -> None:
        self._app = app
        self._root_path = root_path
        self._page: Response | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "there is no such address"})
            return
        path = scope["path"]
        if not PATHS.fullmatch(path):
            await JSONResponse({"error": "there is no such address; /docs lists them"}, 404)(scope, receive, send)
        elif scope["method"] not in _METHODS:
            text = f"{scope['method']} is not for this address; {', '.join(_METHODS)} is"
            await JSONResponse({"error": text}, 405, {"Allow": ", ".join(_METHODS)})(scope, receive, send)
        elif path == "/":
            await (await self._made(scope))(scope, receive, send)
        else:
            await self._app(_bare(scope), receive, send)  # none of these reads a body

    async def _made(self, scope: Scope) -> Response:
        """The page itself. It is the same for everybody, so it is made once."""
        if self._page is None:
            self._page = await self._make(scope)
        return self._page

    async def _make(self, scope: Scope) -> Response:
        sent: list[Message] = []

        async def keep(message: Message) -> None:
            sent.append(message)

        await self._app(_bare({**scope, "method": "GET"}, compressed=False), _no_body, keep)
        body = b"".join(message.get("body", b"") for message in sent)
        # The addresses of its files have no host, so they are this server's by whatever name it is called.
        html = body.decode().replace(f"http://{_HOST}", self._root_path)
        html = html.replace('href="/manifest.json"', f'href="{self._root_path}/manifest.json"')
        headers = {"Content-Security-Policy": policy(html), "Cache-Control": "no-cache"}
        status = next(message["status"] for message in sent if message["type"] == "http.response.start")
        return Response(html, status, headers, "text/html")


def policy(html: str) -> str:
    """The Content-Security-Policy that lets a page's own scripts run, and none that is put into it later."""
    scripts = re.findall(r"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", html, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    return _POLICY.format(" ".join(f"'sha256-{digest}'" for digest in digests))


def _bare(scope: Scope, compressed: bool = True) -> Scope:
    """A request as Gradio gets to see it."""
    headers = [(b"host", _HOST.encode())]
    if compressed and "br" in re.split(r"[\s,;]+", Headers(scope=scope).get("accept-encoding", "")):
        headers.append((b"accept-encoding", b"br"))
    return {**scope, "headers": headers, "query_string": b"", "scheme": "http"}


async def _no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}
