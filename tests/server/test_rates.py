"""How much one address is let do, and how long it waits for more."""

from __future__ import annotations

import random

import pytest

from perception.server.edge import rates as rates_module
from perception.server.edge.rates import LONGEST_S, ClientRates, RateLimit
from perception.server.settings import Limits
from tests.server.clocks import ManualClock


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
    rates = ClientRates(Limits(share=1, refusals_per_s=1, connections_per_s=1), clock=ManualClock())
    for limit in (rates.time, rates.refusals, rates.probes):
        assert {limit.take("a") for _ in range(10_000)} == {0.0}
    assert {rates.connect("192.0.2.1") for _ in range(10_000)} == {0.0}
