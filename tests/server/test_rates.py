"""What one address can make the event loop do, and that nobody else notices."""

from __future__ import annotations

import random
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from perception.server.app import create_app
from perception.server.edge import rates as rates_module
from perception.server.edge.rates import BURST_S, LONGEST_S, REQUESTS_BURST_S, ClientRates, RateLimit
from perception.server.edge.tarpit import PROBES, TarpitMiddleware
from perception.server.metrics import Metrics
from perception.server.settings import Limits
from tests.server.clocks import ManualClock
from tests.server.conftest import wait_until_ready
from tests.server.served import served

ONE, OTHER = "127.0.0.1", "127.0.0.2"


@pytest.mark.parametrize("seed", range(20))
def test_never_more_than_the_rate_and_the_burst(seed: int) -> None:
    """In no stretch of time are more let go than a bucket of ``burst`` tokens, refilled at the rate, would hold."""
    chance = random.Random(seed)
    per_s, burst = chance.choice([0.5, 3.0, 40.0]), chance.randrange(1, 30)
    clock = ManualClock()
    limit = RateLimit(per_s, burst, clock)
    let_go: list[float] = []
    for _ in range(400):
        clock.advance(chance.choice([0.0, 0.0, 0.1, 1.0]) * chance.random() / per_s)
        wait = limit.take("a")
        if wait is not None:
            assert 0 <= wait <= LONGEST_S
            let_go.append(clock() + wait)
    assert let_go == sorted(let_go)  # nobody is overtaken
    for first, began in enumerate(let_go):
        for count, ended in enumerate(let_go[first:], 1):
            assert count <= burst + per_s * (ended - began) + 1e-6


def test_who_keeps_to_the_rate_never_waits() -> None:
    clock = ManualClock()
    limit = RateLimit(8, 1, clock)
    for _ in range(1000):
        assert limit.take("a") == 0
        clock.advance(0.1251)


def test_waiting_is_bounded_and_over_soon() -> None:
    clock = ManualClock()
    limit = RateLimit(8, 160, clock)
    waits = [limit.take("a") for _ in range(10_000)]
    assert waits[:160] == [0.0] * 160
    waiting = [wait for wait in waits if wait]
    assert waiting == sorted(waiting)  # longer and longer
    assert len(waiting) == 8 * LONGEST_S
    assert waits[-1] is None and limit.wait("a") is None
    assert limit.take("b") == 0
    clock.advance(LONGEST_S + 0.126)  # those that were turned away do not count
    assert limit.take("a") == 0


def test_the_number_of_clients_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates_module, "MOST", 10)
    limit = RateLimit(1, 1, ManualClock())
    assert limit.take("a") == 0
    for number in range(1000):
        limit.take(f"b{number}")
        if number < 2:
            assert limit.take("a") == number + 1
        elif number == 2:
            assert limit.take("a") is None
        else:
            limit.take(f"b{number}")
    assert len(limit._due) == 10


@pytest.mark.parametrize(
    ("proxies", "address", "limited"),
    [
        ([], "127.0.0.1", True),
        (["127.0.0.1"], "127.0.0.1", False),
        (["127.0.0.1"], "::ffff:127.0.0.1", False),
        (["127.0.0.1"], "127.0.0.2", True),
        (["10.0.0.0/8"], "10.200.3.4", False),
        (["10.0.0.0/8"], "2001:db8::1", True),
        (["2001:db8::/32"], "2001:db8:7::1", False),
        (["127.0.0.1"], "", False),  # a Unix socket
    ],
)
def test_whose_connections_are_limited(proxies: list[str], address: str, limited: bool) -> None:
    rates = ClientRates(Limits(connections_per_s=1), proxies, clock=ManualClock())
    waits = [rates.connect(address) for _ in range(100)]
    assert (waits[-1] is None) is limited
    assert (set(waits) == {0.0}) is not limited


def test_where_one_client_may_have_everything_nothing_is_limited() -> None:
    rates = ClientRates(Limits(share=1, requests_per_s=1, refusals_per_s=1, connections_per_s=1), clock=ManualClock())
    for limit in (rates.requests, rates.refusals, rates.probes):
        assert {limit.take("a") for _ in range(10_000)} == {0.0}
    assert {rates.connect("192.0.2.1") for _ in range(10_000)} == {0.0}


