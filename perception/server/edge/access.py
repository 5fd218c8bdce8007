"""Authentication: checks in front of every route, HTTP and WebSocket alike, the mounted page and its assets included.

Credentials, where the operator set some, come as

- ``Authorization: Bearer TOKEN``, for programs;
- ``?token=TOKEN``, where no header can be set (an ``<img>``, a browser's WebSocket, a link);
- ``Authorization: Basic ...``, user and password;
- a cookie, which the login form gives to a browser, and which then goes along with everything it asks for, until it
  logs out.

Wrong ones make an address wait, see `perception.server.edge.login_throttle`; headers are checked first, see
`perception.server.edge.headers`.

Against other pages in the same browser: what changes something, and every WebSocket, must come from a page of this
server (``Origin``). Without credentials the server must also be called by a name that no stranger can point at it
(``Host``), or a page of theirs could rebind its own name to this machine.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import socket
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import URL, MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perception.server.edge.headers import Credentials, Malformed, check_headers, credentials
from perception.server.edge.log_limit import LogLimit
from perception.server.edge.login import LOGIN_POLICY, login_page
from perception.server.edge.login_throttle import LoginThrottle
from perception.server.edge.places import Places, client_of
from perception.server.edge.sessions import SESSION_S, Sessions, cookie_name
from perception.server.edge.tarpit import PROBES
from perception.server.edge.uploads import receive_bytes
from perception.server.metrics import Metrics
from perception.server.problems import Busy, Forbidden, Problem, Unauthorized, headers_of
from perception.server.settings import ServerSettings

LOGIN, LOGOUT = "/login", "/logout"

_LOGIN_BYTES = 8192
_LOGIN_TIMEOUT_S = 10.0
_SAFE = ("GET", "HEAD", "OPTIONS")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # For what is no page; a page has a policy of its own.
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; media-src 'self'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
}

_ODD = (400, 431)

_log = logging.getLogger("perception")


class AuthenticationMiddleware:
    """ASGI middleware that authenticates requests, and limits how many are in progress.

    Args:
        app: the application behind it.
        settings: credentials, origins, limits.
        metrics: told of refusals and of the number of requests in progress.
        clock: seconds, of any beginning.
    """

    def __init__(
        self, app: ASGIApp, settings: ServerSettings, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._settings = settings
        self._root_path = settings.root_path
        self._cookie = cookie_name(settings.root_path)
        self._metrics = metrics
        self._sessions = Sessions(clock)
        self._throttle = LoginThrottle(clock)
        self._log = LogLimit(clock)
        limits = settings.limits
        self._places = Places(limits.connections, limits.share, "connections", 2.0)
        self._long_lived = Places(limits.long_lived, limits.share, "long-lived connections", 2.0)
        metrics.connections(lambda: self._places.taken + self._long_lived.taken)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        counted = self._counting(send)
        path = scope["path"]
        try:
            check_headers(scope["headers"])
            self._check_host(connection)
            self._check_origin(connection)
            if self._settings.guarded:
                if path == LOGIN and scope.get("method") == "POST":
                    await (await self._login(Request(scope, receive)))(scope, receive, counted)
                    return
                self._check_credentials(connection)
            if path in (LOGIN, LOGOUT) and scope["type"] == "http":
                await self._log_out(connection)(scope, receive, counted)
                return
            place: AbstractContextManager[None] = nullcontext()
            if path not in PROBES:
                place = (self._long_lived if _is_long_lived(scope) else self._places).take(client_of(connection))
        except Problem as problem:
            await self._refuse(problem, connection, receive, counted)
            return
        with place:
            redirect = self._cookie_for_token(connection)
            if redirect is not None:
                await redirect(scope, receive, counted)
            else:
                await self._app(_without_token(scope), receive, counted)

    def _check_host(self, connection: HTTPConnection) -> None:
        """Refuse unknown host names (DNS rebinding). With credentials, the browser binds them to a name."""
        header = connection.headers.get("host", "")
        if self._settings.guarded or not header:
            return
        host = (_host_port(f"//{header}") or ("", None))[0]
        own = {"localhost", self._settings.host.lower(), socket.gethostname().lower()}
        own |= {found[0] for origin in self._settings.origins if (found := _host_port(origin))}
        # Names of one label are not in the public DNS.
        if host in own or host.endswith(".localhost") or _is_address(host) or (host and "." not in host):
            return
        raise Forbidden("unknown host name for this server; the operator can add it to `origin`")

    def _check_origin(self, connection: HTTPConnection) -> None:
        """Refuse requests that another site's page makes in the name of its visitor (CSRF)."""
        if connection.scope["type"] == "http" and connection.scope["method"] in _SAFE:
            return
        origin = connection.headers.get("origin")
        if origin is None:
            # Not a browser, or one that says in another way where it comes from.
            if connection.headers.get("sec-fetch-site", "none") in ("same-origin", "none"):
                return
        else:
            came_from = _host_port(origin)
            own = [_host_port(known) for known in self._settings.origins]
            header = connection.headers.get("host", "")
            # The scheme is the page's: a proxy may have taken TLS off before us.
            own.append(_host_port(f"{origin.partition('://')[0]}://{header}") if header else None)
            if came_from is not None and came_from in own:
                return
        raise Forbidden("requests from other sites are not allowed; the operator can add their origin to `origin`")

    def _check_credentials(self, connection: HTTPConnection) -> None:
        if self._sessions.holds(connection.cookies.get(self._cookie, "")):
            return
        given = credentials(connection)
        if not given:
            raise Unauthorized("credentials required")
        if not self._are_valid(given, _address(connection)):
            raise Unauthorized("wrong credentials")

    def _are_valid(self, given: Credentials, address: str) -> bool:
        """Return whether credentials are the operator's.

        Raises:
            Busy: wrong ones came from this address before, and it is too early for others.
        """
        if self._throttle.is_known(address, bytes(given)):
            return False
        # All are compared, whatever the first one says: the time taken tells nothing.
        if self._is_user(given.user, given.password) | max(map(self._is_token, given.tokens), default=False):
            return True
        count = self._throttle.failed(address, bytes(given))
        self._warn("wrong credentials", f"wrong credentials from {address} ({count} attempts so far)")
        return False

    def _is_token(self, given: bytes) -> bool:
        token = self._settings.token
        return token is not None and _same(given, token.get_secret_value())

    def _is_user(self, user: bytes | None, password: bytes) -> bool:
        expected = self._settings.password
        if expected is None or self._settings.user is None or user is None:
            return False
        return _same(user, self._settings.user) & _same(password, expected.get_secret_value())

    def _warn(self, kind: str, line: str) -> None:
        """Log a line for the operator, unless there were many of its kind."""
        left_out = self._log.left_out(kind)
        if left_out is not None:
            _log.warning("%s%s", line, f" ({left_out} more like it were left out)" if left_out else "")

    async def _login(self, request: Request) -> Response:
        """Answer a submitted login form: with a cookie, or with the form again."""
        try:
            body = await receive_bytes(request.stream(), _LOGIN_BYTES, _LOGIN_TIMEOUT_S, "a login form")
        except ClientDisconnect:
            raise Problem("the connection ended before the form did") from None
        fields = {name: value.encode() for name, value in parse_qsl(body.decode("utf-8", "replace"))}
        target = _local(fields.get("next", b"").decode())
        given = Credentials(
            (fields["token"],) if "token" in fields else (), fields.get("user"), fields.get("password", b"")
        )
        try:
            if self._are_valid(given, _address(request)):
                return self._with_cookie(RedirectResponse(self._root_path + target, 303), request)
        except Busy as busy:
            headers = headers_of(busy)
            return self._form(
                target, f"Too many failed attempts. Try again in {headers['Retry-After']} s.", busy.status, headers
            )
        return self._form(target, "Wrong credentials. Try again.")

    def _log_out(self, connection: HTTPConnection) -> Response:
        """Log out, or redirect whoever is logged in already to the page."""
        response = RedirectResponse(f"{self._root_path}/", 303)
        # Not by a link on another site's page.
        if connection.scope["path"] == LOGOUT and connection.headers.get("sec-fetch-site") != "cross-site":
            self._sessions.end(connection.cookies.get(self._cookie, ""))
            response.delete_cookie(self._cookie, path=self._root_path or "/")
        return response

    def _cookie_for_token(self, connection: HTTPConnection) -> Response | None:
        """Replace the token in the link of a page by a cookie, so that it leaves the address bar."""
        given = connection.query_params.get("token")
        if given is None or not _is_navigation(connection) or not self._is_token(given.encode()):
            return None
        url = URL(scope=connection.scope).remove_query_params("token")
        target = self._root_path + _local(f"{url.path}?{url.query}".rstrip("?"))
        return self._with_cookie(RedirectResponse(target, 303), connection)

    def _with_cookie(self, response: Response, connection: HTTPConnection) -> Response:
        response.set_cookie(
            self._cookie,
            self._sessions.begin(),
            path=self._root_path or "/",
            max_age=SESSION_S,
            httponly=True,
            samesite="lax",
            secure=self._is_https(connection),
        )
        return response

    def _is_https(self, connection: HTTPConnection) -> bool:
        """Return whether the browser uses TLS, which may end at a proxy."""
        own = f"https://{connection.headers.get('host', '')}"
        origin = connection.headers.get("origin", "")
        return connection.scope["scheme"] == "https" or origin.startswith("https://") or own in self._settings.origins

    def _form(
        self, target: str, message: str = "", status: int = 401, headers: dict[str, str] | None = None
    ) -> Response:
        page = login_page(
            self._root_path + LOGIN, target, user=self._settings.password is not None,
            token=self._settings.token is not None, message=message,
        )  # fmt: skip
        always = {"Cache-Control": "no-store", "WWW-Authenticate": "Bearer", "Content-Security-Policy": LOGIN_POLICY}
        return HTMLResponse(page, status, {**always, **(headers or {})})

    async def _refuse(self, problem: Problem, connection: HTTPConnection, receive: Receive, send: Send) -> None:
        scope = connection.scope
        if isinstance(problem, Malformed) or problem.status in _ODD:
            self._warn(problem.message, f"refused a request from {_address(connection)}: {problem.message}")
        if isinstance(problem, Unauthorized) and _is_navigation(connection):
            target = "/" if scope["path"] in (LOGIN, LOGOUT) else scope["path"]
            await self._form(target)(scope, receive, send)
            return
        headers = headers_of(problem)
        if isinstance(problem, Unauthorized):
            # A browser would ask for a password by itself, over and over, instead of showing the form.
            browser = "sec-fetch-mode" in connection.headers
            basic = self._settings.password is not None and not browser
            headers["WWW-Authenticate"] = 'Basic realm="perception"' if basic else "Bearer"
        if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": problem.message[:120]})
            return
        await JSONResponse({"error": str(problem)}, problem.status, headers)(scope, receive, send)

    def _counting(self, send: Send) -> Send:
        """Wrap ``send`` to add the headers of every answer, and to count refusals."""

        async def wrapped(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if message["status"] >= 400:
                    self._metrics.refused(message["status"])
            await send(message)

        return wrapped


def _is_long_lived(scope: Scope) -> bool:
    """Return whether a request lasts as long as a viewer watches; these have a limit of their own."""
    path: str = scope["path"]
    return scope["type"] == "websocket" or path.endswith("/mjpeg")


def _same(given: bytes, expected: str) -> bool:
    """Return whether two texts are equal, in constant time."""
    return hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(expected.encode()).digest())


