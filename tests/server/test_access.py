"""Who may come in. Every route is found by walking the application, the mounted page included."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from perception.server.app import create_app
from perception.server.edge import connections as http
from perception.server.edge import login_throttle, sessions
from perception.server.edge.access import AuthenticationMiddleware
from perception.server.edge.sessions import COOKIE, SESSION_S
from perception.server.metrics import Metrics
from perception.server.settings import make_settings
from tests.server.served import served
from tests.server.waiting import wait_for
from tests.server.walking import walk

USER, PASSWORD, TOKEN = "maria", "pass:wörd", "0123456789abcdef"
METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
PAGE = {"accept": "text/html,*/*", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.fixture(scope="module")
def app(make: Any) -> Any:
    return create_app(make(user=USER, password=PASSWORD, token=TOKEN))


@pytest.fixture(scope="module")
def guarded(app: Any) -> Iterator[httpx.Client]:
    with served(app) as address, httpx.Client(base_url=f"http://{address}", timeout=60) as client:
        yield client


@pytest.fixture(autouse=True)
def no_cookies(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_throttle, "FIRST_S", 0.0)  # see test_login_throttle.py
    if "guarded" in request.fixturenames:
        request.getfixturevalue("guarded").cookies.clear()


def walked(app: Any) -> dict[str, bool]:
    """Whether it is a WebSocket, by path with its parameters filled in, of every route of an application."""
    found = walk(app.routes, lambda path: re.sub(r"\{[^}]*\}", "x", path))
    return {path: "websocket" in type(route).__name__.lower() for path, route in found}


def test_walking_finds_everything(app: Any) -> None:
    found = walked(app)
    assert {"/v1/predict", "/v1/jobs", "/v1/jobs/x", "/v1/jobs/x/x", "/v1/models", "/metrics", "/healthz"} <= set(found)
    assert {"/v1/streams", "/v1/streams/x/mjpeg", "/docs", "/openapi.json"} <= set(found)
    assert {"/", "/config", "/gradio_api/queue/join", "/gradio_api/upload"} <= set(found)
    assert {path for path, websocket in found.items() if websocket} >= {"/v1/webcam", "/v1/streams/x/video"}
    # What OpenAPI lists is there too.
    assert {re.sub(r"\{[^}]*\}", "x", path) for path in app.openapi()["paths"]} <= set(found)


def test_nothing_answers_without_credentials(app: Any, guarded: httpx.Client) -> None:
    for path, websocket in sorted({**walked(app), "/static/perception/page.js": False, "/nothing": False}.items()):
        if websocket:
            with pytest.raises(InvalidStatus) as refused:
                connect(f"ws://{guarded.base_url.netloc.decode()}{path}", open_timeout=30)
            assert refused.value.response.status_code == 401, path
            continue
        for method in METHODS:
            answer = guarded.request(method, path)
            assert answer.status_code == 401, (method, path, answer.status_code)
            assert "www-authenticate" in answer.headers
            if (method, path) == ("POST", "/login"):
                assert "<form" in answer.text
            elif method != "HEAD":
                assert answer.json() == {"error": "credentials required"}, (method, path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"auth": (USER, "password")},
        {"auth": ("mario", PASSWORD)},
        {"auth": ("", "")},
        {"headers": {"authorization": f"Bearer {TOKEN}x"}},
        {"headers": {"authorization": f"Bearer {TOKEN[:-1]}"}},
        {"headers": {"authorization": f"Bearer {PASSWORD}".encode()}},
        {"headers": {"authorization": "Bearer"}},
        {"headers": {"authorization": "Basic !!!"}},
        {"headers": {"authorization": f"Digest {TOKEN}"}},
        {"params": {"token": "wrong"}},
        {"params": {"token": ""}},
        {"cookies": {COOKIE: "99999999999.0"}},
        {"cookies": {COOKIE: f"{TOKEN}.{TOKEN}"}},
        {"cookies": {COOKIE: ""}},
    ],
)
def test_wrong_credentials(guarded: httpx.Client, wrong: dict) -> None:
    cookies = wrong.pop("cookies", {})
    guarded.cookies.update(cookies)
    answer = guarded.get("/v1/models", **wrong)
    assert answer.status_code == 401
    assert "credentials" in answer.json()["error"]


@pytest.mark.parametrize(
    "right",
    [
        {"auth": (USER.encode(), PASSWORD.encode())},
        {"headers": {"authorization": f"Bearer {TOKEN}"}},
        {"headers": {"authorization": f"bearer  {TOKEN}"}},
        {"params": {"token": TOKEN}},
    ],
)
def test_right_credentials(guarded: httpx.Client, right: dict) -> None:
    assert guarded.get("/v1/models", **right).status_code == 200
    page = guarded.get("/", **right)
    assert page.status_code == 200
    assert "gradio" in page.text
    # The token does not disturb routes that refuse parameters they do not know.
    assert guarded.post("/v1/predict", content=b"x", **right).status_code == 422


def test_a_person_logs_in_with_a_form(guarded: httpx.Client) -> None:
    form = guarded.get("/docs", headers=PAGE)
    assert form.status_code == 401
    assert form.headers["content-type"].startswith("text/html")
    assert "basic" not in form.headers["www-authenticate"].lower()  # the browser would ask by itself
    assert form.text.count("<form") == 2
    assert 'value="/docs"' in form.text

    wrong = guarded.post("/login", data={"user": USER, "password": "x", "next": "/docs"}, headers=PAGE)
    assert wrong.status_code == 401
    assert "Wrong credentials" in wrong.text
    assert not wrong.cookies

    entered = guarded.post("/login", data={"user": USER, "password": PASSWORD, "next": "/docs"}, headers=PAGE)
    assert (entered.status_code, entered.headers["location"]) == (303, "/docs")
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "secure" not in cookie
    for path in ("/", "/theme.css", "/docs", "/v1/models", "/static/perception/page.js"):
        assert guarded.get(path, headers=PAGE).status_code == 200, path
    assert guarded.get("/logout").status_code == 303
    assert guarded.get("/v1/models").status_code == 401


def test_a_token_logs_in_too(guarded: httpx.Client) -> None:
    assert guarded.post("/login", data={"token": "wrong"}).status_code == 401
    assert guarded.post("/login", data={"token": TOKEN}).headers["location"] == "/"
    assert guarded.get("/v1/models").status_code == 200


def test_a_link_with_a_token_leaves_no_token_in_the_address_bar(guarded: httpx.Client) -> None:
    opened = guarded.get("/?a=1&token=" + TOKEN, headers=PAGE)
    assert (opened.status_code, opened.headers["location"]) == (303, "/?a=1")
    assert guarded.get("/", headers=PAGE).status_code == 200


@pytest.mark.parametrize("target", ["//evil.test/", "https://evil.test/", "/\\evil.test", "/\r\nX: y", "", "/login"])
def test_a_login_leads_nowhere_else(guarded: httpx.Client, target: str) -> None:
    entered = guarded.post("/login", data={"token": TOKEN, "next": target})
    assert entered.headers["location"] == "/"


def test_login_forms_have_a_limit_and_escape_what_they_show(guarded: httpx.Client) -> None:
    assert guarded.post("/login", content=b"user=" + b"x" * 100_000).status_code == 413
    shown = guarded.post("/login", data={"token": "wrong", "next": '/"><script>alert(1)</script>'})
    assert "<script>" not in shown.text


def test_a_login_does_not_last_for_ever() -> None:
    now = 1000.0
    with served(gate(token=TOKEN, clock=lambda: now)) as address, httpx.Client(base_url=f"http://{address}") as client:
        client.post("/login", data={"token": TOKEN})
        now += SESSION_S - 1
        assert client.get("/").status_code == 200
        now += 2
        assert client.get("/").status_code == 401


def test_a_cookie_of_another_server_is_worth_nothing(guarded: httpx.Client) -> None:
    with served(gate(token=TOKEN)) as address:
        cookie = httpx.post(f"http://{address}/login", data={"token": TOKEN}).cookies[COOKIE]
    guarded.cookies.set(COOKIE, cookie)
    assert guarded.get("/v1/models").status_code == 401


def test_a_cookie_that_was_logged_out_is_worth_nothing(guarded: httpx.Client) -> None:
    """Wherever a copy of it is; that of another login is as good as before."""
    one, other = (guarded.post("/login", data={"token": TOKEN}).cookies[COOKIE] for _ in range(2))
    guarded.cookies.clear()

    def status(cookie: str, path: str = "/v1/models", **headers: str) -> int:
        return guarded.get(path, headers={"cookie": f"{COOKIE}={cookie}", **headers}).status_code

    assert one != other
    assert status(one) == status(other) == 200
    assert status(one, "/logout", **{"sec-fetch-site": "cross-site"}) == 303  # another site's link
    assert status(one) == 200
    assert status(one, "/logout", **{"sec-fetch-site": "same-origin"}) == 303
    assert status(one) == 401
    assert status(other) == 200
    assert status(one, "/logout") == 401


def test_logins_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST", 3)
    logins = sessions.Sessions()
    cookies = [logins.begin() for _ in range(5)]
    assert [logins.holds(cookie) for cookie in cookies] == [False, False, True, True, True]


@pytest.mark.parametrize(
    ("headers", "secure"), [({}, False), ({"origin": "https://{address}"}, True), ({"host": "cams.example.org"}, True)]
)
def test_cookies_stay_on_tls_where_a_proxy_takes_it_off(headers: dict[str, str], secure: bool) -> None:
    with served(gate(token=TOKEN, origins=["https://cams.example.org"])) as address:
        said = {name: value.format(address=address) for name, value in headers.items()}
        entered = httpx.post(f"http://{address}/login", data={"token": TOKEN}, headers=said)
        assert ("secure" in entered.headers["set-cookie"].lower()) is secure


# Pages of other sites.


def gate(clock: Callable[[], float] = time.monotonic, **values: Any) -> Starlette:
    """A small application behind the gate."""

    async def text(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(request.url.query))

    async def socket_(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("hello")
        await websocket.receive()

    async def waits(request: Request) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"yes"
            await asyncio.Event().wait()

        return StreamingResponse(parts())

    routes = [
        Route("/", text, methods=["GET", "POST", "DELETE"]),
        Route("/waits", waits),
        WebSocketRoute("/ws", socket_),
    ]
    app = Starlette(routes=routes)
    app.add_middleware(AuthenticationMiddleware, settings=make_settings(values), metrics=Metrics(), clock=clock)
    return app


@pytest.fixture(scope="module")
def opened() -> Iterator[str]:
    with served(gate(origins=["https://cameras.example.org"])) as address:
        yield address


def says_hello(address: str, called: str = "", **headers: str) -> bool:
    """Whether a WebSocket is let in, at the address but under the name that it is called by."""
    try:
        name, _, port = address.partition(":")
        connection = socket.create_connection((name, int(port)))
        url = f"ws://{called or address}/ws"
        with connect(url, sock=connection, additional_headers=headers, open_timeout=30) as websocket:
            return websocket.recv(timeout=30) == "hello"
    except InvalidStatus as refused:
        assert refused.response.status_code == 403
        return False


@pytest.mark.parametrize(
    ("origin", "own"),
    [
        (None, True),
        ("http://{address}", True),
        ("https://{address}", True),  # a proxy took TLS off
        ("https://cameras.example.org", True),
        ("https://cameras.example.org:443", True),
        ("http://evil.test", False),
        ("http://127.0.0.1", False),  # another port is another server
        ("http://{address}.evil.test", False),
        ("https://cameras.example.org.evil.test", False),
        ("null", False),
        ("", False),
        ("http://[", False),
    ],
)
def test_origins(opened: str, origin: str | None, own: bool) -> None:
    headers = {} if origin is None else {"origin": origin.format(address=opened)}
    for method in ("POST", "DELETE"):
        assert httpx.request(method, f"http://{opened}/", headers=headers).status_code == (200 if own else 403)
    assert httpx.get(f"http://{opened}/", headers=headers).status_code == 200  # changes nothing
    assert says_hello(opened, **headers) is own


def test_a_form_of_another_site_without_origin(opened: str) -> None:
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        assert httpx.post(f"http://{opened}/", headers={"sec-fetch-site": site}).status_code == status


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("localhost", True),
        ("localhost:1234", True),
        ("127.0.0.1:1", True),
        ("[::1]:7860", True),
        ("192.168.1.7", True),
        ("box", True),
        (socket.gethostname(), True),
        ("cameras.example.org", True),
        ("evil.test", False),
        ("127.0.0.1.evil.test", False),
        ("evil.test:7860", False),
    ],
)
def test_names_that_a_stranger_may_have_pointed_here(opened: str, host: str, known: bool) -> None:
    answer = httpx.get(f"http://{opened}/", headers={"host": host})
    assert answer.status_code == (200 if known else 403)
    assert says_hello(opened, host) is known


def test_with_credentials_any_name_will_do(guarded: httpx.Client) -> None:
    headers = {"host": "cameras.example.org", "authorization": f"Bearer {TOKEN}"}
    assert guarded.get("/v1/models", headers=headers).status_code == 200


def test_requests_have_a_limit() -> None:
    with served(gate(limits={"connections": 2, "share": 1})) as address, ExitStack() as stack:
        for _ in range(2):
            waiting = stack.enter_context(httpx.stream("GET", f"http://{address}/waits", timeout=60))
            assert waiting.status_code == 200
        busy = httpx.get(f"http://{address}/")
        assert busy.status_code == 503
        assert int(busy.headers["retry-after"]) >= 1
        assert "too many" in busy.json()["error"]
        assert says_hello(address)  # those that last are counted apart
        stack.close()
        wait_for(lambda: httpx.get(f"http://{address}/").status_code == 200)  # those who left made room


def test_requests_that_last_have_a_limit_of_their_own() -> None:
    with served(gate(limits={"long_lived": 2, "connections": 1, "share": 1})) as address:
        with connect(f"ws://{address}/ws"), connect(f"ws://{address}/ws"):
            with pytest.raises(InvalidStatus) as refused:
                connect(f"ws://{address}/ws")
            assert refused.value.response.status_code == 503
            assert httpx.get(f"http://{address}/v1/streams/x/mjpeg").status_code == 503
            assert httpx.get(f"http://{address}/").status_code == 200
        wait_for(lambda: httpx.get(f"http://{address}/v1/streams/x/mjpeg").status_code == 404)


def test_a_client_has_a_share() -> None:
    """Another one finds room whatever it does."""
    limits = {"long_lived": 4, "connections": 4, "share": 0.5}
    with served(gate(limits=limits)) as address, ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(connect(f"ws://{address}/ws"))
            waiting = stack.enter_context(httpx.stream("GET", f"http://{address}/waits", timeout=60))
            assert waiting.status_code == 200
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws://{address}/ws")
        assert refused.value.response.status_code == 429
        busy = httpx.get(f"http://{address}/")
        assert busy.status_code == 429
        assert int(busy.headers["retry-after"]) >= 1
        assert "one client gets 2 of 4" in busy.json()["error"]
        other = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(transport=other, base_url=f"http://{address}") as client:
            assert client.get("/").status_code == 200
        with connect(f"ws://{address}/ws", source_address=("127.0.0.2", 0)) as socket_:
            assert socket_.recv(30) == "hello"


def test_clients_that_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred of them disturb nobody; in time they are let go, and those who speak are not."""
    monkeypatch.setattr(http, "HEAD_TIMEOUT_S", 2.0)
    with served(gate()) as address:
        name, _, port = address.partition(":")
        with connect(f"ws://{address}/ws") as spoken:
            assert spoken.recv(timeout=30) == "hello"
            silent = [socket.create_connection((name, int(port)), timeout=60) for _ in range(200)]
            silent[0].sendall(b"GET / HT")  # begins and never ends
            assert httpx.get(f"http://{address}/", timeout=60).status_code == 200
            assert [connection.recv(1) for connection in silent] == [b""] * 200
            for connection in silent:
                connection.close()
            spoken.ping().wait(30)
            assert httpx.get(f"http://{address}/", timeout=60).status_code == 200


def test_clients_that_stop_in_the_middle_of_their_second_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """One answer is no licence to hold a connection; a slow answer is no silence."""
    monkeypatch.setattr(http, "HEAD_TIMEOUT_S", 1.0)

    async def slow(request: Request) -> PlainTextResponse:
        await asyncio.sleep(3.5)
        return PlainTextResponse("at last")

    with served(Starlette(routes=[Route("/slow", slow)])) as address:
        name, _, port = address.partition(":")
        head = f"GET /none HTTP/1.1\r\nHost: {address}\r\n\r\n".encode()
        with socket.create_connection((name, int(port)), timeout=60) as half:
            half.sendall(head)
            assert half.recv(4096).startswith(b"HTTP/1.1 404")
            half.sendall(head[:10])
            assert httpx.get(f"http://{address}/slow", timeout=60).text == "at last"
            half.settimeout(0)
            assert half.recv(1) == b""


def test_headers_of_every_answer(opened: str) -> None:
    headers = httpx.get(f"http://{opened}/").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert headers["cross-origin-resource-policy"] == "same-origin"
