"""Cameras on a Jetson: the pipeline against what NVIDIA documents; for the device, a video of the same form."""

import re
import time

import av
import cv2
import numpy as np
import pytest

from perception.errors import SourceError, UsageError
from perception.sources import csi, open_source
from perception.sources.csi import FLIPS, CsiCamera
from tests.media import make_video, read_stamp

# Property and the values it takes: Jetson Linux Developer Guide, "Accelerated GStreamer"; for appsink, GStreamer's own.
PROPERTIES = {
    "nvarguscamerasrc": {"sensor-id": range(256), "sensor-mode": range(-1, 256)},
    "nvvidconv": {"flip-method": range(8)},
    "appsink": {"drop": ("true", "false"), "max-buffers": range(2**31), "sync": ("true", "false")},
}
# What the two pads give and take: nvarguscamerasrc has NV12 in NVMM only, nvvidconv turns that into I420 on the host.
CAPS = [("video/x-raw(memory:NVMM)", "NV12"), ("video/x-raw", "I420")]


def parse(pipeline):
    """Elements with their properties, and capabilities with their fields; what is written wrongly fails."""
    elements, caps = [], []
    for part in pipeline.split(" ! "):
        if part.startswith("video/"):
            kind, *fields = part.split(", ")
            pairs = [re.fullmatch(r"(\w+)=\((int|string|fraction)\)([\w/]+)", field) for field in fields]
            assert all(pairs), part
            caps.append((kind, {pair[1]: pair[3] for pair in pairs}))
        else:
            name, *settings = part.split(" ")
            elements.append((name, dict(setting.split("=") for setting in settings)))
    return elements, caps


URIS = [
    "csi://0",
    "csi://1?size=1920x1080&fps=60",
    "csi://0?size=3280x2464&fps=21&mode=0&flip=rotate-180",
    "csi://3?fps=29.97&flip=clockwise",
    "CSI://0/?flip=upper-left-diagonal&size=640x480",
]


@pytest.mark.parametrize("uri", URIS)
def test_the_pipeline_has_documented_properties_only(uri):
    camera = CsiCamera.from_uri(uri)
    elements, caps = parse(camera.pipeline)
    assert [name for name, _ in elements] == ["nvarguscamerasrc", "nvvidconv", "appsink"]
    for name, settings in elements:
        for key, value in settings.items():
            allowed = PROPERTIES[name][key]
            assert value in allowed if isinstance(allowed, tuple) else int(value) in allowed
    assert [(kind, fields["format"]) for kind, fields in caps] == CAPS
    assert (int(caps[0][1]["width"]), int(caps[0][1]["height"])) == (camera.width, camera.height)
    assert (int(caps[1][1]["width"]), int(caps[1][1]["height"])) == camera.size
    assert "framerate" not in caps[1][1]  # nvvidconv has no say in it


def test_the_whole_string():
    assert CsiCamera.from_uri("csi://1?size=1920x1080&fps=29.97&flip=clockwise&mode=2").pipeline == (
        "nvarguscamerasrc sensor-id=1 sensor-mode=2 ! video/x-raw(memory:NVMM), width=(int)1920, height=(int)1080, "
        "format=(string)NV12, framerate=(fraction)2997/100 ! nvvidconv flip-method=3 ! video/x-raw, width=(int)1080, "
        "height=(int)1920, format=(string)I420 ! appsink drop=true max-buffers=1 sync=false"
    )


@pytest.mark.parametrize("flip", FLIPS)
def test_quarter_turns_exchange_the_sides(flip):
    camera = CsiCamera.from_uri(f"csi://0?flip={flip}&size=640x480")
    turned = "clockwise" in flip or "diagonal" in flip
    assert camera.size == ((480, 640) if turned else (640, 480))


