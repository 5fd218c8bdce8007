"""Streams of real sources: files that play at their own pace, servers that stall, hang up and come back."""

import itertools
import math
import queue
import threading
import time
from contextlib import closing
from itertools import pairwise

import numpy as np
import pytest

from perception import EngineError, SourceError, UsageError, load_model, open_source
from perception.postprocess.post_processing import DetectionOptions
from perception.server.inference.scheduler import Scheduler
from perception.server.metrics import Metrics
from perception.server.options import Options
from perception.server.problems import Busy
from perception.server.streams.stream import ENGINE_ERRORS, RESTING_S, WANTED_S, Stream
from perception.server.streams.timeouts import Timeouts
from perception.server.streams.views import MAX_VIEWS
from perception.sources.base import Source
from perception.types import Frame, SourceInfo
from tests.media import make_image, make_video, read_stamp, tcp_server
from tests.models import write_model
from tests.rtsp_camera import access_units, rtsp_camera
from tests.server.clocks import ManualClock, ShiftedClock
from tests.server.threads import NewThreads
from tests.server.waiting import wait_for

QUICK = Timeouts(stall=0.5, silence=1.5, opening=6.0, first_pause=0.05, longest_pause=0.2, age=5.0)
"""Pauses cut short; results may be old, since the tests' machine may be slow."""

CALM = Timeouts(stall=5.0, silence=1e6, opening=1e12, first_pause=0.05, longest_pause=0.2, age=math.inf)
"""For a clock that the test advances: however busy the machine is, nothing stalls by itself."""


class Scripted(Source):
    """A live source whose frames come when the test says so."""

    def __init__(self, uri="scripted"):
        super().__init__()
        self.info = SourceInfo(uri=uri, kind="camera", width=64, height=48, fps=None, time_base=None, live=True)
        self._queue = queue.Queue()
        self._count = itertools.count()

    def put(self, count=1):
        """Give so many frames; returns when all have been taken."""
        for _ in range(count):
            index = next(self._count)
            self._queue.put(Frame(np.full((48, 64, 3), 128, np.uint8), index=index, time=index / 25, arrived=1e9))
        self._queue.join()

    def _read(self):
        while (frame := self._queue.get()) is not None:
            yield frame
            self._queue.task_done()  # what was given before is done with when the next one is asked for

    def _interrupt(self):
        self._queue.put(None)


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    path = write_model(tmp_path_factory.mktemp("models") / "m.onnx", classes=["white", "black"], detection=True)
    with load_model(path, precision="fp32") as model, Scheduler(model) as made:
        yield made


@pytest.fixture(autouse=True)
def _no_thread_is_left_behind():
    threads = NewThreads()
    yield
    wait_for(lambda: not threads.named("perception-capture", "perception-stream"))


def stream_of(uri, scheduler, **options):
    options = {"timeouts": QUICK} | options
    connect = options.pop("connect", lambda: open_source(uri, timeout=min(options["timeouts"].silence, 60)))
    return closing(Stream("s", "test", connect, scheduler, **options))


def slow(clock):
    """Options of a stream that only the test's clock makes impatient."""
    return {"timeouts": CALM, "clock": clock}


def collect(stream, count, options=None, timeout=30.0):
    """The next ``count`` results of a stream."""
    taken = []
    with stream.subscribe(options) as viewer:
        while len(taken) < count:
            prediction = viewer.next(timeout)
            assert prediction is not None, stream.status()
            taken.append(prediction)
    return taken


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
            assert viewer.next(30).frame.index == 11


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


class Playing:
    """A server of an endless MPEG-TS stream that can be told to stall or to hang up; counts its connections."""

    def __init__(self, path):
        self.data = path.read_bytes()
        self.connections = 0
        self.stalled = threading.Event()
        self.refusing = threading.Event()
        self.hang_up = threading.Event()

    def __call__(self, connection, ended):
        self.connections += 1
        self.hang_up.clear()
        connection.recv(4096)
        if self.refusing.is_set():
            connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
            return
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nConnection: close\r\n\r\n")
        at = 0
        while not ended.wait(0.01) and not self.hang_up.is_set():
            if self.stalled.is_set():
                continue
            connection.sendall(self.data[at : at + 188 * 4])
            at = (at + 188 * 4) % len(self.data)


@pytest.fixture
def playing(tmp_path):
    return Playing(make_video(tmp_path / "v.ts", frames=250, fps=50, keyint=5))


def test_a_server_that_hangs_up_is_connected_again(playing, scheduler):
    metrics = Metrics()
    with (
        tcp_server(playing) as port,
        stream_of(f"http://127.0.0.1:{port}/v.ts", scheduler, timeouts=QUICK, metrics=metrics) as stream,
    ):
        times = [p.frame.time for p in collect(stream, 5)]
        assert stream.state == "running"
        for lost in (1, 2):
            playing.refusing.set()  # or it may be back before anybody looks
            playing.hang_up.set()
            wait_for(lambda: stream.state == "reconnecting")
            assert "trying again in" in stream.status()["message"]
            playing.refusing.clear()
            wait_for(lambda n=lost: stream.reconnects == n)
            times += [p.frame.time for p in collect(stream, 5)]
        assert stream.state == "running"
        assert 'perception_reconnects_total{stream="s"} 2.0' in metrics.render().decode()
    assert playing.connections >= 3
    assert all(b > a for a, b in pairwise(times))


