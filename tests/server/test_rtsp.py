"""A network camera that comes and goes: a real RTSP server that is stopped, frozen and started again."""

import signal
import time
from contextlib import closing
from itertools import pairwise

import pytest

from perception import load_model, open_source
from perception.server.inference.scheduler import Scheduler
from perception.server.metrics import Metrics
from perception.server.streams.stream import Stream
from perception.server.streams.timeouts import Timeouts
from tests.media import make_video, read_stamp
from tests.models import write_model
from tests.server.rtsp_process import NEEDS, RtspProcess, missing
from tests.server.waiting import wait_for

TIMEOUTS = Timeouts(stall=1.0, silence=3.0, first_pause=0.1, longest_pause=0.5, age=10.0)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    problem = missing()
    if problem:
        pytest.skip(f"no RTSP server here ({problem}); {NEEDS}")
    return make_video(tmp_path_factory.mktemp("rtsp") / "v.mp4", frames=1000, fps=25, keyint=5)


@pytest.fixture
def server(video):
    made = RtspProcess(video)
    made.start()
    yield made
    made.end()


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory):
    path = write_model(tmp_path_factory.mktemp("models") / "m.onnx", classes=["white", "black"])
    with load_model(path, precision="fp32") as model, Scheduler(model) as made:
        yield made


def watch(stream, count):
    """The next ``count`` frames that a viewer sees."""
    frames = []
    with stream.subscribe() as viewer:
        while len(frames) < count:
            prediction = viewer.next(60)
            assert prediction is not None, stream.status()
            frames.append(prediction.frame)
    return frames


def open_stream(server, scheduler, metrics=None):
    uri = f"rtsp://bob:s3cret@127.0.0.1:{server.port}/live"
    connect = lambda: open_source(uri, timeout=TIMEOUTS.silence)  # noqa: E731
    return closing(Stream("cam", "camera", connect, scheduler, timeouts=TIMEOUTS, metrics=metrics))


def test_frames_come_in_order_and_in_time(server, scheduler):
    with open_stream(server, scheduler) as stream:
        frames = watch(stream, 30)
        assert stream.state == "running"
    numbers = [read_stamp(frame.image) for frame in frames]
    assert all(b > a for a, b in pairwise(numbers))
    assert frames[-1].time - frames[0].time == pytest.approx((numbers[-1] - numbers[0]) / 25, abs=0.3)


def test_a_server_that_is_stopped_twice_and_started_again(server, scheduler):
    metrics = Metrics()
    states = []
    with open_stream(server, scheduler, metrics) as stream:
        frames = watch(stream, 5)
        for how in (signal.SIGKILL, signal.SIGTERM):
            server.stop(how)
            wait_for(lambda: stream.state == "reconnecting", 60)
            status = stream.status()
            assert "trying again in" in status["message"]
            assert "s3cret" not in str(status)
            time.sleep(1.0)
            assert stream.state == "reconnecting"  # several refusals later
            before = stream.reconnects
            server.start()
            wait_for(lambda b=before: stream.reconnects == b + 1, 60)
            frames += watch(stream, 5)
            states.append(stream.state)
        assert states == ["running", "running"]
        text = metrics.render().decode()
        assert 'perception_reconnects_total{stream="cam"} 2.0' in text
        assert 'perception_stream_state{state="running",stream="cam"} 1.0' in text
    # One film for whoever watches, though each connection began at the beginning of the server's.
    assert all(b.time > a.time and b.index > a.index for a, b in pairwise(frames))


def test_a_server_that_freezes(server, scheduler):
    with open_stream(server, scheduler) as stream:
        watch(stream, 3)
        server.process.send_signal(signal.SIGSTOP)
        wait_for(lambda: stream.state == "stalled", 60)
        wait_for(lambda: stream.state == "reconnecting", 60)
        server.process.send_signal(signal.SIGCONT)
        wait_for(lambda: stream.reconnects >= 1, 60)
        watch(stream, 3)
        assert stream.state == "running"


def test_a_path_that_the_server_does_not_have(server, scheduler):
    uri = f"rtsp://127.0.0.1:{server.port}/nothing"
    connect = lambda: open_source(uri, timeout=3)  # noqa: E731
    with closing(Stream("cam", "camera", connect, scheduler, timeouts=TIMEOUTS)) as stream:
        wait_for(lambda: stream.state == "reconnecting", 60)
        assert "404" in stream.status()["message"]
