"""Sharing one engine: who is served when, what is refused, what is cancelled. The engine stops where it is told."""

import asyncio
import threading
from collections import Counter
from concurrent.futures import CancelledError, wait
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest

from perception import EngineError, UsageError, load_model, open_sink, open_source, run
from perception.postprocess.post_processing import DetectionOptions
from perception.server.inference.scheduler import BULK_TURN, Scheduler
from perception.server.problems import Busy
from perception.types import Frame
from tests.models import PALETTE, solid, write_model
from tests.server.threads import NewThreads


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = write_model(tmp_path_factory.mktemp("models") / "m.onnx", detection=True)
    with load_model(path, precision="fp32") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def batching(tmp_path_factory):
    """A real engine that computes four frames together."""
    path = write_model(tmp_path_factory.mktemp("models") / "m.onnx", detection=True)
    with load_model(path, engine="onnxruntime", batch=4) as loaded:
        assert loaded.engine.batch == 4
        yield loaded


class SteppedEngine:
    """A model's engine that waits for ``step()`` before each call and notes whose frames came in which order.

    Attributes:
        served: whose frames they were.
        calls: the same, one list a call.
    """

    def __init__(self, model):
        self.served = []
        self.calls = []
        self._steps = threading.Semaphore(0)
        self._entered = threading.Semaphore(0)
        self.model = model.with_options(DetectionOptions())
        infer = self.model.infer_batch

        def gated(frames):
            sources = [frame.source for frame in frames]
            self.served += sources
            self.calls.append(sources)
            self._entered.release()
            assert self._steps.acquire(timeout=60)
            if "broken" in sources:
                raise EngineError("the engine failed")
            return infer(frames)

        self.model.infer_batch = gated

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
    engine = SteppedEngine(model)
    with Scheduler(engine.model, waiting=100, workers=1) as scheduler:
        futures = [scheduler.submit(frame("first"), client="first")]
        engine.wait_inside()
        futures += [scheduler.submit(frame("greedy", i), client="greedy") for i in range(20)]
        futures += [scheduler.submit(frame(name), client=name) for name in ("a", "b") for _ in range(3)]
        engine.step(len(futures))
        wait(futures, 60)
    assert engine.served[:10] == ["first", *["greedy", "a", "b"] * 3]
    assert Counter(engine.served) == {"first": 1, "greedy": 20, "a": 3, "b": 3}


def test_each_client_gets_its_own_frames_in_order(model):
    with Scheduler(model, waiting=1000, workers=1) as scheduler:
        futures = {name: [scheduler.submit(frame(name, i), client=name) for i in range(10)] for name in "abc"}
        for name, mine in futures.items():
            results = [future.result(60).frame for future in mine]
            assert [(f.source, f.index) for f in results] == [(name, i) for i in range(10)]


def test_live_comes_first_but_does_not_starve_the_rest(model):
    engine = SteppedEngine(model)
    with Scheduler(engine.model, waiting=100, workers=1) as scheduler:
        scheduler.submit(frame("first"), client="first")
        engine.wait_inside()
        bulk = [scheduler.submit(frame("bulk"), client="job") for _ in range(3)]
        live = ["l1", "l2", "l3"]
        waiting = {name: scheduler.submit(frame(name), client=name, live=True) for name in live}
        # The live clients send their next frame as soon as the last one is done: more than the engine can do.
        for _ in range(3 * BULK_TURN + 1):
            engine.step()
            engine.wait_inside()
            for name, future in waiting.items():
                if future.done():
                    waiting[name] = scheduler.submit(frame(name), client=name, live=True)
        served = engine.served[1:]
        engine.step(100)
        wait(bulk, 60)
    assert served[: BULK_TURN - 1].count("bulk") == 0
    places = [i for i, name in enumerate(served) if name == "bulk"]
    assert len(places) == 3
    assert all(b - a == BULK_TURN for a, b in pairwise(places))
    counts = Counter(served)
    assert max(counts[n] for n in live) - min(counts[n] for n in live) <= 1


def test_a_newer_live_frame_takes_the_place_of_the_older(model):
    engine = SteppedEngine(model)
    with Scheduler(engine.model, workers=2) as scheduler:
        first = scheduler.submit(frame("cam", 0), client="cam", live=True)
        engine.wait_inside()
        # A second worker is free, but one camera's frames are never under way at once: their order would be lost.
        futures = [scheduler.submit(frame("cam", i), client="cam", live=True) for i in range(1, 6)]
        assert [f.cancelled() for f in futures] == [True, True, True, True, False]
        assert scheduler.replaced == 4
        assert scheduler.waiting == 1
        engine.step(2)
        assert first.result(30).frame.index == 0
        assert futures[-1].result(30).frame.index == 5
    assert engine.served == ["cam", "cam"]


