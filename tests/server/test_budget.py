"""Amounts in progress: never more than the total, everybody's turn comes, and what is held is given back once."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import Future
from typing import Any

import pytest

from perception.server.edge.budget import Budget, Hold
from perception.server.problems import Busy, TooLarge


def budget(total: int = 100, share: float = 1.0, waiting: int = 100_000, timeout_s: float = 60.0) -> Budget:
    return Budget(total, share, waiting, timeout_s)


async def settle() -> None:
    """Let all tasks run until each waits."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(20))
def test_never_more_than_the_total_and_all_are_served(seed: int) -> None:
    """Counted beside it, by who takes part."""
    rng = random.Random(seed)
    total = rng.randrange(1, 200)
    share = rng.choice([0.01, 0.3, 0.5, 1.0])
    one = Budget(total, share, 100_000, 60.0, reserve=rng.choice([0.0, 0.25, 0.9]), small=rng.randrange(total + 1))
    held: dict[str, list[int]] = {}
    served = []

    async def use(client: str, cost: int) -> None:
        await asyncio.sleep(rng.random() * 0.01)
        with await one.take(cost, client):
            own = held.setdefault(client, [])
            own.append(cost)
            assert sum(map(sum, held.values())) <= total
            assert sum(own) <= max(1, total * share + 1) or len(own) == 1
            await asyncio.sleep(rng.random() * 0.002)
            own.remove(cost)
        served.append(cost)

    async def main() -> None:
        costs = [rng.randrange(1, total + 1) for _ in range(100)]
        await asyncio.gather(*(use(rng.choice("abcd"), cost) for cost in costs))
        assert sorted(served) == sorted(costs)

    asyncio.run(main())
    assert (one.in_progress, one.waiting) == (0, 0)
    assert 0 < one.peak <= total


@pytest.mark.parametrize("seed", range(10))
def test_who_is_given_up_gives_everything_back(seed: int) -> None:
    rng = random.Random(seed)
    one = budget(10)

    async def use() -> None:
        with await one.take(rng.randrange(1, 11), rng.choice("ab")):
            await asyncio.sleep(0.001)

    async def main() -> None:
        tasks = [asyncio.create_task(use()) for _ in range(60)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0.0005)
            rng.choice(tasks).cancel()
        assert {type(e) for e in await asyncio.gather(*tasks, return_exceptions=True)} <= {
            type(None),
            asyncio.CancelledError,
        }

    asyncio.run(main())
    assert (one.in_progress, one.waiting) == (0, 0)


def test_more_than_there_is_at_all_is_too_large() -> None:
    one = budget(100)
    with pytest.raises(TooLarge, match="101 pixels"):
        asyncio.run(one.take(101))
    with pytest.raises(TooLarge):
        one.try_take(101)


def in_turns(one: Budget, wishes: list[tuple[str, int]], first: int) -> list[tuple[str, int]]:
    """Who is served in which order while ``first`` is held and then given back, one at a time after that."""
    order: list[tuple[str, int]] = []

    async def use(client: str, cost: int) -> None:
        with await one.take(cost, client):
            order.append((client, cost))
            await settle()

    async def main() -> None:
        blocking = await one.take(first, "first")
        tasks = []
        for wish in wishes:
            tasks.append(asyncio.create_task(use(*wish)))
            await settle()
        assert order == []
        blocking.leave()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    return order


def test_clients_take_turns() -> None:
    wishes = [("a", 100), ("a", 100), ("a", 100), ("b", 100), ("c", 100)]
    assert [client for client, _ in in_turns(budget(100), wishes, 100)] == ["a", "b", "c", "a", "a"]


def test_nobody_overtakes_who_waits_for_much() -> None:
    wishes = [("a", 100), *[("b", 10)] * 5]
    assert in_turns(budget(100), wishes, 95)[0] == ("a", 100)


def test_small_ones_overtake_large_ones_as_far_as_the_reserve_goes() -> None:
    """40 of "a" is in progress; 40 of "b" must leave 25; of what is small, 20 overtakes it and 6 more may not."""

    async def main() -> None:
        one = Budget(100, 1.0, 100, 60.0, reserve=0.25, small=10)
        large = await one.take(40, "a")
        waits = asyncio.create_task(one.take(40, "b"))
        await settle()
        small = [await asyncio.wait_for(one.take(10, client), 30) for client in "cd"]
        more = asyncio.create_task(one.take(6, "e"))
        another = asyncio.create_task(one.take(30, "f"))  # would fit, but nobody overtakes by what is large
        await settle()
        assert not waits.done()
        assert not more.done()
        assert not another.done()
        assert one.try_take(6, "g") is None
        small.pop().leave()
        small.append(await asyncio.wait_for(more, 30))
        large.leave()
        granted = [await asyncio.wait_for(waits, 30), await asyncio.wait_for(another, 30)]
        assert one.in_progress == 40 + 30 + 16
        for hold in (*granted, *small):
            hold.leave()
        assert (one.in_progress, one.waiting) == (0, 0)

    asyncio.run(main())


