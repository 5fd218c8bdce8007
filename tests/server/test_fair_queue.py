"""Whose frame is next: by weight among those that wait, against an exact simulation of turns."""

from collections import Counter

import numpy as np
import pytest

from perception.server.inference.fair_queue import FairQueue


def serve(queue, weights, turns, one_at_a_time=True):
    """Serve so many turns, where every client always has its next frame waiting as soon as one of its is taken."""
    served = []
    for name, weight in weights.items():
        queue.replace(name, name, weight)
    for _ in range(turns):
        client, item = queue.take(alone=True)
        assert client.name == item
        served.append(item)
        queue.end(client)
        queue.replace(item, item, weights[item])
    return served


def test_equal_weights_take_turns():
    names = [f"c{i}" for i in range(16)]
    served = serve(FairQueue(), dict.fromkeys(names, 1.0), 160)
    for turn in range(10):
        assert served[16 * turn : 16 * turn + 16] == names


@pytest.mark.parametrize("seed", range(20))
def test_turns_are_in_proportion_to_the_weights(seed):
    rng = np.random.default_rng(seed)
    weights = {f"c{i}": float(w) for i, w in enumerate(rng.choice([0.1, 0.5, 1, 2, 3, 10], rng.integers(2, 17)))}
    turns = 4000
    counts = Counter(serve(FairQueue(), weights, turns))
    for name, weight in weights.items():
        # Of a frame each, by which a client may be ahead or behind at any time.
        assert abs(counts[name] - turns * weight / sum(weights.values())) <= 1 + weight / min(weights.values())


def test_who_was_away_has_saved_nothing_up():
    queue = FairQueue()
    serve(queue, {"a": 1.0, "b": 1.0}, 1000)
    for name in ("c", "a", "b"):
        queue.replace(name, name)
    served = serve(queue, {"a": 1.0, "b": 1.0, "c": 1.0}, 30)
    assert Counter(served[:9]) == {"a": 3, "b": 3, "c": 3}


def test_who_asks_for_no_more_than_its_share_does_not_wait_for_a_round():
    queue, names = FairQueue(), [f"c{i}" for i in range(15)]
    waited = []
    for name in names:
        queue.replace(name, name)
    for turn in range(2000):
        if turn % 17 == 0:  # its share is one turn in sixteen
            queue.replace("seldom", "seldom")
            asked = turn
        client, item = queue.take(alone=True)
        if item == "seldom":
            waited.append(turn - asked)
        else:
            queue.replace(item, item)
        queue.end(client)
    assert len(waited) >= 117
    assert waited[0] <= 15 and max(waited[16:]) == 0  # saved up little by little


@pytest.mark.parametrize("every", [1, 2, 3, 5])
def test_who_comes_and_goes_gets_no_more_than_its_share(every):
    """It asks for far more, and each time has nothing waiting for a moment."""
    queue, names = FairQueue(), [f"c{i}" for i in range(15)]
    served = Counter()
    for name in names:
        queue.replace(name, name)
    for turn in range(3200):
        if turn % every == 0:
            queue.replace("often", "often")
        client, item = queue.take(alone=True)
        served[item] += 1
        if item != "often":
            queue.replace(item, item)
        queue.end(client)
    assert served["often"] <= 3200 / 16 + 2


def test_clients_are_remembered_up_to_a_bound():
    queue = FairQueue()
    for number in range(3000):
        queue.replace(str(number), number)
        client, _ = queue.take(alone=True)
        queue.end(client)
    assert len(queue) == 0 and len(queue._last) <= 1024


def test_a_newer_frame_keeps_the_place_of_the_older():
    queue = FairQueue()
    assert queue.replace("a", "a1") is None
    assert queue.replace("b", "b1") is None
    assert queue.replace("a", "a2") == "a1"
    assert [queue.take()[1] for _ in range(2)] == ["a2", "b1"]
    assert queue.take() is None


def test_one_frame_of_a_client_at_a_time_where_that_is_wanted():
    queue = FairQueue()
    queue.add("a", 1)
    queue.add("a", 2)
    client, item = queue.take(alone=True)
    assert item == 1 and queue.take(alone=True) is None
    assert queue.end(client)
    client, item = queue.take(alone=True)
    assert item == 2 and not queue.end(client)
    assert len(queue) == 0  # it forgets whoever has nothing
    queue.add("b", 3)
    assert queue.clear() == [3] and len(queue) == 0
