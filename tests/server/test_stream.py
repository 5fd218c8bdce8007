"""Streams: files that play at their own pace, viewers that share, results that are too old."""

import threading
import time
from itertools import pairwise

import numpy as np
import pytest

from perception import EngineError, SourceError, UsageError, open_source
from perception.postprocess.post_processing import DetectionOptions
from perception.server.inference.scheduler import Scheduler
from perception.server.metrics import Metrics
from perception.server.options import Options
from perception.server.problems import Busy
from perception.server.streams.demand import RESTING_S, WANTED_S
from perception.server.streams.stream import ENGINE_ERRORS
from perception.server.streams.timeouts import Timeouts
from perception.server.streams.views import MAX_VIEWS
from tests.media import make_image, make_video, read_stamp
from tests.server.clocks import ManualClock
from tests.server.streams import CALM, Scripted, stream_of
from tests.server.waiting import wait_for

pytestmark = pytest.mark.usefixtures("no_stream_is_left_behind")


def test_a_file_plays_at_its_own_pace_and_ends(tmp_path, scheduler):
    path = make_video(tmp_path / "v.mp4", frames=50, fps=25)
    began = time.monotonic()
    metrics = Metrics()
    with stream_of(path, scheduler, reconnect=False, metrics=metrics) as stream, stream.subscribe() as viewer:
        taken = []
        while not viewer.over:
            prediction = viewer.next(5.0)
            if prediction is not None:
                taken.append(prediction)
        assert stream.state == "ended"
        # Two seconds of video take two seconds, and not the fraction that decoding them takes.
        assert time.monotonic() - began > 1.9
        status = stream.status()
        assert status["frames"] + status["dropped"] == 50
        assert status["reconnects"] == 0
        assert (status["width"], status["height"], status["model"]) == (80, 48, "colors")
        text = metrics.render().decode()
        assert f'perception_frames_total{{kind="stream"}} {float(status["frames"])}' in text
        assert 'perception_stream_state{state="ended",stream="s"} 1.0' in text
    numbers = [read_stamp(p.frame.image) for p in taken]
    assert numbers == sorted(set(numbers))
    for prediction in taken:
        assert prediction.frame.time == pytest.approx(read_stamp(prediction.frame.image) / 25, abs=0.6)
        assert prediction.picture is not None


