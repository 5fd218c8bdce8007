"""Guessing a password is slow, whatever it is done with and however many guess at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from perception.server.app import create_app
from perception.server.edge import login_throttle
from perception.server.edge.login_throttle import FIRST_S, FORGET_S, FREE, LONGEST_S, LoginThrottle, block
from perception.server.problems import Busy
from tests.server.served import served
from tests.server.test_access import gate

USER, PASSWORD, TOKEN = "maria", "pass-word", "0123456789abcdef"


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def guarded(clock: Clock) -> Iterator[httpx.Client]:
    app = gate(clock=clock, user=USER, password=PASSWORD, token=TOKEN)
    with served(app) as address, httpx.Client(base_url=f"http://{address}", timeout=60) as client:
        yield client


def by_basic(client: httpx.Client, secret: str) -> tuple[int, str]:
    answer = client.get("/", auth=(USER, secret))
    return answer.status_code, answer.headers.get("retry-after", "")


def by_token(client: httpx.Client, secret: str) -> tuple[int, str]:
    answer = client.get("/", headers={"authorization": f"Bearer {secret}"})
    return answer.status_code, answer.headers.get("retry-after", "")


def by_query(client: httpx.Client, secret: str) -> tuple[int, str]:
    answer = client.get("/", params={"token": secret})
    return answer.status_code, answer.headers.get("retry-after", "")


def by_form(client: httpx.Client, secret: str) -> tuple[int, str]:
    answer = client.post("/login", data={"user": USER, "password": secret})
    assert "<form" in answer.text or answer.status_code == 303
    return answer.status_code, answer.headers.get("retry-after", "")


def by_socket(client: httpx.Client, secret: str) -> tuple[int, str]:
    try:
        with connect(f"ws://{client.base_url.netloc.decode()}/ws?token={secret}", open_timeout=30):
            return 101, ""
    except InvalidStatus as refused:
        return refused.response.status_code, refused.response.headers.get("retry-after", "")


WAYS = [by_basic, by_token, by_query, by_form, by_socket]
ways = pytest.mark.parametrize("guess", WAYS)


@ways
def test_many_guesses_at_once_are_few(guess: Callable[[httpx.Client, str], tuple[int, str]]) -> None:
    """While time stands still, a few of an address are looked at; the others are turned away, the right one too."""
    clock = Clock()
    right = PASSWORD if guess in (by_basic, by_form) else TOKEN
    with guarded(clock) as client:
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda number: guess(client, f"guess-{number}"), range(64)))
        answers.append(guess(client, right))
        assert sorted(status for status, _ in answers) == [401] * FREE + [429] * (65 - FREE)
        assert all(int(after) >= 1 for status, after in answers if status == 429)
        clock.now += FIRST_S
        assert guess(client, right)[0] in (200, 303, 101)  # not for ever


def test_the_wait_doubles_up_to_a_limit_and_is_forgotten() -> None:
    clock = Clock()
    throttle = LoginThrottle(clock)
    waits = []
    for number in range(12):
        guess = b"%d" % number
        assert not throttle.is_known("192.0.2.1", guess)
        assert throttle.failed("192.0.2.1", guess) == number + 1
        began = clock.now
        while True:
            try:
                throttle.is_known("192.0.2.1", b"next")
                break
            except Busy as busy:
                assert busy.status == 429
                clock.now += busy.retry_after_s
        waits.append(clock.now - began)
        assert not throttle.is_known("192.0.2.2", b"next")  # another address does not wait
    assert waits == pytest.approx([0.0] * (FREE - 1) + [min(FIRST_S * 2**n, LONGEST_S) for n in range(13 - FREE)])
    clock.now += FORGET_S + 1
    assert throttle.failed("192.0.2.1", b"again") == 1


def test_ways_count_together_and_cookies_do_not_wait() -> None:
    clock = Clock()
    with guarded(clock) as client:
        assert client.post("/login", data={"user": USER, "password": PASSWORD}).status_code == 303
        cookie = dict(client.cookies)
        client.cookies.clear()
        assert len(WAYS) == FREE
        for number, guess in enumerate(WAYS):
            assert guess(client, f"one-{number}")[0] == 401
        for number, guess in enumerate(WAYS):
            assert guess(client, f"other-{number}")[0] == 429
        client.cookies.update(cookie)
        assert client.get("/").status_code == 200


def test_a_program_with_an_old_token_does_not_lock_out_its_neighbours() -> None:
    clock = Clock()
    with guarded(clock) as client:
        for number in range(FREE - 1):
            assert by_token(client, f"guess-{number}")[0] == 401
        for _ in range(20):
            assert by_token(client, "the-old-token")[0] == 401
        assert by_token(client, TOKEN)[0] == 429
        clock.now += FIRST_S
        assert by_token(client, TOKEN)[0] == 200
        for _ in range(20):
            assert by_token(client, "the-old-token")[0] == 401
        assert by_token(client, TOKEN)[0] == 200


def test_failures_are_logged_without_what_was_tried(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with guarded(clock) as client, caplog.at_level(logging.INFO):
        for number in range(100):
            assert by_basic(client, f"hunter{number}")[0] == 401
            clock.now += LONGEST_S
        lines = [record.getMessage() for record in caplog.records if "wrong credentials" in record.getMessage()]
    assert len(lines) == 100  # two a minute
    assert "127.0.0.1" in lines[0]
    assert "hunter" not in caplog.text and USER not in caplog.text
    assert caplog.text.count("Traceback") == 0


def test_guesses_from_everywhere_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    app = gate(clock=clock, token=TOKEN)
    app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=["127.0.0.1"])
    with served(app) as address, httpx.Client(base_url=f"http://{address}", timeout=60) as client:

        def guess(number: int) -> None:
            headers = {"x-forwarded-for": f"198.51.100.{number}", "authorization": "Bearer hunter-22"}
            assert client.get("/", headers=headers).status_code == 401

        for number in range(100):
            guess(number)
        clock.now += 61
        guess(200)
    lines = [record.getMessage() for record in caplog.records if record.name == "perception"]
    assert len(lines) == 11
    assert "90 more" in lines[-1]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_throttle, "MOST", 10)
    throttle = LoginThrottle(Clock())
    for number in range(1000):
        throttle.failed(f"198.51.{number // 256}.{number % 256}", b"x" * number)
        throttle.failed("192.0.2.1", b"%d" % number)
    assert len(throttle._failures) == 10
    with pytest.raises(Busy):  # who goes on is not forgotten for those who come
        throttle.is_known("192.0.2.1", b"next")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),  # one customer's network
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("", "", True),
        ("unix:", "unix:", True),
    ],
)
def test_what_one_client_has_of_addresses(one: str, other: str, same: bool) -> None:
    assert (block(one) == block(other)) is same


def test_nobody_says_where_they_come_from_but_the_operators_proxy() -> None:
    for proxies, free in ((None, False), (["192.0.2.9"], False), (["127.0.0.0/8"], True)):
        app = gate(clock=Clock(), token=TOKEN)
        if proxies is not None:
            app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=proxies)  # as create_app does
        with served(app) as address, httpx.Client(base_url=f"http://{address}", timeout=60) as client:
            statuses = [
                client.get(
                    "/", headers={"x-forwarded-for": f"6.6.6.6, 198.51.100.{n}", "authorization": f"Bearer wrong-{n}"}
                ).status_code
                for n in range(FREE + 3)
            ]
            assert statuses == [401] * FREE + [401 if free else 429] * 3


def test_the_application_believes_the_proxies_of_its_settings(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_throttle, "FIRST_S", LONGEST_S)  # by the real clock
    for proxies, free in (([], False), (["127.0.0.1"], True)):
        with served(create_app(make(token=TOKEN, proxies=proxies))) as address:
            statuses = [
                httpx.get(
                    f"http://{address}/v1/models",
                    headers={"x-forwarded-for": f"198.51.100.{n}", "authorization": f"Bearer wrong-{n}"},
                ).status_code
                for n in range(FREE + 3)
            ]
            assert statuses == [401] * FREE + [401 if free else 429] * 3
