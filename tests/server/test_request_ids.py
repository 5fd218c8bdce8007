"""Every answer has an id of its request, and lines of the log that it causes have the same."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from websockets.sync.client import connect

from perception.common.log_lines import REQUEST
from perception.server.app import create_app
from tests.server.served import served

NAMED = {"X-Request-ID": "edge-12345678"}


class Ids(logging.Handler):
    """Keeps the id of the request in which each line was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str | None] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(REQUEST.get())


@pytest.fixture
def ids() -> Any:
    handler = Ids()
    loggers = [logging.getLogger(name) for name in ("perception", "uvicorn.error")]
    for logger in loggers:
        logger.addHandler(handler)
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)


def test_answers_have_ids_of_their_own(server: httpx.Client) -> None:
    answers = [server.get("/healthz"), server.get("/v1/nothing"), server.post("/v1/predict"), server.get("/healthz")]
    assert [answer.status_code for answer in answers] == [200, 404, 422, 200] or answers[2].status_code >= 400
    found = {answer.headers["X-Request-ID"] for answer in answers}
    assert len(found) == 4 and all(len(name) == 16 for name in found)
    with connect(f"ws://{server.base_url.netloc.decode()}/v1/wall") as socket:
        assert socket.response is not None and len(socket.response.headers["X-Request-ID"]) == 16


def test_nobody_but_a_proxy_names_requests(server: httpx.Client, make: Any) -> None:
    assert server.get("/healthz", headers=NAMED).headers["X-Request-ID"] != NAMED["X-Request-ID"]
    with (
        served(create_app(make(proxies=["127.0.0.1"]))) as address,
        httpx.Client(base_url=f"http://{address}") as behind,
    ):
        assert behind.get("/healthz", headers=NAMED).headers["X-Request-ID"] == NAMED["X-Request-ID"]
        for wrong in ("short", "x" * 65, "a b c d e f g h", 'x";12345678', ""):
            given = behind.get("/healthz", headers={"X-Request-ID": wrong}).headers["X-Request-ID"]
            assert given != wrong and len(given) == 16


def test_a_fault_has_the_id_of_its_lines(make: Any, ids: Ids) -> None:
    app = create_app(make())

    async def broken() -> None:
        logging.getLogger("perception").warning("about to fail")
        raise ZeroDivisionError

    app.router.routes.insert(0, APIRoute("/v1/broken", broken))
    with served(app) as address, httpx.Client(base_url=f"http://{address}") as client:
        answer = client.get("/v1/broken")
    assert answer.status_code == 500
    assert "ZeroDivisionError" in answer.json()["error"]
    assert ids.seen.count(answer.headers["X-Request-ID"]) >= 2  # the warning, and the traceback