def test_a_loop_goes_on_in_time(tmp_path, scheduler):
    path = make_video(tmp_path / "v.mp4", frames=10, fps=50)
    with stream_of(path, scheduler, reconnect=False, loop=True) as stream:
        with stream.subscribe() as viewer:
            taken = []
            while not taken or taken[-1].frame.index < 35:
                taken.append(viewer.next(30))
        assert stream.state == "running"
        frames = [p.frame for p in taken]
        numbers = [read_stamp(f.image) for f in frames]
    assert min(numbers[len(numbers) // 2 :]) < 5  # it began again
    assert all(b.index > a.index and b.time > a.time and b.pts > a.pts for a, b in pairwise(frames))
    assert all(f.pts * f.time_base == pytest.approx(f.time, abs=1e-4) for f in frames)


def test_one_capture_and_one_inference_for_all_viewers(scheduler):
    opened = []

    def connect():
        opened.append(1)
        return open_source("synthetic:?size=160x96&fps=20&frames=0")

    counted = []
    model = scheduler.model.with_options(DetectionOptions())
    infer = model.infer
    model.infer = lambda frame: (counted.append(frame.index), infer(frame))[1]
    with Scheduler(model) as own, stream_of("", own, connect=connect, reconnect=False) as stream:
        viewers = [stream.subscribe(Options(opacity=0.2)) for _ in range(3)]
        other = stream.subscribe(Options(opacity=0.8))
        assert stream.viewers == 4
        seen = {}
        results = {}

        def look(viewer, name):
            results[name] = [viewer.next(30) for _ in range(15)]
            seen[name] = {p.frame.index: p for p in results[name]}

        threads = [threading.Thread(target=look, args=(v, i)) for i, v in enumerate([*viewers, other])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        for viewer in [*viewers, other]:
            viewer.close()
        assert stream.viewers == 0
    assert len(opened) == 1
    assert len(counted) == len(set(counted))
    common = set(seen[0]) & set(seen[1]) & set(seen[2])
    assert len(common) >= 3
    # The very same picture, drawn once, for those who have the same options; another one for the other.
    assert all(seen[0][n] is seen[1][n] is seen[2][n] for n in common)
    for n in set(seen[0]) & set(seen[3]):
        assert seen[0][n].picture is not seen[3][n].picture
        assert not np.array_equal(seen[0][n].picture, seen[3][n].picture)


def test_a_stream_that_nobody_watches_leaves_the_engine_to_others(scheduler):
    clock, source = ManualClock(), Scripted()
    inferred = []
    model = scheduler.model.with_options(DetectionOptions())
    infer = model.infer
    model.infer = lambda frame: (infer(frame), inferred.append(frame.index))[0]
    with Scheduler(model) as own, stream_of("", own, connect=lambda: source, timeouts=CALM, clock=clock) as stream:

        def give(count):
            """Frames one by one, so that none takes another one's place."""
            for _ in range(count):
                before = own.waiting
                source.put()
                wait_for(lambda b=before: own.waiting <= b)

        with stream.subscribe() as viewer:
            give(1)
            assert viewer.next(30).frame.index == 0
        clock.advance(WANTED_S + 0.1)
        give(5)
        wait_for(lambda: inferred == [0, 1])
        clock.advance(RESTING_S + 0.1)
        give(5)
        wait_for(lambda: inferred == [0, 1, 6])
        assert stream.state == "running"
        with stream.subscribe() as viewer:
            viewer.next(30)  # the last one
            give(1)  # at full rate at once
            wait_for(lambda: viewer.next(30).frame.index == 11)  # after what was seen before, perhaps
            assert inferred[-1] == 11


def test_a_slow_viewer_loses_frames_and_slows_nobody(scheduler):
    uri = "synthetic:?size=64x48&fps=40&frames=0"
    with stream_of(uri, scheduler, reconnect=False) as stream, stream.subscribe() as slow, stream.subscribe() as fast:
        slow.next(30)
        for _ in range(40):
            assert fast.next(30) is not None
        before = stream.newest().frame.index
        assert slow.next(30).frame.index >= before
        assert slow.missed >= 30
        assert fast.missed < 20


def test_options_hold_for_the_viewer_alone(tmp_path, scheduler):
    image = np.full((48, 64, 3), 128, np.uint8)
    image[16:32, 16:32] = 255
    path = make_image(tmp_path / "white.png", image)
    with stream_of(path, scheduler, reconnect=False, loop=True) as stream:
        choices = [
            Options(score=0.5),
            Options(score=0.999),
            Options(iou=1.0),
            Options(classes=("black",)),
        ]
        viewers = [stream.subscribe(options) for options in choices]
        counts = [len(viewer.next(30).detections) for viewer in viewers]
        for viewer in viewers:
            viewer.close()
        # One square; its score is below 0.999; it has a narrower twin that only an IoU of 1 keeps; it is not black.
        assert counts == [1, 0, 2, 0]
        status = stream.status()
        assert status["boxes"] == 1
        assert {entry["name"]: entry["color"] for entry in status["legend"]}["white"] == "#ffffff"
        assert sum(entry["share"] for entry in status["legend"]) == pytest.approx(1, abs=1e-3)


def test_results_that_are_too_old_are_dropped(scheduler):
    late = Timeouts(stall=0.5, silence=1.5, age=0.0)
    with stream_of("synthetic:?size=64x48&fps=50&frames=0", scheduler, reconnect=False, timeouts=late) as stream:
        wait_for(lambda: stream.dropped >= 10)
        assert stream.frames == 0
        assert stream.newest() is None
        assert stream.state == "running"
        wait_for(lambda: "this machine is too busy" in stream.status()["message"])
        with stream.subscribe() as viewer:
            assert viewer.next(0.1) is None
            assert not viewer.over


def test_an_engine_that_keeps_failing_fails_the_stream(scheduler):
    model = scheduler.model.with_options(DetectionOptions())
    failures = []

    def fail(frame):
        failures.append(frame.index)
        raise EngineError("the GPU is gone")

    model.infer = fail
    with Scheduler(model) as own, stream_of("synthetic:?size=64x48&frames=0", own) as stream:
        wait_for(lambda: stream.over)
        assert stream.state == "failed"
        assert stream.status()["message"] == "the GPU is gone"
    assert ENGINE_ERRORS <= len(failures) <= ENGINE_ERRORS + 3


def test_too_many_views_and_wrong_options(scheduler):
    with stream_of("synthetic:?size=64x48&frames=0", scheduler, reconnect=False) as stream:
        with pytest.raises(UsageError, match="did you mean 'white'"):
            stream.subscribe(Options(classes=("whit",)))
        viewers = [stream.subscribe(Options(opacity=i / 100)) for i in range(MAX_VIEWS)]
        with pytest.raises(Busy):
            stream.subscribe(Options(opacity=0.99))
        viewers.append(stream.subscribe(Options(opacity=0.0)))  # one that is drawn already
        viewers[3].close()
        viewers[3].close()
        stream.subscribe(Options(opacity=0.99)).close()
        for viewer in viewers:
            viewer.close()
        assert stream.viewers == 0


def test_closing_wakes_who_waits(scheduler):
    over = threading.Event()

    def connect():
        over.wait(60)
        raise SourceError("not yet")

    with stream_of("", scheduler, connect=connect) as stream:
        newer_than, waiting = stream.newer_than, threading.Semaphore(0)

        def told(number, timeout, closed):
            """Tell when it is asked under the lock of the stream: then the thread is about to wait."""
            return newer_than(number, timeout, lambda: (waiting.release(), closed())[1])

        stream.newer_than = told
        viewer = stream.subscribe()
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(viewer.next())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert waiting.acquire(timeout=30)
        viewer.close()
        for thread in threads:
            thread.join(20)
        assert answers == [None, None]
        over.set()  # closing waits for the connection
