"""One client's slow calls leave threads for the others."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError, Future
from contextvars import Context, copy_context
from typing import Any

import httpx
import pytest

from perception.server.app import create_app
from perception.server.edge.fair_executor import CLIENT, FairExecutor
from tests.server.conftest import wait_until_ready
from tests.server.served import served


def as_client(client: str) -> Context:
    context = copy_context()
    context.run(CLIENT.set, client)
    return context


def submit(pool: FairExecutor, client: str, *call: Any) -> Future[Any]:
    return as_client(client).run(pool.submit, *call)


def test_results_and_errors() -> None:
    with FairExecutor(2, 0.5) as pool:
        assert [submit(pool, "a", divmod, number, 3).result(30) for number in range(20)] == [
            divmod(number, 3) for number in range(20)
        ]
        with pytest.raises(ZeroDivisionError):
            submit(pool, "a", divmod, 1, 0).result(30)
        assert submit(pool, "a", divmod, 7, 3).result(30) == (2, 1)


@pytest.mark.parametrize("seed", range(5))
def test_nobody_has_more_than_its_share_and_all_are_served(seed: int) -> None:
    chance = random.Random(seed)
    threads, share = chance.choice([(2, 0.5), (6, 0.5), (5, 0.3)])
    now: Counter[str] = Counter()
    most: Counter[str] = Counter()
    lock = threading.Lock()

    def work(client: str) -> None:
        with lock:
            now[client] += 1
            most[client] = max(most[client], now[client])
            most["all"] = max(most["all"], now.total())
        time.sleep(chance.random() / 500)
        with lock:
            now[client] -= 1

    with FairExecutor(threads, share) as pool:
        clients = [chance.choice("abbbb") for _ in range(200)]
        futures = [submit(pool, client, work, client) for client in clients]
        for future in futures:
            future.result(60)
        assert not pool._running and not pool._waiting
    limit = -(-threads * share // 1)
    assert max(most["a"], most["b"]) <= limit
    assert most["all"] <= threads


def test_slow_calls_of_one_leave_threads_for_others() -> None:
    end = threading.Event()
    with FairExecutor(4, 0.5) as pool:
        slow = [submit(pool, "a", end.wait, 60) for _ in range(50)]
        assert [submit(pool, "b", abs, -number).result(30) for number in range(10)] == [*range(10)]
        assert submit(pool, "", abs, -1).result(30) == 1
        slow[-1].cancel()
        end.set()
        assert all(future.result(30) for future in slow[:-1])
        with pytest.raises(CancelledError):
            slow[-1].result(30)


def test_the_end_waits_for_nobody_who_has_not_begun() -> None:
    end, begun = threading.Event(), threading.Event()
    pool = FairExecutor(1, 1)
    running = submit(pool, "a", lambda: begun.set() or end.wait(60))
    waiting = submit(pool, "a", abs, -1)
    assert begun.wait(30)
    pool.shutdown(wait=False)
    assert waiting.cancelled()
    end.set()
    assert running.result(30)
    late = submit(pool, "a", abs, -1)
    assert late.cancelled()


def test_models_that_are_being_loaded_keep_nobody_else_waiting(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that asks for one a hundred times, and another one that asks for what is there."""
    app = create_app(make())
    models = app.state.service.models
    loading, loaded = threading.Event(), threading.Event()

    def slow(name: str) -> Any:
        loading.set()
        assert loaded.wait(120)
        return models.scheduler()

    def client(own: str) -> httpx.Client:
        transport = httpx.HTTPTransport(local_address=own, limits=httpx.Limits(max_connections=None))
        return httpx.Client(transport=transport, base_url=f"http://{address}", timeout=120)

    headers = {"content-type": "image/png"}
    with served(app) as address, client("127.0.0.1") as one, client("127.0.0.2") as other:
        wait_until_ready(one)
        monkeypatch.setattr(models, "_load", slow)
        name = models.names()[1]
        threads = [
            threading.Thread(target=one.post, args=("/v1/predict",), kwargs={
                "params": {"model": name}, "content": b"x", "headers": headers
            })
            for _ in range(40)
        ]  # fmt: skip
        for thread in threads:
            thread.start()
        assert loading.wait(60)
        time.sleep(0.5)
        assert [other.get("/v1/models").status_code for _ in range(3)] == [200] * 3
        assert not loaded.is_set()
        loaded.set()
        for thread in threads:
            thread.join(60)


def test_routes_run_as_their_clients(make: Any) -> None:
    """What is done in the loop's threads counts for the address that asked for it."""
    app = create_app(make())
    seen: list[str] = []

    @app.get("/v1/whose")
    async def whose() -> str:
        return await asyncio.to_thread(CLIENT.get)

    app.router.routes.insert(0, app.router.routes.pop())
    with served(app) as address:
        for own in ("127.0.0.1", "127.0.0.7"):
            with httpx.Client(
                transport=httpx.HTTPTransport(local_address=own), base_url=f"http://{address}", timeout=60
            ) as client:
                seen.append(client.get("/v1/whose").json())
    assert seen == ["127.0.0.1", "127.0.0.7"]