def _address(connection: HTTPConnection) -> str:
    """Return the address that a request comes from."""
    return connection.client.host if connection.client else ""


def _host_port(url: str) -> tuple[str, int | None] | None:
    """Parse host, in lower case, and port of a URL, None for the scheme's default port; None if it is not a URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname:
        return None
    default = {"http": 80, "ws": 80, "https": 443, "wss": 443}.get(parts.scheme)
    return parts.hostname.lower(), None if port == default else port


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_navigation(connection: HTTPConnection) -> bool:
    """Return whether a person's browser asks for a page."""
    scope = connection.scope
    return (
        scope["type"] == "http"
        and scope["method"] == "GET"
        and "text/html" in connection.headers.get("accept", "")
        and connection.headers.get("sec-fetch-dest", "document") == "document"
    )


def _local(target: str) -> str:
    """Return ``target`` if it is a path on this server, else ``/``; ``//host`` and ``/\\host`` lead elsewhere."""
    plain = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return target if plain and target.partition("?")[0] not in (LOGIN, LOGOUT) else "/"


def _without_token(scope: Scope) -> Scope:
    """Return the scope without the token in its query, which nothing behind needs."""
    query = scope.get("query_string", b"")
    if b"token=" not in query:
        return scope
    pairs = [p for p in parse_qsl(query.decode("latin-1"), keep_blank_values=True) if p[0] != "token"]
    return {**scope, "query_string": urlencode(pairs).encode()}