def test_a_server_that_refuses_is_asked_ever_more_seldom(playing, scheduler):
    playing.refusing.set()
    with (
        tcp_server(playing) as port,
        stream_of(f"http://u:s3cret@127.0.0.1:{port}/v", scheduler, timeouts=QUICK) as stream,
    ):
        wait_for(lambda: playing.connections >= 4)
        assert stream.state == "reconnecting"
        assert "s3cret" not in str(stream.status())
        playing.refusing.clear()
        collect(stream, 2)
        assert stream.state == "running"
        assert stream.status()["message"] == ""


def test_pauses_grow_to_their_longest_and_differ():
    timeouts = Timeouts(first_pause=0.5, longest_pause=30.0)
    for failures, longest in [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0), (1000, 30.0)]:
        pauses = [timeouts.pause(failures) for _ in range(200)]
        assert 2 / 3 * longest <= min(pauses) < max(pauses) <= longest
        assert max(pauses) - min(pauses) > 0.2 * longest


def test_a_server_that_falls_silent_is_shown_as_stalled_and_then_left(playing, scheduler):
    clock = ShiftedClock()
    with tcp_server(playing) as port, stream_of(f"http://127.0.0.1:{port}/v", scheduler, **slow(clock)) as stream:
        collect(stream, 3)
        playing.stalled.set()
        wait_for(lambda: clock.advance(CALM.stall) or stream.state == "stalled")
        playing.stalled.clear()
        wait_for(lambda: stream.state == "running")
        assert stream.reconnects == 0
        playing.stalled.set()
        wait_for(lambda: clock.advance(2 * CALM.silence) or stream.state == "reconnecting")
        playing.stalled.clear()
        wait_for(lambda: stream.reconnects >= 1)
        collect(stream, 2)


def test_a_file_on_a_server_that_stalls(tmp_path, scheduler):
    data = make_video(tmp_path / "v.mp4", frames=100, fps=25, container={"movflags": "faststart"}).read_bytes()
    asked = []

    def halfway(connection, ended):
        asked.append(connection.recv(4096))
        head = f"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data[: int(len(data) * 0.6)])
        ended.wait()

    clock = ShiftedClock()
    with tcp_server(halfway) as port, stream_of(f"http://127.0.0.1:{port}/v.mp4", scheduler, **slow(clock)) as stream:
        collect(stream, 3)
        wait_for(lambda: clock.advance(CALM.stall) or stream.state == "stalled")
        wait_for(lambda: clock.advance(2 * CALM.silence) or stream.state == "reconnecting" or len(asked) > 1)


def test_a_read_that_hangs_for_ever_is_left_behind(scheduler):
    """The watchdog: a driver that does not return keeps its thread, and the stream goes on with another."""
    release, again = threading.Event(), threading.Event()
    opened = []

    def connect():
        if opened:
            again.wait(60)
        source = open_source("synthetic:?size=64x48&fps=30&frames=0&live=1")
        opened.append(source)
        if len(opened) == 1:
            read = source._read

            def hang():
                for i, frame in enumerate(read()):
                    if i == 5:
                        release.wait()
                    yield frame

            source._read = hang
        return source

    clock = ShiftedClock()
    with stream_of("", scheduler, connect=connect, **slow(clock)) as stream:
        collect(stream, 2)
        wait_for(lambda: clock.advance(CALM.stall) or stream.state == "stalled")
        wait_for(lambda: clock.advance(2 * CALM.silence) or stream.state == "reconnecting")
        again.set()
        wait_for(lambda: stream.reconnects == 1)
        collect(stream, 3)
        assert len(opened) == 2
        release.set()


def test_a_file_that_is_not_there_fails_at_once(tmp_path, scheduler):
    with stream_of(tmp_path / "none.mp4", scheduler, reconnect=False) as stream:
        wait_for(lambda: stream.over)
        assert stream.state == "failed"
        assert stream.status()["message"] == "no such file"
        with stream.subscribe() as viewer:
            assert viewer.next(5) is None
            assert viewer.over


def test_a_network_that_is_told_wrong_is_not_asked_again(scheduler):
    asked = []

    def connect():
        asked.append(1)
        raise UsageError("no such option")

    with stream_of("", scheduler, connect=connect) as stream:
        wait_for(lambda: stream.over)
        assert (stream.state, len(asked)) == ("failed", 1)


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


def test_a_camera_that_sends_no_key_frame_is_named_as_that(scheduler, tmp_path):
    units = access_units(tmp_path)
    with tcp_server(rtsp_camera(units, key_frames=False)) as port:
        uri = f"rtsp://bob:s3cret@127.0.0.1:{port}/live"
        stream = Stream("camera", "camera", lambda: open_source(uri, timeout=2.0), scheduler)
        with closing(stream):
            wait_for(lambda: "no key frame" in stream.status()["message"], 60)
            assert stream.state == "reconnecting"
            assert "s3cret" not in stream.status()["message"]