@pytest.mark.parametrize(
    ("uri", "fault"),
    [
        ("csi://", "by its number, for example csi://0"),
        ("csi://front", "by its number"),
        ("csi://0?flip=180", "unknown flip '180'; choose one of: none, counterclockwise"),
        ("csi://0?size=720p", "write it like 1280x720"),
        ("csi://0?size=641x480", "must be even, not 641x480"),
        ("csi://0?size=0x0", "from 2x2"),
        ("csi://0?fps=fast", "fps must be a number"),
        ("csi://0?fps=0", r"fps must be in 0\.\.1000"),
        ("csi://0?fps=1/0", "fps must be a number"),
        ("csi://0?fps=1e9999999999", "fps must be a number"),
        ("csi://0?mode=256", r"mode must be in 0\.\.255"),
        ("csi://0?sise=1x1", "unknown parameter 'sise'; did you mean 'size'"),
        ("csi://0?size=640x480 ! filesink location=x", "invalid size"),
        ("csi://0?mode=1%20!%20filesink", "mode must be"),
    ],
)
def test_uris_that_say_nothing_sensible(uri, fault):
    with pytest.raises(UsageError, match=fault):
        open_source(uri)


@pytest.mark.skipif(csi.has_gstreamer(), reason="this OpenCV has GStreamer")
def test_opencv_from_pip_has_no_gstreamer():
    with pytest.raises(SourceError, match=r"csi://0: this OpenCV .* without GStreamer.*apt install python3-opencv"):
        open_source("csi://0")


@pytest.fixture
def device(tmp_path, monkeypatch):
    """A function that plugs in a camera that gives the I420 pictures of a video, as OpenCV gives them."""

    def plug(size=(80, 48), frames=30):
        path = make_video(tmp_path / "camera.mkv", codec="ffv1", frames=frames, size_wh=size)
        opened = []

        class Device:
            def __init__(self, pipeline, backend):
                opened.append((pipeline, backend))
                self.pictures = av.open(str(path)).decode(video=0)

            def read(self):
                time.sleep(0.005)
                picture = next(self.pictures, None)
                return (False, None) if picture is None else (True, picture.to_ndarray(format="yuv420p"))

            def get(self, what):
                return 30.0

            def release(self):
                pass

        monkeypatch.setattr(cv2, "VideoCapture", Device)
        monkeypatch.setattr(csi, "has_gstreamer", lambda: True)
        return opened

    return plug


def test_frames_are_planes_and_no_pixel_is_converted(device):
    opened = device()
    with open_source("csi://0?size=80x48&fps=15", max_frames=8) as source:
        assert source.info.live and (source.info.width, source.info.height, source.info.fps) == (80, 48, 30)
        frames = list(source)
    assert opened == [(CsiCamera.from_uri("csi://0?size=80x48&fps=15").pipeline, cv2.CAP_GSTREAMER)]
    for frame in frames:
        assert frame.picture is frame.planes is not None
        assert frame.planes.buffer is not None and np.shares_memory(frame.planes.buffer, frame.planes.v)
        assert read_stamp(frame.image) == frame.index


def test_options_of_open_source_win(device):
    opened = device()
    with open_source("csi://0?size=1280x720&fps=60", size_wh=(80, 48), fps=30, max_frames=1) as source:
        next(source)
    (pipeline, _) = opened[0]
    assert "width=(int)80, height=(int)48, format=(string)NV12, framerate=(fraction)30/1" in pipeline


def test_pictures_of_another_size_are_a_fault(device):
    device(size=(96, 48))
    with pytest.raises(SourceError, match=r"gives pictures uint8 \[72, 96\], not I420 of 80x48"):
        open_source("csi://0?size=80x48")


def test_a_camera_that_is_taken(monkeypatch, device):
    device(frames=1)

    class Busy:
        def __init__(self, *_):
            pass

        def read(self):
            return False, None

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Busy)
    with pytest.raises(SourceError, match="camera csi://0: cannot be opened; is another program using it"):
        open_source("csi://0", timeout=3)
