"""Sharing one engine: who is served when, what is refused, what is cancelled. The engine stops where it is told."""

import asyncio
import threading
from collections import Counter
from concurrent.futures import CancelledError, wait
from itertools import pairwise

import numpy as np
import pytest

from perception import EngineError, load_model, open_sink, open_source, run
from perception.server.problems import Busy
from perception.server.scheduler import BULK_TURN, Scheduler
from perception.types import Frame
from tests.models import PALETTE, solid, write_model
from tests.server.threads import NewThreads


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = write_model(tmp_path_factory.mktemp("models") / "m.onnx", detection=True)
    with load_model(path, precision="f32") as loaded:
        yield loaded


class Gate:
    """A model's engine that waits for ``step()`` before each call and notes whose frames came in which order."""

    def __init__(self, model):
        self.served = []
        self._steps = threading.Semaphore(0)
        self._entered = threading.Semaphore(0)
        self.model = model.tuned()
        infer = self.model.infer

        def gated(frame):
            self.served.append(frame.source)
            self._entered.release()
            assert self._steps.acquire(timeout=60)
            if frame.source == "broken":
                raise EngineError("the engine failed")
            return infer(frame)

        self.model.infer = gated

    def wait_inside(self):
        assert self._entered.acquire(timeout=60)

    def step(self, count=1):
        for _ in range(count):
            self._steps.release()


def frame(source, index=0):
    return Frame(solid("red"), index=index, source=source)


def test_a_frame_comes_back_predicted(model):
    with Scheduler(model) as scheduler:
        for name in list(PALETTE)[:3]:
            prediction = scheduler.submit(solid(name), client="a").result(30)
            assert (prediction.class_map.mask == list(PALETTE).index(name)).all()

        async def ask():
            return await asyncio.wrap_future(scheduler.submit(solid("green"), client="b", live=True))

        assert (asyncio.run(ask()).class_map.mask == 1).all()


def test_clients_take_turns_however_much_one_of_them_sends(model):
    gate = Gate(model)
    with Scheduler(gate.model, waiting=100, workers=1) as scheduler:
        futures = [scheduler.submit(frame("first"), client="first")]
        gate.wait_inside()
        futures += [scheduler.submit(frame("greedy", i), client="greedy") for i in range(20)]
        futures += [scheduler.submit(frame(name), client=name) for name in ("a", "b") for _ in range(3)]
        gate.step(len(futures))
        wait(futures, 60)
    assert gate.served[:10] == ["first", *["greedy", "a", "b"] * 3]
    assert Counter(gate.served) == {"first": 1, "greedy": 20, "a": 3, "b": 3}


def test_each_client_gets_its_own_frames_in_order(model):
    with Scheduler(model, waiting=1000, workers=1) as scheduler:
        futures = {name: [scheduler.submit(frame(name, i), client=name) for i in range(10)] for name in "abc"}
        for name, mine in futures.items():
            results = [future.result(60).frame for future in mine]
            assert [(f.source, f.index) for f in results] == [(name, i) for i in range(10)]


def test_live_comes_first_but_does_not_starve_the_rest(model):
    gate = Gate(model)
    with Scheduler(gate.model, waiting=100, workers=1) as scheduler:
        scheduler.submit(frame("first"), client="first")
        gate.wait_inside()
        bulk = [scheduler.submit(frame("bulk"), client="job") for _ in range(3)]
        live = ["l1", "l2", "l3"]
        waiting = {name: scheduler.submit(frame(name), client=name, live=True) for name in live}
        # The live clients send their next frame as soon as the last one is done: more than the engine can do.
        for _ in range(3 * BULK_TURN + 1):
            gate.step()
            gate.wait_inside()
            for name, future in waiting.items():
                if future.done():
                    waiting[name] = scheduler.submit(frame(name), client=name, live=True)
        served = gate.served[1:]
        gate.step(100)
        wait(bulk, 60)
    assert served[: BULK_TURN - 1].count("bulk") == 0
    places = [i for i, name in enumerate(served) if name == "bulk"]
    assert len(places) == 3
    assert all(b - a == BULK_TURN for a, b in pairwise(places))
    counts = Counter(served)
    assert max(counts[n] for n in live) - min(counts[n] for n in live) <= 1


def test_a_newer_live_frame_takes_the_place_of_the_older(model):
    gate = Gate(model)
    with Scheduler(gate.model, workers=2) as scheduler:
        first = scheduler.submit(frame("cam", 0), client="cam", live=True)
        gate.wait_inside()
        # A second worker is free, but one camera's frames are never under way at once: their order would be lost.
        futures = [scheduler.submit(frame("cam", i), client="cam", live=True) for i in range(1, 6)]
        assert [f.cancelled() for f in futures] == [True, True, True, True, False]
        assert scheduler.replaced == 4
        assert scheduler.waiting == 1
        gate.step(2)
        assert first.result(30).frame.index == 0
        assert futures[-1].result(30).frame.index == 5
    assert gate.served == ["cam", "cam"]


