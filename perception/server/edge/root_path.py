"""Serving under a path of a reverse proxy, such as ``https://example.org/perception/``."""

from __future__ import annotations

from urllib.parse import quote

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class RootPathMiddleware:
    """ASGI middleware that takes the prefix off the path of a request, so that nothing behind it knows of it.

    Proxies either pass the prefix on or take it off themselves: a path without it stays as it is. What is sent to
    browsers has the prefix from the settings.

    Args:
        app: the application behind it.
        root_path: the prefix, ``/perception``.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            path: str = scope["path"]
            if path == self._root_path and scope.get("method") in ("GET", "HEAD"):
                # Relative addresses in the page start from the last slash of its own.
                query = scope.get("query_string", b"").decode("latin-1")
                await RedirectResponse(f"{path}/{query and '?'}{query}", 308)(scope, receive, send)
                return
            if path.startswith(f"{self._root_path}/"):
                path = path[len(self._root_path) :]
                scope = {**scope, "path": path, "raw_path": quote(path).encode()}
        await self._app(scope, receive, send)