def test_one_that_needs_the_reserve_is_not_overtaken() -> None:
    async def main() -> None:
        one = Budget(100, 1.0, 100, 60.0, reserve=0.25, small=10)
        small = await one.take(10, "a")
        waits = asyncio.create_task(one.take(95, "b"))
        await settle()
        more = asyncio.create_task(one.take(1, "c"))
        await settle()
        assert not more.done()
        small.leave()
        large = await asyncio.wait_for(waits, 30)
        (await asyncio.wait_for(more, 30)).leave()
        large.leave()

    asyncio.run(main())


def test_who_waits_for_itself_keeps_nobody_waiting() -> None:
    async def main() -> None:
        one = budget(100, share=0.5)
        with await one.take(50, "a"):
            waits = asyncio.create_task(one.take(50, "a"))
            await settle()
            assert one.waiting == 1
            with await asyncio.wait_for(one.take(50, "b"), 30):
                assert one.in_progress == 100
        (await asyncio.wait_for(waits, 30)).leave()
        with await one.take(100, "a"):  # a single one may be larger than the share
            assert one.in_progress == 100

    asyncio.run(main())


def test_places_to_wait_in_are_few_and_shared() -> None:
    async def main() -> None:
        one = budget(100, share=0.5, waiting=4)
        with await one.take(100, "x"):
            tasks = [asyncio.create_task(one.take(1, "a")) for _ in range(2)]
            await settle()
            with pytest.raises(Busy, match="your address") as share:
                await one.take(1, "a")
            one_of_a = tasks.pop()
            tasks += [asyncio.create_task(one.take(1, name)) for name in ("b", "d", "e")]
            await settle()
            with pytest.raises(Busy):  # e came into a full queue, and a had most of it
                await one_of_a
            with pytest.raises(Busy) as full:  # now all have as little
                await one.take(1, "c")
            assert (share.value.status, full.value.status) == (429, 503)
            assert one.try_take(1, "c") is None
            assert one.waiting == 4
        for hold in await asyncio.gather(*tasks):
            hold.leave()
        assert (one.in_progress, one.waiting) == (0, 0)

    asyncio.run(main())


def test_patience_ends() -> None:
    async def main() -> None:
        one = budget(100, timeout_s=0.01)
        with await one.take(60, "a"):
            with pytest.raises(Busy) as late:
                await one.take(60, "b")
            assert (late.value.status, late.value.retry_after_s > 0, one.waiting) == (503, True, 0)
            with await one.take(40, "c"):
                pass

    asyncio.run(main())


def test_what_was_begun_holds_it_too() -> None:
    one = budget(100)
    hold = one.try_take(100)
    assert isinstance(hold, Hold)
    work: list[Future[Any]] = [Future(), Future()]
    for future in work:
        hold.until(future)
    with hold:
        assert one.try_take(1) is None
    assert one.in_progress == 100
    work[0].set_exception(ValueError())
    assert one.in_progress == 100
    work[1].cancel()
    assert one.in_progress == 0


def test_a_full_queue_makes_room_for_who_has_less_in_it() -> None:
    async def main() -> None:
        one = budget(10, waiting=6, share=0.5)
        held = await one.take(10, "first")
        greedy = [asyncio.create_task(one.take(1, name)) for name in ("a", "a", "a", "b", "b", "b")]
        await settle()
        good = asyncio.create_task(one.take(1, "good"))
        await settle()
        refused = [task for task in greedy if task.done()]
        assert len(refused) == 1 and not good.done()
        with pytest.raises(Busy):
            refused[0].result()
        with pytest.raises(Busy):  # as many of its own as anybody has
            await one.take(1, "b")
        held.leave()
        await settle()
        (await good).leave()
        for task in greedy:
            if task not in refused:
                (await task).leave()
        assert (one.in_progress, one.waiting) == (0, 0)

    asyncio.run(main())
