"""Cameras: none is at hand, so a video file stands in for the device that OpenCV opens."""

import sys
import threading
import time
from itertools import pairwise

import cv2
import numpy as np
import pytest

from perception.errors import SourceError
from perception.sources import camera, open_source
from tests.media import make_video, read_stamp
from tests.server.waiting import wait_for


@pytest.fixture
def device(tmp_path, monkeypatch):
    """Gives a function that plugs in a camera which shows 60 numbered frames at about 100 a second, then vanishes."""

    def plug(frames=60, pause=0.01, **opened):
        path = make_video(tmp_path / "camera.mkv", codec="ffv1", pix_fmt="bgra", frames=frames)

        class Device:
            def __init__(self):
                self.capture = cv2.VideoCapture(str(path))
                self.released = False

            def read(self):
                assert threading.current_thread() is not threading.main_thread()
                time.sleep(pause)
                return self.capture.read()

            def get(self, what):
                return self.capture.get(what)

            def release(self):
                self.released = True

        made = []

        def open_device(name, size_wh, fps):
            opened.update(name=name, size_wh=size_wh, fps=fps)
            made.append(Device())
            return made[-1]

        monkeypatch.setattr(camera, "open_device", open_device)
        monkeypatch.setattr(camera.CameraSource, "_check_exists", lambda self: None)
        return made

    return plug


def test_frames_are_live_and_timed_by_their_arrival(device):
    made = device()
    with open_source("0", max_frames=10) as source:
        assert source.info.live
        assert (source.info.kind, source.info.width, source.info.height) == ("camera", 80, 48)
        assert source.info.fps == 25
        frames = list(source)
    assert len(frames) == 10
    assert frames[0].time < frames[-1].time
    for frame in frames:
        assert read_stamp(frame.image) == frame.index
        assert float(frame.pts * frame.time_base) == pytest.approx(frame.time, abs=1e-4)
    assert all(b.arrived > a.arrived for a, b in pairwise(frames))
    assert made[0].released


def test_slow_consumer_gets_the_newest_and_the_rest_is_counted(device):
    device()
    with open_source("/dev/video0") as source:
        taken = [next(source)]
        wait_for(lambda: source.dropped > 10)
        with pytest.raises(SourceError, match="no more pictures from the camera"):
            taken.extend(source)
        assert len(taken) + source.dropped == 60
        assert source.dropped > 10
    numbers = [f.index for f in taken]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 59  # what came before the plug was pulled is handed out first


def test_closing_stops_the_thread_and_frees_the_camera(device):
    made = device(frames=900)
    source = open_source("0")
    next(source)
    source.close()
    assert made[0].released
    assert list(source) == []
    assert not [t for t in threading.enumerate() if t.name == "read camera 0" and t.is_alive()]


def test_parts(device):
    device(frames=400)
    with open_source("0", every=3, start=0.1, duration=0.5) as source:
        frames = list(source)
    assert all(f.index % 3 == 0 and 0.1 <= f.time < 0.6 for f in frames)
    assert frames


def test_who_wants_few_frames_waits_as_long_as_any_come(device):
    device(frames=400)  # 60 frames take as long as nobody would wait for one
    with open_source("0", every=60, start=0.6, max_frames=2, timeout=0.6) as source:
        assert [f.index for f in source] == [0, 60]


def test_a_camera_in_use(device, monkeypatch):
    device()

    class Busy:
        def read(self):
            return False, None

        def release(self):
            pass

    monkeypatch.setattr(camera, "open_device", lambda *a: Busy())
    with pytest.raises(SourceError, match="camera 0: cannot be opened; is another program using it"):
        open_source("0", timeout=3)


def test_a_driver_that_hangs(device, monkeypatch):
    device()
    ended = threading.Event()

    class Stuck:
        def read(self):
            ended.wait(10)
            return False, None

        def release(self):
            pass

    monkeypatch.setattr(camera, "open_device", lambda *a: Stuck())
    with pytest.raises(SourceError, match=r"camera 0: no picture arrived within 0\.3 s"):
        open_source("0", timeout=0.3)
    ended.set()


def test_gray_cameras(device, monkeypatch):
    device()

    class Gray:
        def read(self):
            time.sleep(0.01)
            return True, np.full((48, 64), 77, np.uint8)

        def get(self, what):
            return 0.0

        def release(self):
            pass

    monkeypatch.setattr(camera, "open_device", lambda *a: Gray())
    with open_source("0", max_frames=1) as source:
        (frame,) = source
        assert source.info.fps is None
    assert frame.image.shape == (48, 64, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="devices are files on Linux only")
@pytest.mark.parametrize("uri", ["97", "/dev/video97"])
def test_no_such_camera(uri, capfd):
    with pytest.raises(SourceError, match=f"camera {uri}: there is no such camera"):
        open_source(uri)
    assert capfd.readouterr().err == ""


def test_opencvs_own_complaints_are_not_shown(monkeypatch, capfd):
    monkeypatch.setattr(camera.CameraSource, "_check_exists", lambda self: None)
    with pytest.raises(SourceError, match="camera 97: cannot be opened"):
        open_source("97", size_wh=(640, 480), fps=30)
    assert capfd.readouterr().err == ""
