"""The tarpit: answers to a client that exceeds its rates come late, so that it cannot fill the event loop.

It comes before everything else, and what is turned away costs nothing but this. A refused request is answered once the
application is done with it, so nothing but a few lines of JSON is held meanwhile. Requests that succeed do not wait
for those that were refused, as long as few of these wait.

What a request takes of the event loop is measured, step by step: a thousand quick ones count as much as ten that are
slow to put together.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Coroutine, Generator
from time import thread_time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perception.server.edge.fair_executor import CLIENT
from perception.server.edge.places import TOO_MANY_REQUESTS, group_of
from perception.server.edge.rates import LONGEST_S, ClientRates, RateLimit

PROBES = ("/healthz", "/readyz", "/metrics")
"""Routes of those who watch over the server: answered however busy it is."""

MESSAGE = "too many requests from your address; try again shortly"

_STARTS = ("http.response.start", "websocket.http.response.start")
_BODIES = ("http.response.body", "websocket.http.response.body")
_POLICY = 1008  # of WebSocket closes: sent too much that is no good


class TarpitMiddleware:
    """ASGI middleware that delays and turns away requests of clients beyond their rates.

    Args:
        app: the application behind it.
        rates: of all clients.
        root_path: prefix of the server's paths, see `perception.server.edge.root_path`.
    """

    def __init__(self, app: ASGIApp, rates: ClientRates, root_path: str = "") -> None:
        self._app = app
        self._rates = rates
        self._probes = {*PROBES, *(root_path + path for path in PROBES)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        client = group_of(scope["client"][0] if scope.get("client") else "")
        CLIENT.set(client)
        is_probe = scope["path"] in self._probes
        time = self._rates.time
        if is_probe:
            wait = self._rates.probes.take(client)
        else:
            wait = None if self._rates.refusals.wait(client) is None else time.wait(client, 0.0)
        if wait != 0.0:
            self._rates.tell(wait, client)
            if wait is None:
                await _turn_away(scope, receive, send)
                return
            await asyncio.sleep(wait)
        if scope["type"] == "websocket":
            receive = _paced(receive, time, client)
        answer = _Answer(send, self._rates.refusals, client)
        work: Any = self._app(scope, receive, answer)
        try:
            await (work if is_probe else Metered(work, lambda seconds: time.add(client, seconds)))
        finally:
            if answer.held:
                await self._refuse(answer.held, client, send)

    async def _refuse(self, answer: list[Message], client: str, send: Send) -> None:
        """Send the answer to a refused request, when its time has come."""
        wait = self._rates.refusals.take(client)
        if wait is None:
            answer[0].setdefault("headers", []).append((b"connection", b"close"))
        if wait != 0.0:
            self._rates.tell(wait, client)
            await asyncio.sleep(wait or 0.0)
        for message in answer:
            await send(message)


class _Answer:
    """``send`` of a request, which holds back a refusal."""

    def __init__(self, send: Send, refusals: RateLimit, client: str) -> None:
        self._send = send
        self._refusals = refusals
        self._client = client
        self._accepted = False
        self.held: list[Message] = []

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        self._accepted |= kind == "websocket.accept"
        refused = kind in _STARTS and 400 <= message["status"] < 500
        if refused or (self.held and kind in _BODIES) or (kind == "websocket.close" and not self._accepted):
            self.held.append(message)
            return
        if kind == "websocket.close" and message.get("code") == _POLICY:
            self._refusals.take(self._client)
        await self._send(message)


class Metered:
    """Awaitable of a coroutine that measures the processor time of each of its steps.

    Args:
        work: the coroutine.
        spent: called after each step, with seconds.
    """

    def __init__(self, work: Coroutine[Any, Any, Any], spent: Callable[[float], None]) -> None:
        self._work = work
        self._spent = spent

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._work.__await__()
        step: Callable[[Any], Any] = steps.send
        given: Any = None
        while True:
            began = thread_time()
            try:
                waits_for = step(given)
            except StopIteration as done:
                return done.value
            finally:
                self._spent(thread_time() - began)
            try:
                step, given = steps.send, (yield waits_for)
            except BaseException as error:  # cancelled, for example
                step, given = steps.throw, error


def _paced(receive: Receive, time: RateLimit, client: str) -> Receive:
    """Wrap ``receive`` of a WebSocket: its messages wait as requests do."""

    async def wrapped() -> Message:
        message = await receive()
        if message["type"] == "websocket.receive" and (wait := time.wait(client, 0.0)) != 0.0:
            await asyncio.sleep(LONGEST_S if wait is None else wait)
        return message

    return wrapped


_BODY = json.dumps({"error": MESSAGE}).encode()
_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", b"%d" % len(_BODY)),
    (b"retry-after", b"%d" % math.ceil(LONGEST_S)),
    (b"connection", b"close"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'"),
]


async def _turn_away(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1013, "reason": MESSAGE})
            return
        start, body = "websocket.http.response.start", "websocket.http.response.body"
    else:
        start, body = "http.response.start", "http.response.body"
    await send({"type": start, "status": TOO_MANY_REQUESTS, "headers": _HEADERS})
    await send({"type": body, "body": _BODY})
