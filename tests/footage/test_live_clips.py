"""Clips of live streams: over RTSP and HTTP from real servers, with clocks that lie, through a lost connection."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest

from perception.errors import SourceError
from perception.events.event import Event
from perception.footage.recorder import FootageRecorder
from perception.footage.settings import ClipSettings
from perception.footage.store import FootageStore
from perception.model import load_model
from perception.server.inference.scheduler import Scheduler
from perception.server.streams.stream import Stream
from perception.sources import open_source
from perception.stages.factories import StageFactory
from perception.types import Prediction
from tests.footage.clips import draw, event_at, shown
from tests.media import make_video, read_stamp, tcp_server
from tests.models import write_model
from tests.rtsp_camera import access_units, rtsp_camera
from tests.server.rtsp_process import NEEDS, RtspProcess, missing
from tests.server.streams import QUICK
from tests.server.waiting import wait_for


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduler]:
    path = write_model(tmp_path_factory.mktemp("models") / "m.onnx", classes=["white", "black"])
    with load_model(path, precision="fp32") as model, Scheduler(model) as made:
        yield made


class Watched:
    """A stream with an event whenever the test wants one.

    Attributes:
        numbers: that the pictures of the events carry.
        events: that were published, with their links.
    """

    def __init__(self, uri: str, scheduler: Scheduler, folder: Path, **settings: Any) -> None:
        self.numbers: list[int] = []
        self.events: list[Event] = []
        self.seen = 0
        self._wanted = threading.Event()
        self.store = FootageStore(folder)
        recorder = FootageRecorder(
            self.store, ClipSettings(**settings), draw, link=lambda name: str(folder / name), background=True
        )
        self.stream = Stream(
            "s", "yard", lambda: open_source(uri, timeout=5, packets=recorder.packets), scheduler, timeouts=QUICK,
            stages=[StageFactory("test", lambda card: self._stage)], publish=self.events.append, footage=recorder,
        )  # fmt: skip

    def _stage(self, prediction: Prediction) -> Prediction:
        self.seen += 1
        if not self._wanted.is_set():
            return prediction
        self._wanted.clear()
        self.numbers.append(read_stamp(prediction.frame.image))
        return replace(prediction, events=(event_at(prediction),))

    def happen(self) -> tuple[int, Event]:
        """Have an event; its picture's number, and it."""
        count = len(self.events)
        self._wanted.set()
        wait_for(lambda: len(self.events) > count, 60)
        return self.numbers[-1], self.events[-1]

    def kept(self, event: Event) -> Path:
        """The clip of an event, once it is there."""
        assert event.clip is not None
        wait_for(lambda: self.store.find(Path(str(event.clip)).name) is not None, 60)
        return Path(event.clip)


@contextmanager
def watched(uri: str, scheduler: Scheduler, folder: Path, **settings: Any) -> Iterator[Watched]:
    made = Watched(uri, scheduler, folder, **settings)
    try:
        wait_for(lambda: made.seen > 40, 60)  # so that there is something before the event
        yield made
    finally:
        made.stream.close()
    assert "perception-footage" not in {thread.name for thread in threading.enumerate()}


def check(path: Path, number: int, before_s: float, after_s: float) -> None:
    """A clip of a camera of 25 frames a second shows what was around a picture, without a gap."""
    numbers = shown(path)
    assert number in numbers
    at = numbers.index(number)
    assert all(b == a + 1 or (b == 0 and a > 100) for a, b in pairwise(numbers))  # the camera plays its film again
    assert at >= before_s * 25 - 13 and len(numbers) - at >= after_s * 25 - 13  # clocks may differ by half a second


def test_rtsp_from_a_camera_in_python(tmp_path: Path, scheduler: Scheduler) -> None:
    units = access_units(tmp_path, frames=200, keyint=25)
    with (
        tcp_server(rtsp_camera(units)) as port,
        watched(f"rtsp://127.0.0.1:{port}/live", scheduler, tmp_path / "clips", before_s=1, after_s=1) as camera,
    ):
        first = camera.happen()
        second = camera.happen()  # at once: the same clip
        check(camera.kept(first[1]), first[0], 1, 1)
        assert second[1].clip == first[1].clip and second[0] in shown(str(first[1].clip))
        third = camera.happen()
        assert third[1].clip != first[1].clip
        check(camera.kept(third[1]), third[0], 1, 1)
        assert Path(str(first[1].snapshot)).is_file()


