"""``/docs``: Swagger UI over ``/openapi.json``, on machines without internet too. Its files come from a package."""

from __future__ import annotations

import base64
import hashlib
import re

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

ASSETS = "static/docs"

_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data: blob:; media-src blob:; style-src 'self' "
    "'unsafe-inline'; script-src 'self' 'sha256-{}'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


def mount_docs(app: FastAPI) -> None:
    """Add the page and its files to an application that has no docs of its own."""
    app.mount(f"/{ASSETS}", StaticFiles(packages=[("fastapi_offline", "static")]), name="docs")
    # Relative addresses: the server may be served under a path of a proxy.
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=f"{app.title} {app.version}",
        swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{ASSETS}/favicon.png",
    ).body
    html = bytes(page).decode()
    inline = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    assert inline is not None
    digest = base64.b64encode(hashlib.sha256(inline[1].encode()).digest()).decode()
    headers = {"Content-Security-Policy": _POLICY.format(digest)}

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(html, headers=headers)
