"""The whole server as one FastAPI application: authentication, routes, page.

app = create_app(ServerSettings(sources={"street": "street.mp4"}))      # for any ASGI server
serve(settings, started=print)                                         # or with ours, until Ctrl-C
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from perception.common.log_lines import REQUEST
from perception.common.version import __version__
from perception.errors import PerceptionError, StageError, UsageError
from perception.server.edge.access import AuthenticationMiddleware
from perception.server.edge.allowlist import check_patterns
from perception.server.edge.bodies import BodyLimitMiddleware
from perception.server.edge.connections import make_config
from perception.server.edge.fair_executor import FairExecutor
from perception.server.edge.rates import ClientRates
from perception.server.edge.request_id import HEADER, RequestIdMiddleware
from perception.server.edge.root_path import RootPathMiddleware
from perception.server.edge.sockets import raise_descriptor_limit
from perception.server.edge.tarpit import TarpitMiddleware
from perception.server.hangup import on_hangup
from perception.server.memory import check_cameras, share_arenas
from perception.server.problems import headers_of, rule_of, status_of
from perception.server.routes import explain as explain_api
from perception.server.routes import footage as footage_api
from perception.server.routes import jobs as jobs_api
from perception.server.routes import pictures as api
from perception.server.routes import rules as rules_api
from perception.server.routes import sources as sources_api
from perception.server.routes import streams as streams_api
from perception.server.routes import webcam
from perception.server.routes.docs import mount_docs
from perception.server.service import Service
from perception.server.settings import ServerSettings
from perception.sources.uri import redact_text

log = logging.getLogger("perception")

ROUTERS = (api, explain_api, footage_api, jobs_api, rules_api, sources_api, streams_api, webcam)
_ABOUT = """Boxes and class masks of pictures, videos and streams.

Errors are JSON, `{"error": "one line"}`. Where credentials are set, send `Authorization: Bearer TOKEN`, user and
password (Basic), or `?token=TOKEN`. With 429 and 503, `Retry-After` says when to try again.
"""


def create_app(settings: ServerSettings) -> FastAPI:
    """Create the application.

    Its ``app.state.service`` is its `Service`, which starts and stops with it; ``app.state.rates`` are the rates of its
    clients, for `perception.server.edge.connections.make_config`.

    Raises:
        UsageError: a pattern of allowed sources that could never fit, or a stage that the default model does not allow.
        SinkError: the folder for jobs cannot be used.
    """
    check_patterns(settings.allow)
    # Before Gradio is imported, which looks once.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from perception.server.page import mount_page

    service = Service(settings)
    service.check_stages()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        threads = FairExecutor(THREADS + (os.cpu_count() or 1), settings.limits.share)
        asyncio.get_running_loop().set_default_executor(threads)
        service.start()
        try:
            yield
        finally:
            await asyncio.to_thread(service.close)

    app = FastAPI(
        title="perception",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own pages take their scripts from elsewhere
        redoc_url=None,
        servers=[{"url": settings.root_path}] if settings.root_path else None,
        redirect_slashes=False,  # to an absolute address, with whatever Host it was asked by
    )
    app.state.service = service
    app.add_middleware(
        BodyLimitMiddleware, timeout_s=settings.limits.body_timeout_s, total_s=settings.limits.body_time_s
    )
    # The last one comes first.
    app.add_middleware(AuthenticationMiddleware, settings=settings, metrics=service.metrics)
    if settings.root_path:
        app.add_middleware(RootPathMiddleware, root_path=settings.root_path)
    rates = ClientRates(settings.limits, settings.proxies, service.metrics)
    app.state.rates = rates
    app.add_middleware(TarpitMiddleware, rates=rates, root_path=settings.root_path)
    if settings.proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.proxies))
    app.add_middleware(RequestIdMiddleware, believed=bool(settings.proxies))
    for module in ROUTERS:
        app.include_router(module.router)
    app.add_api_route("/v1/{rest:path}", _no_such_route, methods=_METHODS, include_in_schema=False)
    app.add_exception_handler(PerceptionError, _perception_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _fault)
    mount_docs(app)
    mount_page(app, service)  # last: it takes every path that is left
    return app


def serve(
    settings: ServerSettings,
    started: Callable[[str], None] | None = None,
    ready: Callable[[str], None] | None = None,
    reread: Callable[[], ServerSettings] | None = None,
) -> None:
    """Run the server until Ctrl-C or SIGTERM.

    Args:
        settings: what the operator set.
        started: called with the server's URL, when it answers.
        ready: called with the name of the default model and what runs it, when it is loaded; from another thread.
        reread: reads the settings anew at SIGHUP, for `perception.server.streams.roster.Roster.reload`.

    Raises:
        UsageError: the address cannot be listened on, or there is no memory for so many cameras.
        PerceptionError: the folder for jobs cannot be used.
    """
    warning = check_cameras(len(settings.sources), settings.limits.streams)
    if warning:
        log.warning("%s", warning)
    os.umask(0o077)  # what is written from here on, by any library, is this user's alone
    share_arenas()  # before there are threads
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with _listen(settings.host, settings.port) as listener:
        app = create_app(settings)
        config = make_config(app, settings.limits, raise_descriptor_limit(), app.state.rates)

        def answers() -> None:
            if reread is not None:
                on_hangup(lambda: app.state.service.roster.reload(reread), server.end)
            if started is not None:
                started(_url(settings, listener))
            if ready is not None:
                threading.Thread(target=_tell_ready, args=(app.state.service, ready), daemon=True).start()

        with suppress(KeyboardInterrupt):  # raised again once all is closed; it is how a server is ended
            server = _Server(config, answers)
            server.run([listener])


def _tell_ready(service: Service, ready: Callable[[str], None]) -> None:
    service.ready.wait()
    ready(f"{service.models.default}, {service.models.scheduler().model.engine.description}")


THREADS = 4
"""Threads for what routes wait for, besides one for each core."""

SWITCH_INTERVAL_S = 0.0005
"""How long a thread that computes in Python keeps the event loop waiting. It gives the interpreter away at each system
call; with Python's own 5 ms, a few such threads would hold up every request at every step."""


