"""What one address can make the event loop do, and that nobody else notices."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from perception.server.app import create_app
from perception.server.edge.rates import RateLimit
from perception.server.edge.tarpit import PROBES, Metered
from perception.server.settings import Limits
from tests.server.clocks import ManualClock
from tests.server.conftest import wait_until_ready
from tests.server.served import served
from tests.server.tarpit_server import FEW, FREE, HELD, ONE, OTHER, TarpitServer, ask, client, quick
from tests.server.waiting import wait_for

__all__ = ["quick"]


@pytest.mark.usefixtures("quick")
def test_refused_requests_on_one_connection_come_late() -> None:
    server = TarpitServer(**FEW)
    with server.open() as address, client(address) as one:
        assert [ask(one, "/404") for _ in range(FREE)] == [404] * FREE
        assert server.throttled("delayed") == 0
        began = time.monotonic()
        assert [ask(one, "/404") for _ in range(4)] == [404] * 4
        assert time.monotonic() - began >= (1 + 2 + 3 + 4) / 20
        assert [ask(one, "/") for _ in range(20)] == [200] * 20  # not late: it is there already, and does no harm
        assert server.throttled("delayed") == 4
        server.clock.advance(4 / 20)
        assert ask(one, "/404") == 404
    assert server.throttled("delayed") == 5
    assert server.throttled("turned away") == 0


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("keep", [True, False], ids=["connections that stay", "connections that come and go"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429])
def test_a_flood_of_refused_requests_hardly_gets_through(keep: bool, status: int) -> None:
    """However many come at once: the application sees the first ones, and another address notices nothing."""
    server = TarpitServer(**FEW)
    with server.open() as address, ExitStack() as stack:
        floods = [stack.enter_context(client(address)) for _ in range(16)]
        pool = stack.enter_context(ThreadPoolExecutor(16))
        headers = {} if keep else {"connection": "close"}

        def flood(one: httpx.Client) -> Counter[int | str]:
            return Counter(ask(one, f"/{status}", headers=headers) for _ in range(8))

        answers = sum(pool.map(flood, floods), Counter[int | str]())
        reached = server.reached[f"/{status}"]
        assert answers.total() == 128
        assert FREE <= reached <= FREE + HELD + 16  # those that were in progress when it was full
        assert server.throttled("turned away") > 0
        with client(address, OTHER) as other:
            assert [ask(other, "/") for _ in range(5)] == [200] * 5
            assert [ask(other, f"/{status}") for _ in range(5)] == [status] * 5
        turned_away = client(address)
        assert ask(turned_away, "/") in (429, "ReadError", "RemoteProtocolError")  # its neighbour must try again
        server.clock.advance(60)
        assert ask(turned_away, "/") == 200


@pytest.mark.usefixtures("quick")
def test_connections_wait_while_refusals_do_and_are_then_read() -> None:
    server = TarpitServer(**FEW)
    with server.open() as address:
        server.exhaust(ONE, 0.3)
        host, _, port = address.rpartition(":")
        for number in (1, 2, 3):  # the head in pieces, some of it while nothing is read
            with socket.create_connection((host, int(port)), timeout=60) as late:
                began = time.monotonic()
                late.sendall(b"GET / HTTP/1.1\r\n")
                time.sleep(0.02)
                late.sendall(b"Host: x\r\n\r\n")
                assert late.recv(4096).startswith(b"HTTP/1.1 200")
                assert time.monotonic() - began > 0.25
            assert server.reached["/"] == server.throttled("delayed") == number


@pytest.mark.usefixtures("quick")
def test_connections_that_leave_while_they_wait_leave_nothing() -> None:
    server = TarpitServer(**FEW)
    with server.open() as address:
        server.exhaust(ONE, 0.01)
        host, _, port = address.rpartition(":")
        for _ in range(HELD + 3):
            with socket.create_connection((host, int(port)), timeout=60) as gone:
                gone.sendall(b"GET /404 HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for(lambda: server.throttled("turned away") > 0)
        time.sleep(2 * HELD / 20)
        with client(address, OTHER) as other:
            assert ask(other, "/") == 200
    assert server.reached["/404"] <= HELD


@pytest.mark.usefixtures("quick")
def test_a_flood_of_connections_is_closed_before_it_is_read() -> None:
    server = TarpitServer(connections_per_s=20)
    with server.open() as address:
        host, _, port = address.rpartition(":")
        answers: Counter[bytes] = Counter()
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.create_connection((host, int(port)), 60)) for _ in range(100)]
            for one in sockets:
                with suppress(OSError):
                    one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            for one in sockets:
                try:
                    answers[one.recv(4096)[9:12]] += 1
                except OSError:
                    answers[b"closed"] += 1
        with client(address, OTHER) as other:
            assert ask(other, "/") == 200
    assert answers[b"200"] == FREE + HELD
    assert server.reached["/"] == FREE + HELD + 1
    assert server.throttled("turned away") == 100 - (FREE + HELD)


@pytest.mark.usefixtures("quick")
def test_requests_that_succeed_wait_beyond_their_share_of_the_loop() -> None:
    """By the processor time that they take of it, however few they are."""
    server = TarpitServer()
    with server.open() as address, client(address) as one, client(address, OTHER) as other:
        free = 0
        while not server.throttled("delayed"):
            status = ask(one, "/busy")  # a tenth of a second each, of a burst of one second
            if status != 200:  # one that took far more, where the machine counts what others took: turned away at once
                assert (status, server.throttled("turned away")) == (429, 1)
                break
            free += 1
        assert 7 <= free <= 11
        answers = Counter(ask(one, "/busy") for _ in range(20))
        assert answers[429] > 10
        assert server.throttled("turned away") > 10
        assert [ask(other, "/") for _ in range(5)] == [200] * 5
        assert ask(one, "/healthz") == 200
        server.clock.advance(3)
        assert ask(one, "/busy") == 200


@pytest.mark.usefixtures("quick")
def test_messages_of_a_socket_wait_too() -> None:
    server = TarpitServer()
    with server.open() as address, connect(f"ws://{address}/talk") as talk:
        server.rates.time.add(ONE, FREE / 20 * 0.5 + 0.1)
        began = time.monotonic()
        for number in range(3):
            talk.send(str(number))
            assert talk.recv(60) == str(number)
        assert time.monotonic() - began > 3 * 0.1 / 0.5


def test_metering_changes_nothing() -> None:
    """Of what a coroutine gives, waits for, raises and is told."""

    async def inner(how: str) -> str:
        await asyncio.sleep(0)
        if how == "raise":
            raise ValueError("no")
        try:
            await asyncio.wait_for(asyncio.sleep(60 if how == "cancel" else 0.01), 0.05)
        except asyncio.TimeoutError:
            return "late"
        return "done"

    async def outer() -> None:
        spent: list[float] = []
        assert await Metered(inner("end"), spent.append) == "done"
        assert len(spent) >= 3 and min(spent) >= 0
        assert await Metered(inner("cancel"), spent.append) == "late"
        with pytest.raises(ValueError, match="no"):
            await Metered(inner("raise"), spent.append)

        async def wait() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                spent.append(-1.0)

        async def metered() -> None:
            await Metered(wait(), spent.append)

        task = asyncio.create_task(metered())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert -1.0 in spent

    asyncio.run(outer())


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("path", ["refuse", "hang"])
def test_refused_sockets_count(path: str) -> None:
    server = TarpitServer(**FEW)
    answers: Counter[str] = Counter()
    with server.open() as address:
        for number in range(1, FREE + 4):
            try:
                with connect(f"ws://{address}/{path}", open_timeout=60) as refused:
                    refused.recv(60)
            except (InvalidStatus, ConnectionClosed) as error:
                answers[type(error).__name__] += 1
            assert bool(server.throttled("delayed")) is (number > FREE)
    assert answers.total() == FREE + 3


@pytest.mark.usefixtures("quick")
def test_probes_wait_for_nothing_else() -> None:
    """Not for what the same address is refused; other requests of it are told to come again."""
    server = TarpitServer(**FEW)
    with server.open(root_path="/perception") as address, client(address) as probe, client(address) as one:
        assert ask(probe, "/healthz") == ask(one, "/") == 200
        server.exhaust(ONE)
        assert [ask(probe, path) for path in 5 * PROBES] == [200] * 15
        assert [ask(probe, f"/perception{path}") for path in PROBES] == [200] * 3
        assert ask(one, "/") == 429
        assert ask(one, "/") in (429, "ReadError", "RemoteProtocolError")


@pytest.mark.usefixtures("quick")
def test_probes_have_a_rate_too() -> None:
    server = TarpitServer()
    with server.open() as address, client(address) as one, ThreadPoolExecutor(16) as pool:
        answers = Counter(pool.map(lambda _: ask(one, "/metrics"), range(FREE + HELD + 30)))
        assert ask(one, "/") == 200
    assert answers[200] == FREE + HELD
    assert server.throttled("turned away") == 30


@pytest.mark.usefixtures("quick")
def test_clients_behind_a_proxy_are_told_apart() -> None:
    """Connections of a proxy carry them all; nobody waits for another."""
    server = TarpitServer(**FEW, connections_per_s=1)
    with server.open("127.0.0.1") as address, client(address) as proxy, ExitStack() as stack:
        bad, good = ({"x-forwarded-for": f"203.0.113.{number}"} for number in (1, 2))
        pool = stack.enter_context(ThreadPoolExecutor(32))
        answers = Counter(pool.map(lambda _: ask(proxy, "/404", headers=bad), range(200)))
        assert FREE + HELD <= answers[404] <= FREE + HELD + 32
        assert answers[429] == 200 - answers[404]
        assert server.reached["/404"] == answers[404]
        assert [ask(proxy, "/", headers=good) for _ in range(20)] == [200] * 20
        assert [ask(proxy, "/404", headers=good) for _ in range(20)] == [404] * 20
        assert ask(proxy, "/", headers=bad) == 429


def test_sixteen_pages_probes_and_typing_errors_are_never_delayed(make: Any) -> None:
    """Of one address, the machine's own, and all at once, as far as the rates can tell: pages with their files and what
    browsers ask for besides, wrong passwords, tabs of an old session, health and metrics each time."""
    app = create_app(make(user="maria", password="a pass phrase", limits=Limits().model_dump()))
    stopped = ManualClock()
    limits = [limit for limit in vars(app.state.rates).values() if isinstance(limit, RateLimit)]
    assert len(limits) == 4
    for limit in limits:
        limit._clock = stopped
    with served(app) as address, client(address) as one:
        wait_until_ready(one, path="/", auth=("maria", "a pass phrase"))
        for number in range(3):
            form = {"user": "maria", "password": f"a pass phrse{number}"}
            assert one.post("/login", data=form).status_code == 401
        assert one.post("/login", data={"user": "maria", "password": "a pass phrase"}).status_code == 303
        session = {"cookie": "; ".join(f"{name}={value}" for name, value in one.cookies.items())}
        files = ["/", *_assets()[:FILES], "/theme.css", "/favicon.ico", "/manifest.json", "/v1/models", *PROBES[:1]]
        missing = ("/gradio_api/heartbeat/x", "/gradio_api/startup-events", "/robots.txt", "/x.js.map")

        def tab(number: int) -> Counter[int | str]:
            with client(address) as browser:
                found = Counter(ask(browser, path, headers=session) for path in (*files, *missing))
                found[ask(browser, "/")] += 1  # of a session that is over
                with connect(f"ws://{address}/v1/webcam", additional_headers=session) as webcam:
                    for _ in range(5):
                        webcam.send("{}")
                        webcam.recv(60)
                return found

        with ThreadPoolExecutor(16) as pool:
            found = sum(pool.map(tab, range(16)), Counter[int | str]())
        assert found == {200: 16 * len(files), 404: 16 * len(missing), 401: 16}
    value = app.state.service.metrics.registry.get_sample_value
    assert [value("perception_throttled_total", {"how": how}) for how in ("delayed", "turned away")] == [None, None]


FILES = 40
"""A page's, at least."""


def _assets() -> list[str]:
    import gradio

    from perception.server.page.edge import PATHS

    folder = Path(gradio.__path__[0]) / "templates" / "frontend"
    names = sorted(f"/assets/{path.name}" for path in (folder / "assets").iterdir())
    return [name for name in names if PATHS.fullmatch(name)]
