"""Streams of servers and cameras that stall, hang up, fall silent and come back."""

import threading
from contextlib import closing
from itertools import pairwise

import pytest

from perception import UsageError, open_source
from perception.server.metrics import Metrics
from perception.server.streams.stream import Stream
from perception.server.streams.timeouts import Timeouts
from tests.media import make_video, tcp_server
from tests.rtsp_camera import access_units, rtsp_camera
from tests.server.clocks import ShiftedClock
from tests.server.streams import CALM, QUICK, collect, slow, stream_of
from tests.server.waiting import wait_for

pytestmark = pytest.mark.usefixtures("no_stream_is_left_behind")


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


def test_a_camera_that_sends_no_key_frame_is_named_as_that(scheduler, tmp_path):
    units = access_units(tmp_path)
    with tcp_server(rtsp_camera(units, key_frames=False)) as port:
        uri = f"rtsp://bob:s3cret@127.0.0.1:{port}/live"
        stream = Stream("camera", "camera", lambda: open_source(uri, timeout=2.0), scheduler)
        with closing(stream):
            wait_for(lambda: "no key frame" in stream.status()["message"], 60)
            assert stream.state == "reconnecting"
            assert "s3cret" not in stream.status()["message"]