class Gate:
    """An application behind the tarpit, by real sockets; what got through to it is counted."""

    def __init__(self, **limits: Any) -> None:
        self.reached: Counter[str] = Counter()
        self.metrics = Metrics()
        self.limits = Limits(**limits)

        async def answer(request: Any) -> Response:
            path = request.url.path
            self.reached[path] += 1
            return PlainTextResponse(path, int(request.path_params.get("status", 200)))

        async def talk(socket: WebSocket) -> None:
            await socket.accept()
            with suppress(Exception):
                while True:
                    await socket.send_text(await socket.receive_text())

        async def refuse(socket: WebSocket) -> None:
            self.reached["refuse"] += 1
            await socket.close()

        async def hang_up(socket: WebSocket) -> None:
            self.reached["hang up"] += 1
            await socket.accept()
            await socket.close(1008)

        sockets = [WebSocketRoute("/talk", talk), WebSocketRoute("/refuse", refuse), WebSocketRoute("/hang", hang_up)]
        routes = [Route(path, answer) for path in ("/", *PROBES)]
        self.app = Starlette(routes=[*routes, Route("/{status:int}", answer, methods=["GET", "POST"]), *sockets])
        self.proxies: tuple[str, ...] = ()

    @contextmanager
    def open(self, *proxies: str, root_path: str = "") -> Iterator[str]:
        rates = ClientRates(self.limits, proxies, self.metrics)
        self.app.add_middleware(TarpitMiddleware, rates=rates, root_path=root_path)
        if proxies:
            self.app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(proxies))
        self.app.state.rates = rates
        with served(self.app) as address:
            yield address

    def throttled(self, how: str) -> float:
        for family in text_string_to_metric_families(self.metrics.render().decode()):
            for sample in family.samples:
                if sample.name == "perception_throttled_total" and sample.labels == {"how": how}:
                    return float(sample.value)
        return 0.0


def client(address: str, own: str = ONE, **options: Any) -> httpx.Client:
    transport = httpx.HTTPTransport(local_address=own, limits=httpx.Limits(max_connections=None), **options)
    return httpx.Client(transport=transport, base_url=f"http://{address}", timeout=60)


def ask(one: httpx.Client, path: str, **options: Any) -> int | str:
    try:
        return one.get(path, **options).status_code
    except httpx.HTTPError as error:
        return type(error).__name__


FEW = {"refusals_per_s": 4}
FREE = round(4 * BURST_S)
HELD = round(4 * LONGEST_S)


def test_refused_requests_on_one_connection_come_at_the_rate() -> None:
    gate = Gate(**FEW)
    with gate.open() as address, client(address) as one:
        assert [ask(one, "/404") for _ in range(FREE)] == [404] * FREE
        began = time.monotonic()
        assert [ask(one, "/404") for _ in range(8)] == [404] * 8
        assert time.monotonic() - began > 1  # at least: refilled meanwhile
        assert ask(one, "/") == 200
    assert gate.throttled("delayed") >= 1
    assert gate.throttled("turned away") == 0


@pytest.mark.parametrize("keep", [True, False], ids=["connections that stay", "connections that come and go"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429])
def test_a_flood_of_refused_requests_hardly_gets_through(keep: bool, status: int) -> None:
    """However many come at once: the application sees the first ones, then a few per second."""
    gate = Gate(**FEW)
    with gate.open() as address, ExitStack() as stack:
        floods = [stack.enter_context(client(address)) for _ in range(16)]
        pool = stack.enter_context(ThreadPoolExecutor(16))
        headers = {} if keep else {"connection": "close"}
        began = time.monotonic()

        def flood(one: httpx.Client) -> Counter[int | str]:
            return Counter(ask(one, f"/{status}", headers=headers) for _ in range(40))

        answers = sum(pool.map(flood, floods), Counter[int | str]())
        seconds = time.monotonic() - began
        with client(address, OTHER) as other:
            assert [ask(other, "/") for _ in range(20)] == [200] * 20
            assert [ask(other, f"/{status}") for _ in range(20)] == [status] * 20
    assert answers.total() == 640
    assert gate.reached[f"/{status}"] - 20 <= FREE + HELD + 4 * seconds + 16
    assert gate.throttled("turned away") + gate.throttled("delayed") > 0