def test_waiting_is_bounded(model):
    gate = Gate(model)
    with Scheduler(gate.model, waiting=4, workers=1) as scheduler:
        futures = [scheduler.submit(frame("x"), client="x")]
        gate.wait_inside()
        futures += [scheduler.submit(frame("x"), client=f"x{i}") for i in range(4)]
        with pytest.raises(Busy) as caught:
            scheduler.submit(frame("late"), client="late")
        assert caught.value.retry_after_s > 0
        # A live frame has a place of its own.
        futures.append(scheduler.submit(frame("cam"), client="cam", live=True))
        # One that is taken back makes room.
        assert futures[2].cancel()
        futures.append(scheduler.submit(frame("late"), client="late"))
        gate.step(10)
        wait(futures, 60)
    assert gate.served.count("late") == 1
    assert len(gate.served) == 6


def test_an_error_is_the_frames_own(model):
    gate = Gate(model)
    gate.step(100)
    with Scheduler(gate.model) as scheduler:
        bad = scheduler.submit(frame("broken"), client="a")
        good = scheduler.submit(frame("fine"), client="a")
        with pytest.raises(EngineError, match="the engine failed"):
            bad.result(30)
        assert good.result(30).class_map is not None


def test_close_cancels_what_waits_and_finishes_what_runs(model):
    threads = NewThreads()
    gate = Gate(model)
    scheduler = Scheduler(gate.model, workers=1)
    running = scheduler.submit(frame("a"), client="a")
    gate.wait_inside()
    waiting = [scheduler.submit(frame("b"), client="b"), scheduler.submit(frame("c"), client="c", live=True)]
    closer = threading.Thread(target=scheduler.close)
    closer.start()
    done, _ = wait(waiting, 30)
    assert len(done) == 2
    gate.step()
    closer.join(30)
    assert not closer.is_alive()
    assert running.result(1).frame.source == "a"
    for future in waiting:
        with pytest.raises(CancelledError):
            future.result(0)
    with pytest.raises(EngineError, match="shut down"):
        scheduler.submit(frame("d"), client="d")
    assert not threads.named("perception-engine")


def test_a_shared_model_runs_a_whole_pipeline_as_one_client(model, tmp_path):
    uri = "synthetic:?size=64x48&frames=30"
    with Scheduler(model, waiting=1) as scheduler, open_source(uri) as source, open_source(uri) as again:
        shared = scheduler.shared("job 1")
        # More threads than there are places to wait in: they wait for a place, where a request would be refused.
        report = run(source, shared.tuned(score_threshold=0.3), sinks=[open_sink(tmp_path / "a.jsonl")], workers=4)
        run(again, model.tuned(score_threshold=0.3), sinks=[open_sink(tmp_path / "b.jsonl")])
        assert report.frames == 30
        shared.close()
        assert scheduler.submit(solid("red"), client="x").result(30) is not None

    def without_times(path):
        import json

        return [{k: v for k, v in json.loads(line).items() if k != "timings"} for line in path.read_text().splitlines()]

    assert without_times(tmp_path / "a.jsonl") == without_times(tmp_path / "b.jsonl")


def test_many_threads_at_once(model):
    """A storm of clients: every future ends, with its own frame's answer or cancelled by a newer frame of its own."""
    rng = np.random.default_rng(0)
    names = list(PALETTE)[:3]
    plans = [rng.integers(0, 3, 40).tolist() for _ in range(6)]
    outcomes = Counter()
    lock = threading.Lock()

    with Scheduler(model, waiting=5) as scheduler:

        def client(number):
            futures = []
            for color in plans[number]:
                try:
                    future = scheduler.submit(solid(names[color]), client=str(number), live=number % 2 == 0)
                except Busy:
                    with lock:
                        outcomes["busy"] += 1
                    continue
                futures.append((color, future))
            for color, future in futures:
                try:
                    mask = future.result(60).class_map.mask
                except CancelledError:
                    assert number % 2 == 0
                    with lock:
                        outcomes["replaced"] += 1
                else:
                    assert (mask == color).all()
                    with lock:
                        outcomes["done"] += 1

        threads = [threading.Thread(target=client, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
        assert scheduler.replaced == outcomes["replaced"]
        assert scheduler.waiting == 0
    assert sum(outcomes.values()) == 240