class _Server(uvicorn.Server):
    """Uvicorn server that tells when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], Any]) -> None:
        super().__init__(config)
        self._ready = ready

    def end(self) -> None:
        """Stop serving soon."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host.strip("[]"), port), family=family, backlog=128)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = "; is another server running there? choose another port: `port=0` takes a free one" if port else ""
        raise UsageError(f"cannot listen on port {port}: {reason}{hint}", host) from None


def _url(settings: ServerSettings, listener: socket.socket) -> str:
    host = settings.host if settings.host not in ("0.0.0.0", "::") else socket.gethostname()
    root = f"{settings.root_path}/" if settings.root_path else ""
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}{root}"


_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


async def _no_such_route(request: Request) -> JSONResponse:
    """Answer unknown paths under /v1, which would otherwise go to the page."""
    routes = [route for module in ROUTERS for route in module.router.routes if isinstance(route, APIRoute)]
    allowed = {m for route in routes if route.path_regex.match(request.url.path) for m in route.methods or ()}
    if allowed:
        text = ", ".join(sorted(allowed))
        return _error(405, f"{request.method} is not allowed at this address; {text} is", {"Allow": text})
    return _error(404, "no such address; /docs lists them all")


def _error(
    status: int, message: str, headers: dict[str, str] | None = None, more: dict[str, str] | None = None
) -> JSONResponse:
    return JSONResponse({"error": " ".join(message.split()), **(more or {})}, status, headers)


async def _perception_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PerceptionError)
    if isinstance(error, StageError):
        log.warning("%s: %s", request.url.path, error.message)
        return _error(status_of(error), redact_text(error.message))
    return _error(status_of(error), str(error), headers_of(error), rule_of(error))


async def _validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = [f"{'.'.join(map(str, f['loc'][1:])) or f['loc'][0]}: {f['msg']}" for f in error.errors()]
    return _error(422, "; ".join(faults)[:1000])


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, str(error.detail), dict(error.headers or {}))


async def _gone(request: Request, error: Exception) -> JSONResponse:
    return _error(400, "the connection ended before the body did")


async def _fault(request: Request, error: Exception) -> JSONResponse:
    text = f"internal error; see the server's log ({type(error).__name__})"
    return _error(500, text, {HEADER: REQUEST.get() or ""})