def test_connections_wait_while_refusals_do_and_are_then_read() -> None:
    gate = Gate(**FEW)
    with gate.open() as address:
        with client(address) as one:
            for _ in range(FREE + 1):
                ask(one, "/404")
            before = gate.throttled("delayed")
        host, _, port = address.rpartition(":")
        waits = []
        for _ in range(3):  # the head in pieces, some of it while nothing is read
            with socket.create_connection((host, int(port)), timeout=60) as late:
                began = time.monotonic()
                late.sendall(b"GET / HTTP/1.1\r\n")
                time.sleep(0.02)
                late.sendall(b"Host: x\r\n\r\n")
                assert late.recv(4096).startswith(b"HTTP/1.1 200")
                waits.append(time.monotonic() - began)
        assert max(waits) > 0.05
        assert gate.throttled("delayed") > before
    assert gate.reached["/"] == 3


def test_connections_that_leave_while_they_wait_leave_nothing() -> None:
    gate = Gate(**FEW)
    with gate.open() as address:
        with client(address) as one:
            for _ in range(FREE + 1):
                ask(one, "/404")
        host, _, port = address.rpartition(":")
        for _ in range(HELD):
            with socket.create_connection((host, int(port)), timeout=60) as gone:
                gone.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with client(address, OTHER) as other:
            assert ask(other, "/") == 200
        time.sleep(LONGEST_S + 0.3)
    assert gate.reached["/"] == 1


def test_a_flood_of_connections_is_closed_before_it_is_read() -> None:
    gate = Gate(connections_per_s=2)
    with gate.open() as address:
        host, _, port = address.rpartition(":")
        answers: Counter[bytes] = Counter()
        began = time.monotonic()
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.create_connection((host, int(port)), 60)) for _ in range(200)]
            for one in sockets:
                with suppress(OSError):
                    one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            for one in sockets:
                try:
                    answers[one.recv(4096)[9:12]] += 1
                except OSError:
                    answers[b"closed"] += 1
        seconds = time.monotonic() - began
        with client(address, OTHER) as other:
            assert ask(other, "/") == 200
    most = 2 * (BURST_S + LONGEST_S + seconds) + 2
    assert 2 * BURST_S <= answers[b"200"] <= most
    assert gate.reached["/"] <= most + 1
    assert gate.throttled("turned away") >= 200 - most


def test_requests_that_succeed_wait_beyond_their_rate() -> None:
    gate = Gate(requests_per_s=20)
    free = round(20 * REQUESTS_BURST_S)
    with gate.open() as address, client(address) as one, ThreadPoolExecutor(16) as pool:
        began = time.monotonic()
        answers = list(pool.map(lambda _: ask(one, "/"), range(free + 60)))
        seconds = time.monotonic() - began
        assert Counter(answers)[200] <= free + 20 * (seconds + LONGEST_S)
        assert seconds > 2
        assert gate.throttled("delayed") > 0


def test_messages_of_a_socket_count_as_requests() -> None:
    gate = Gate(requests_per_s=20)
    free = round(20 * REQUESTS_BURST_S)
    with gate.open() as address, connect(f"ws://{address}/talk") as talk:
        began = time.monotonic()
        for number in range(free + 40):
            talk.send(str(number))
            assert talk.recv(60) == str(number)
        assert time.monotonic() - began > 1.5


@pytest.mark.parametrize("path", ["refuse", "hang"])
def test_refused_sockets_count(path: str) -> None:
    gate = Gate(**FEW)
    answers: Counter[str] = Counter()
    with gate.open() as address:
        began = time.monotonic()
        for _ in range(FREE + 6):
            try:
                with connect(f"ws://{address}/{path}", open_timeout=60) as refused:
                    refused.recv(60)
            except (InvalidStatus, ConnectionClosed) as error:
                answers[type(error).__name__] += 1
        assert time.monotonic() - began > 0.5
    assert answers.total() == FREE + 6
    assert gate.throttled("delayed") > 0


def test_probes_wait_for_nothing_of_the_same_address() -> None:
    """On a connection of its own that is there already, whatever else that address is up to."""
    gate = Gate(**FEW, requests_per_s=10)
    with gate.open() as address, client(address) as probe, ExitStack() as stack:
        assert ask(probe, "/healthz") == 200
        floods = [stack.enter_context(client(address)) for _ in range(8)]
        over = threading.Event()

        def flood(one: httpx.Client) -> None:
            while not over.is_set():
                ask(one, "/404")
                ask(one, "/")

        threads = [threading.Thread(target=flood, args=(one,)) for one in floods]
        for thread in threads:
            thread.start()
        while not gate.throttled("turned away"):
            time.sleep(0.01)
        delayed = []
        for path in 5 * PROBES:
            began = time.monotonic()
            assert ask(probe, path) == 200
            delayed.append(time.monotonic() - began)
        over.set()
        for thread in threads:
            thread.join(60)
    assert statistics.median(delayed) < LONGEST_S / 4