@pytest.mark.parametrize(
    "clock", ["set back", *(pytest.param(name, marks=pytest.mark.slow) for name in ("milliseconds", "standing"))]
)
def test_a_camera_whose_clock_lies(tmp_path: Path, scheduler: Scheduler, clock: str) -> None:
    stamps: dict[str, Callable[[int], int]] = {
        "milliseconds": lambda n: n * 40,
        "standing": lambda n: 12345,
        "set back": lambda n: 10**9 + n * 3600 - (3600 * 90_000 if n > 70 else 0),
    }
    units = access_units(tmp_path, frames=200, keyint=10)
    with (
        tcp_server(rtsp_camera(units, stamp=stamps[clock])) as port,
        watched(f"rtsp://127.0.0.1:{port}/live", scheduler, tmp_path / "clips", before_s=1, after_s=1) as camera,
    ):
        number, event = camera.happen()
        check(camera.kept(event), number, 1, 1)
        with av.open(str(event.clip)) as container:
            assert 1.5 < container.duration / 1e6 < 4.5


def test_a_connection_that_is_lost_in_the_middle_of_a_clip(tmp_path: Path, scheduler: Scheduler) -> None:
    answer = rtsp_camera(access_units(tmp_path, frames=200, keyint=25))
    lost = threading.Event()
    connections: list[socket.socket] = []

    def serve(connection: socket.socket, ended: threading.Event) -> None:
        connections.append(connection)
        if len(connections) == 1:
            threading.Thread(target=lambda: (lost.wait(), connection.shutdown(socket.SHUT_RDWR)), daemon=True).start()
        answer(connection, ended)

    with (
        tcp_server(serve) as port,
        watched(f"rtsp://127.0.0.1:{port}/live", scheduler, tmp_path / "clips", before_s=1, after_s=30) as camera,
    ):
        number, event = camera.happen()
        seen = camera.seen
        wait_for(lambda: camera.seen > seen + 20)
        lost.set()
        numbers = shown(camera.kept(event))  # what there was until then, whole
        assert number in numbers and len(numbers) - numbers.index(number) < 30 * 25
        wait_for(lambda: camera.stream.reconnects == 1, 60)
        seen = camera.seen
        wait_for(lambda: camera.seen > seen + 30)
        number, again = camera.happen()
        assert again.clip != event.clip
        camera.stream.close()  # in the middle of the next one
        assert number in shown(str(again.clip))
    assert sorted(p.suffix for p in (tmp_path / "clips").iterdir()) == [".jpg", ".jpg", ".mp4", ".mp4"]


@pytest.mark.slow
def test_motion_jpeg_has_no_clock(tmp_path: Path, scheduler: Scheduler) -> None:
    """FFmpeg counts its pictures as 25 a second; this camera sends fewer, and its clip lasts as long as it took."""
    import cv2

    from tests.media import stamp

    def answer(connection: socket.socket, ended: threading.Event) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n")
        for number in range(100_000):
            data = cv2.imencode(".jpg", stamp(number % 1000))[1].tobytes()
            head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode()
            connection.sendall(head + data + b"\r\n")
            if ended.wait(0.1):
                return

    with (
        tcp_server(answer) as port,
        watched(f"http://127.0.0.1:{port}/", scheduler, tmp_path / "clips", before_s=2, after_s=2) as camera,
    ):
        number, event = camera.happen()
        assert number in shown(camera.kept(event))
    with av.open(str(event.clip)) as container:
        length = (container.duration or 0) / 1e6
    assert length == pytest.approx(4, abs=1.5)


def test_a_camera_without_key_frames_has_snapshots(tmp_path: Path) -> None:
    units = access_units(tmp_path, frames=50, keyint=25)
    recorder = FootageRecorder(FootageStore(tmp_path / "c"), ClipSettings(), draw)
    with (
        tcp_server(rtsp_camera(units, key_frames=False)) as port,
        pytest.raises(SourceError, match=r"key frame|can be decoded|no picture"),
    ):
        open_source(f"rtsp://127.0.0.1:{port}/live", timeout=2, packets=recorder.packets)
    recorder.close()


@pytest.mark.slow
def test_rtsp_from_gstreamer_with_b_frames(tmp_path: Path, scheduler: Scheduler) -> None:
    problem = missing()
    if problem:
        pytest.skip(f"no RTSP server here ({problem}); {NEEDS}")
    video = make_video(
        tmp_path / "v.mp4", frames=900, keyint=50, options={"bf": "2", "x264-params": "scenecut=0", "preset": "fast"}
    )
    server = RtspProcess(video)
    server.start()
    try:
        uri = f"rtsp://127.0.0.1:{server.port}/live"
        with watched(uri, scheduler, tmp_path / "clips", before_s=2, after_s=2) as camera:
            number, event = camera.happen()
            check(camera.kept(event), number, 2, 2)
            number, event = camera.happen()
            seen = camera.seen
            wait_for(lambda: camera.seen > seen + 10)
            server.stop()
            assert number in shown(camera.kept(event))
            server.start()
            wait_for(lambda: camera.stream.reconnects == 1, 60)
            seen = camera.seen
            wait_for(lambda: camera.seen > seen + 60)
            number, event = camera.happen()
            check(camera.kept(event), number, 2, 2)
    finally:
        server.end()