def test_a_frame_wakes_who_serves_it_and_nobody_else(model):
    with Scheduler(model, workers=6) as scheduler:
        looks, take = [], scheduler._take
        scheduler._take = lambda: looks.append(1) or take()
        for i in range(20):
            scheduler.submit(frame("cam", i), client="cam", live=True).result(60)
    # One look that finds it and one afterwards; a third where the next frame came before that.
    assert len(looks) <= 3 * 20 + 6


def test_waiting_is_bounded(model):
    engine = SteppedEngine(model)
    with Scheduler(engine.model, waiting=4, workers=1) as scheduler:
        futures = [scheduler.submit(frame("x"), client="x")]
        engine.wait_inside()
        futures += [scheduler.submit(frame("x"), client=f"x{i}") for i in range(4)]
        with pytest.raises(Busy) as caught:
            scheduler.submit(frame("late"), client="late")
        assert caught.value.retry_after_s > 0
        # A live frame has a place of its own.
        futures.append(scheduler.submit(frame("cam"), client="cam", live=True))
        # One that is taken back makes room.
        assert futures[2].cancel()
        futures.append(scheduler.submit(frame("late"), client="late"))
        engine.step(10)
        wait(futures, 60)
    assert engine.served.count("late") == 1
    assert len(engine.served) == 6


def test_an_error_is_the_frames_own(model):
    engine = SteppedEngine(model)
    engine.step(100)
    with Scheduler(engine.model) as scheduler:
        bad = scheduler.submit(frame("broken"), client="a")
        good = scheduler.submit(frame("fine"), client="a")
        with pytest.raises(EngineError, match="the engine failed"):
            bad.result(30)
        assert good.result(30).class_map is not None


def test_close_cancels_what_waits_and_finishes_what_runs(model):
    threads = NewThreads()
    engine = SteppedEngine(model)
    scheduler = Scheduler(engine.model, workers=1)
    running = scheduler.submit(frame("a"), client="a")
    engine.wait_inside()
    waiting = [scheduler.submit(frame("b"), client="b"), scheduler.submit(frame("c"), client="c", live=True)]
    closer = threading.Thread(target=scheduler.close)
    closer.start()
    done, _ = wait(waiting, 30)
    assert len(done) == 2
    engine.step()
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
        shared, strict = scheduler.shared("job 1"), DetectionOptions(score_threshold=0.3)
        # More threads than there are places to wait in: they wait for a place, where a request would be refused.
        report = run(
            source,
            shared.with_options(strict),
            sinks=[open_sink(tmp_path / "a.jsonl")],
            workers=4,
        )
        run(again, model.with_options(strict), sinks=[open_sink(tmp_path / "b.jsonl")])
        assert report.frames == 30
        shared.close()
        assert scheduler.submit(solid("red"), client="x").result(30) is not None

    def without_times(path):
        import json

        return [{k: v for k, v in json.loads(line).items() if k != "timings"} for line in path.read_text().splitlines()]

    assert without_times(tmp_path / "a.jsonl") == without_times(tmp_path / "b.jsonl")


def noisy(source, seed):
    size = (48 + seed, 64 - seed, 3)
    return Frame(np.random.default_rng(seed).integers(0, 256, size, np.uint8), index=seed, source=source)


def same(got, expected):
    np.testing.assert_array_equal(got.class_map.mask, expected.class_map.mask)
    np.testing.assert_array_equal(got.class_map.logits, expected.class_map.logits)
    np.testing.assert_array_equal(got.detections.boxes, expected.detections.boxes)
    np.testing.assert_array_equal(got.detections.scores, expected.detections.scores)


def test_what_waits_goes_together_and_each_frame_gets_its_own_answer(batching):
    engine = SteppedEngine(batching)
    with Scheduler(engine.model, waiting=100) as scheduler:
        futures = [scheduler.submit(noisy("first", 0), client="first")]
        engine.wait_inside()
        # A second worker is free, but the engine is not: until it is, frames may still join.
        futures += [scheduler.submit(noisy("job", i), client="job") for i in range(1, 5)]
        futures += [scheduler.submit(noisy("request", 5), client="request")]
        futures += [scheduler.submit(noisy(name, 6), client=name, live=True) for name in ("cam 1", "cam 2")]
        assert scheduler.waiting == 7
        engine.step(3)
        results = [future.result(60) for future in futures]
        # One that is alone waits for no company.
        engine.step()
        results.append(scheduler.submit(noisy("last", 7), client="last").result(60))
    assert engine.calls == [["first"], ["cam 1", "cam 2", "job", "request"], ["job", "job", "job"], ["last"]]
    with load_model(batching.engine.path, engine="onnxruntime") as one_by_one:
        assert one_by_one.engine.batch == 1
        for result in results:
            same(result, one_by_one.predict(result.frame))


