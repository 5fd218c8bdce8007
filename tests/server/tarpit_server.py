"""An application behind the tarpit, and clients of it with addresses of their own."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from perception.server.edge import rates as rates_module
from perception.server.edge.rates import ClientRates
from perception.server.edge.tarpit import PROBES, TarpitMiddleware
from perception.server.metrics import Metrics
from perception.server.settings import Limits
from tests.server.clocks import ManualClock
from tests.server.served import served

ONE, OTHER = "127.0.0.1", "127.0.0.2"


class TarpitServer:
    """An application behind the tarpit, by real sockets; what got through to it is counted.

    Time stands still for the rates, so that what they let through is the same on every machine; delays are real.
    """

    def __init__(self, **limits: Any) -> None:
        self.reached: Counter[str] = Counter()
        self.metrics = Metrics()
        self.clock = ManualClock()
        self.limits = Limits(**limits)

        async def answer(request: Any) -> Response:
            path = request.url.path
            self.reached[path] += 1
            return PlainTextResponse(path, int(request.path_params.get("status", 200)))

        async def work(request: Any) -> Response:
            until = time.thread_time() + 0.1
            while time.thread_time() < until:
                pass
            return PlainTextResponse("done")

        async def talk(socket: WebSocket) -> None:
            await socket.accept()
            with suppress(WebSocketDisconnect):
                while True:
                    await socket.send_text(await socket.receive_text())

        async def refuse(socket: WebSocket) -> None:
            await socket.close()

        async def hang_up(socket: WebSocket) -> None:
            await socket.accept()
            await socket.close(1008)

        sockets = [WebSocketRoute("/talk", talk), WebSocketRoute("/refuse", refuse), WebSocketRoute("/hang", hang_up)]
        routes = [Route(path, answer) for path in ("/", *PROBES, *(f"/perception{path}" for path in PROBES))]
        routes.append(Route("/busy", work))
        self.app = Starlette(routes=[*routes, Route("/{status:int}", answer), *sockets])

    @contextmanager
    def open(self, *proxies: str, root_path: str = "") -> Iterator[str]:
        self.rates = ClientRates(self.limits, proxies, self.metrics, self.clock)
        self.app.add_middleware(TarpitMiddleware, rates=self.rates, root_path=root_path)
        if proxies:
            self.app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(proxies))
        self.app.state.rates = self.rates
        with served(self.app) as address:
            yield address

    def exhaust(self, own: str, most_s: float = float("inf")) -> None:
        """As if so many requests of an address had been refused that the next one waits for so long, or is the first
        that does not wait but is turned away."""
        while (wait := self.rates.refusals.wait(own)) is not None and wait < most_s:
            self.rates.refusals.take(own)

    def throttled(self, how: str) -> float:
        return self.metrics.registry.get_sample_value("perception_throttled_total", {"how": how}) or 0.0


def client(address: str, own: str = ONE) -> httpx.Client:
    transport = httpx.HTTPTransport(local_address=own, limits=httpx.Limits(max_connections=None))
    return httpx.Client(transport=transport, base_url=f"http://{address}", timeout=60)


def ask(one: httpx.Client, path: str, **options: Any) -> int | str:
    try:
        return one.get(path, **options).status_code
    except httpx.HTTPError as error:
        return type(error).__name__


FEW = {"refusals_per_s": 20}
FREE, HELD = 40, 10
"""So many refusals are free, and so many are held, while time stands still: see `quick`."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates_module, "BURST_S", FREE / 20)
    monkeypatch.setattr(rates_module, "TIME_BURST_S", FREE / 20)
    monkeypatch.setattr(rates_module, "LONGEST_S", (HELD + 0.5) / 20)