def test_probes_have_a_rate_too() -> None:
    gate = Gate()
    with gate.open(root_path="/perception") as address, client(address) as one, ThreadPoolExecutor(16) as pool:
        answers = Counter(pool.map(lambda _: ask(one, "/metrics"), range(700)))
        assert ask(one, "/") == 200
    assert answers[200] < 700
    assert gate.throttled("turned away") > 0


def test_clients_behind_a_proxy_are_told_apart() -> None:
    """One connection of a proxy carries them all; nobody's waits for another's."""
    gate = Gate(**FEW)
    with gate.open("127.0.0.1") as address, client(address) as proxy, ExitStack() as stack:
        bad, good = ({"x-forwarded-for": f"203.0.113.{number}"} for number in (1, 2))
        pool = stack.enter_context(ThreadPoolExecutor(32))
        began = time.monotonic()
        flood = [pool.submit(ask, proxy, "/404", headers=bad) for _ in range(600)]
        while not gate.throttled("turned away"):
            time.sleep(0.01)
        assert [ask(proxy, "/", headers=good) for _ in range(20)] == [200] * 20
        assert [ask(proxy, "/404", headers=good) for _ in range(20)] == [404] * 20
        answers = Counter(future.result() for future in flood)
        seconds = time.monotonic() - began
    assert answers[404] <= FREE + HELD + 4 * seconds + 1
    assert answers[429] == 600 - answers[404]
    assert gate.reached["/404"] <= FREE + HELD + 4 * seconds + 21


def statuses(work: Callable[[], Iterator[int | str]]) -> Counter[int | str]:
    return Counter(work())


def test_sixteen_pages_probes_and_typing_errors_are_never_delayed(make: Any) -> None:
    """Of one address, the machine's own: pages with all their files and what browsers ask for besides, wrong passwords,
    tabs of an old session, health and metrics each time."""
    app = create_app(make(user="maria", password="a pass phrase"))
    service = app.state.service
    with served(app) as address, client(address) as log_in:
        wait_until_ready(log_in, auth=("maria", "a pass phrase"))
        for number in range(3):
            form = {"user": "maria", "password": f"a pass phrse{number}"}
            assert log_in.post("/login", data=form).status_code == 401
        assert log_in.post("/login", data={"user": "maria", "password": "a pass phrase"}).status_code == 303
        cookies = dict(log_in.cookies)
        page = log_in.get("/")
        assert page.status_code == 200
        assets = [f"/assets/{name}" for name in _assets()]
        assert len(assets) > 50

        def tab(number: int) -> Counter[int | str]:
            with client(address) as browser:
                browser.cookies.update(cookies)
                found: Counter[int | str] = Counter()
                for path in ("/", *assets[:120], "/theme.css", "/favicon.ico", "/manifest.json", "/v1/models"):
                    found[ask(browser, path)] += 1
                for path in ("/gradio_api/heartbeat/x", "/gradio_api/startup-events", "/robots.txt", "/x.js.map"):
                    found[ask(browser, path)] += 1
                for path in PROBES:
                    found[ask(browser, path)] += 1
                browser.cookies.clear()
                found[ask(browser, "/")] += 1  # of a session that is over
                with connect(f"ws://{address}/v1/webcam", additional_headers={"cookie": _cookie(cookies)}) as webcam:
                    for _ in range(20):
                        webcam.send("{}")
                        webcam.recv(60)
                return found

        with ThreadPoolExecutor(16) as pool:
            found = sum(pool.map(tab, range(16)), Counter[int | str]())
        assert set(found) == {200, 404, 401}
        assert (found[404], found[401]) == (16 * 4, 16)
        assert found[200] >= 16 * 60
        metrics = service.metrics.render().decode()
    assert "perception_throttled_total" not in metrics


def _cookie(cookies: dict[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


def _assets() -> list[str]:
    import gradio

    from perception.server.page.edge import PATHS

    folder = f"{gradio.__path__[0]}/templates/frontend/assets"
    from pathlib import Path

    return sorted(path.name for path in Path(folder).iterdir() if PATHS.fullmatch(f"/assets/{path.name}"))