def test_turns_are_given_by_the_same_rules_when_frames_go_together(batching):
    engine = SteppedEngine(batching)
    live = [f"cam {i}" for i in range(13)]  # more than the engine can do
    ended = threading.Event()

    def send(name):
        scheduler.submit(frame(name), client=name, live=True).add_done_callback(lambda done: again(name, done))

    def again(name, done):
        if not (ended.is_set() or done.cancelled()):
            with suppress(EngineError):  # it is being closed
                send(name)

    with Scheduler(engine.model, waiting=100, workers=1) as scheduler:
        scheduler.submit(frame("first"), client="first")
        engine.wait_inside()
        bulk = [scheduler.submit(frame(name), client=name) for _ in range(3) for name in ("job", "request")]
        for name in live:
            send(name)
        engine.step(10_000)
        done, _ = wait(bulk, 60)
        ended.set()
    assert len(done) == len(bulk)
    served = engine.served[1:]
    places = [i for i, source in enumerate(served) if source in ("job", "request")]
    assert places == [BULK_TURN * i - 1 for i in range(1, 7)]
    assert [served[i] for i in places] == ["job", "request"] * 3
    counts = Counter(served[: places[-1]])
    assert max(counts[name] for name in live) - min(counts[name] for name in live) <= 1
    assert {len(call) for call in engine.calls[1:13]} == {4}
    for call in engine.calls:
        assert max(call.count(name) for name in live) <= 1


def test_a_newer_live_frame_takes_the_place_of_the_older_until_the_engine_is_free(batching):
    engine = SteppedEngine(batching)
    with Scheduler(engine.model) as scheduler:
        scheduler.submit(frame("first"), client="first")
        engine.wait_inside()
        older = scheduler.submit(frame("cam", 1), client="cam", live=True)
        newer = scheduler.submit(frame("cam", 2), client="cam", live=True)
        assert older.cancelled() and scheduler.replaced == 1
        engine.step(2)
        assert newer.result(30).frame.index == 2
    assert engine.calls == [["first"], ["cam"]]


def test_a_frame_that_fails_or_is_taken_back_takes_no_other_with_it(batching):
    engine = SteppedEngine(batching)
    with Scheduler(engine.model, waiting=100) as scheduler:
        scheduler.submit(frame("first"), client="first")
        engine.wait_inside()
        good = scheduler.submit(noisy("good", 1), client="good")
        bad = scheduler.submit(Frame(np.zeros((48, 64), np.uint8), source="bad"), client="bad")  # no picture
        gone = scheduler.submit(frame("gone"), client="gone")
        other = scheduler.submit(noisy("other", 2), client="other", live=True)
        assert gone.cancel()
        engine.step(100)
        with pytest.raises(UsageError, match=r"uint8 array \[H, W, 3\].*\[48, 64\]"):
            bad.result(60)
        for future in (good, other):
            same(future.result(60), batching.predict(future.result(60).frame))
        broken = [scheduler.submit(frame("broken"), client=str(i)) for i in range(4)]
        wait(broken, 60)
        assert all(isinstance(future.exception(), EngineError) for future in broken)
        assert scheduler.submit(frame("after"), client="x").result(60).class_map is not None
        assert scheduler.waiting == 0
    assert engine.calls[1:5] == [["other", "good", "bad"], ["other"], ["good"], ["bad"]]
    assert "gone" not in engine.served


def test_the_engine_goes_on_while_results_are_made_of_what_it_said(batching):
    engine = SteppedEngine(batching)
    slow = batching.with_options(DetectionOptions())
    interpret, go_on = slow.interpret, threading.Event()

    def held(inference):
        assert go_on.wait(60)
        return interpret(inference)

    slow.interpret = held
    with Scheduler(engine.model) as scheduler:
        first = scheduler.submit(frame("first"), client="first", model=slow)
        engine.step()
        engine.wait_inside()
        second = scheduler.submit(frame("second"), client="second")
        engine.wait_inside()
        engine.step()
        assert second.result(60).frame.source == "second" and not first.done()
        go_on.set()
        assert first.result(60).frame.source == "first"


def test_a_shared_model_gives_several_frames_a_turn_each(batching):
    frames = [noisy("a", seed) for seed in range(5)]
    with Scheduler(batching, waiting=2) as scheduler:
        inferences = scheduler.shared("job").infer_batch(frames)
    for inference, expected in zip(inferences, batching.infer_batch(frames), strict=True):
        assert inference.frame is expected.frame
        np.testing.assert_array_equal(inference.outputs["class_logits"], expected.outputs["class_logits"])


@pytest.mark.parametrize("kind", ["model", "batching"])
def test_many_threads_at_once(kind, request):
    """A storm of clients: every future ends, with its own frame's answer or cancelled by a newer frame of its own."""
    model = request.getfixturevalue(kind)
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
