"""Decoding on a GPU: what happens where there is none, and where it refuses. The refusals are FFmpeg's own."""

import logging
import os
import re
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest

from perception.common import hardware
from perception.errors import SourceError, UsageError
from perception.picture.decoder_frames import Converter
from perception.sources import failover, nvdec, open_source
from perception.sources.base import Selection
from perception.sources.container import open_container
from perception.sources.decode import Decoder
from perception.sources.video import PipeSource
from tests.media import http_folder, make_video, read_stamp
from tests.noise import noise

NO_GPU = pytest.mark.skipif(bool(hardware.nvidia_gpus()[0]), reason="there is a GPU, which would not refuse")


def numbers(uri, **options):
    with open_source(uri, **options) as source:
        return [read_stamp(frame.image) for frame in source]


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@NO_GPU
def test_without_a_gpu_nothing_is_said_unless_it_was_asked_for(tmp_path, caplog):
    path = make_video(tmp_path / "v.mp4", frames=12)
    assert numbers(path) == numbers(path, decoder="cpu") == list(range(12))
    assert warnings(caplog) == []
    assert numbers(path, decoder="nvdec") == list(range(12))
    (line,) = warnings(caplog)
    assert line.startswith(f"{path}: decoded on the CPU and not by NVDEC: ") and "driver" in line


@pytest.fixture
def hopeful(monkeypatch):
    """A machine that looks as if its GPU could decode."""
    monkeypatch.setattr(nvdec, "nvdec_fault", lambda: "")


@NO_GPU
def test_a_gpu_that_refuses_when_it_comes_to_it(tmp_path, caplog, hopeful):
    path = make_video(tmp_path / "v.mp4", frames=12)
    assert numbers(path, decoder="nvdec") == list(range(12))
    (line,) = warnings(caplog)
    assert line.startswith(f"{path}: decoded on the CPU: the GPU failed")


def test_a_codec_that_nvdec_does_not_have(tmp_path, caplog, hopeful):
    path = make_video(tmp_path / "v.mkv", codec="ffv1", frames=12)
    assert numbers(path, decoder="nvdec") == list(range(12))
    assert warnings(caplog) == [f"{path}: decoded on the CPU: NVDEC has no ffv1"]


@NO_GPU
def test_a_file_that_is_no_video_is_told_once(tmp_path, caplog, hopeful):
    (tmp_path / "v.mp4").write_bytes(b"nothing" * 99)
    with pytest.raises(SourceError, match="not a video"):
        open_source(tmp_path / "v.mp4", decoder="nvdec")
    assert warnings(caplog) == []


@NO_GPU
def test_streams_too(tmp_path, caplog):
    path = make_video(tmp_path / "v.mkv", frames=12)
    with http_folder(tmp_path) as url:
        assert numbers(f"{url}/{path.name}", decoder="nvdec") == list(range(12))
    (line,) = warnings(caplog)
    assert "not by NVDEC" in line


@NO_GPU
def test_pipes_too(tmp_path, caplog):
    path = make_video(tmp_path / "v.mkv", frames=12)
    with path.open("rb") as pipe, PipeSource(Selection(), pipe, decoding="nvdec") as source:
        assert [read_stamp(frame.image) for frame in source] == list(range(12))
    (line,) = warnings(caplog)
    assert line.startswith("-: decoded on the CPU and not by NVDEC")


def test_a_profile_that_nvdec_refuses_is_said_once(tmp_path, caplog):
    """FFmpeg then decodes in software by itself; here it does so because no GPU was ever asked."""
    path = make_video(tmp_path / "v.mp4", frames=12)
    decoder = Decoder(open_container(str(path), str(path), {}), str(path))
    decoder._on_gpu = True
    assert len(list(decoder.frames())) == 12
    assert warnings(caplog) == [f"{path}: decoded on the CPU: NVDEC does not support this h264 (yuv420p, 80x48)"]
    decoder.close()


class Losing:
    """A decoder that holds frames back, as a GPU's does, and fails for good at one of its packets."""

    def __init__(self, codec, packets, held):
        self._codec, self._left, self._held = codec, packets, held
        self._waiting = []

    def __getattr__(self, name):
        return "cuda" if name == "pix_fmt" else getattr(self._codec, name)

    def decode(self, packet):
        if self._left == 0:
            raise av.error.ExternalError(542398533, "Generic error in an external library")
        self._left -= 1
        self._waiting += self._codec.decode(packet)
        ready = len(self._waiting) - (self._held if packet is not None else 0)
        given, self._waiting = self._waiting[: max(ready, 0)], self._waiting[max(ready, 0) :]
        return given


@pytest.mark.parametrize("opened", ["file:{}", "{}"])  # a file that can be opened again, and what cannot
@pytest.mark.parametrize(
    ("codec", "name", "options"),
    [
        ("libx264", "v.mp4", {"g": "12", "bf": "2", "x264-params": "open-gop=1:scenecut=0"}),
        ("mpeg2video", "v.ts", {"g": "12", "bf": "2"}),
        ("mjpeg", "v.mkv", {}),
    ],
)
def test_a_gpu_that_is_lost_costs_no_frame(tmp_path, caplog, codec, name, options, opened):
    """The same frames as on the CPU, each once, in order, at the same times."""
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = make_video(tmp_path / name, codec=codec, frames=48, options=options, pix_fmt=pix_fmt)

    def decoded(losing=None):
        decoder = Decoder(open_container(opened.format(path), str(path), {}), str(path))
        if losing is not None:
            decoder._on_gpu, decoder._codec = True, Losing(decoder._codec, *losing)
        frames = [(frame.pts, frame.to_ndarray(format="gray")) for frame in decoder.frames()]
        assert decoder.corrupt == 0
        decoder.close()
        return frames

    wanted = decoded()
    assert len(wanted) == 48
    for packets, held in product((0, 1, 11, 12, 13, 29, 47, 48), (0, 7)):
        caplog.clear()
        got = decoded((packets, held))
        assert [pts for pts, _ in got] == [pts for pts, _ in wanted], (packets, held)
        assert all(np.array_equal(ours, theirs) for (_, ours), (_, theirs) in zip(got, wanted, strict=True))
        (line,) = warnings(caplog)
        assert line.startswith(f"{path}: decoded on the CPU from here on: the GPU failed: ")


def test_colours_and_rotation_of_a_file_outlast_the_gpu(tmp_path):
    path = make_video(tmp_path / "v.mp4", frames=12, rotation=90, colorspace=1, color_range=2, pix_fmt="yuv420p")
    wanted = next(iter(open_source(path)))
    with open_source(path) as source:
        decoder = source._decoder
        decoder._on_gpu, decoder._codec = True, Losing(decoder._codec, 3, 0)
        *_, last = source
    assert last.planes is not None and wanted.planes is not None
    assert (last.width, last.height) == (wanted.width, wanted.height) == (48, 80)
    assert (last.planes.matrix, last.planes.full_range) == (wanted.planes.matrix, wanted.planes.full_range)
    assert (last.planes.matrix, last.planes.full_range) == ("bt709", True)


def test_what_is_kept_for_a_gpu_that_is_lost_is_bounded(tmp_path, monkeypatch):
    path = make_video(tmp_path / "v.mp4", frames=48, options={"g": "12", "bf": "2"})
    with av.open(str(path)) as container:
        packets = [*container.demux(video=0)]
        frames = [frame.pts for packet in packets for frame in packet.decode()]
    recent = failover.RecentPackets()
    for packet, pts in zip(packets, frames, strict=False):
        recent.add(packet if packet.size else None)
        recent.shown(pts)
    assert 0 < sum(len(group) for group in recent._groups) <= 24
    monkeypatch.setattr(failover, "_MOST_BYTES", 10)
    for packet in packets[:30]:
        recent.add(packet)
        assert recent._bytes <= 10 + packet.size
    assert list(recent.decoded_by(None)) == []


@pytest.mark.parametrize(("version", "fault"), [("17.1.0", True), ("17.9", True), ("18.0.0", False), ("20.1", False)])
def test_before_pyav_18_colours_are_lost_on_the_way_from_the_gpu(monkeypatch, version, fault):
    gpu = hardware.Gpu("NVIDIA Simulated", (8, 9), 8 << 30)
    monkeypatch.setattr(hardware, "nvidia_gpus", lambda: ([gpu], "CUDA driver 13.0"))
    monkeypatch.setattr(av, "__version__", version)
    nvdec.nvdec_fault.cache_clear()
    said = nvdec.nvdec_fault()
    nvdec.nvdec_fault.cache_clear()
    assert (f"PyAV {version} loses the colours" in said) == fault


@pytest.mark.parametrize("seed", range(3))
def test_pictures_as_nvdec_gives_them_are_those_of_the_cpu(seed):
    """NV12: a plane of luma, then one of chroma pairs."""
    y, u, v = (noise(*shape, seed=seed) for shape in ((48, 80), (24, 40), (24, 40)))
    flat = np.concatenate([y.reshape(-1), np.stack([u, v], -1).reshape(-1)]).reshape(72, 80)
    planes, image = Converter()(av.VideoFrame.from_ndarray(flat, format="nv12"))
    assert planes is not None and image is None
    for got, wanted in ((planes.y, y), (planes.u, u), (planes.v, v)):
        np.testing.assert_array_equal(got, wanted)


def test_decoders_that_do_not_exist(tmp_path):
    with pytest.raises(UsageError, match=r"unknown decoder 'cuda'; choose one of: auto, cpu, nvdec"):
        open_source(make_video(tmp_path / "v.mp4", frames=2), decoder="cuda")


DRIVER = """
#include <stdio.h>
static void *current;
static void told(const char *what) { printf("%s\\n", what); fflush(stdout); }
int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { told("retained"); *context = (void *)0x1234; return BUSY; }
int cuCtxSetCurrent(void *context) { current = context; return 0; }
int cuCtxGetCurrent(void **context) { *context = current; return 0; }
int cuCtxCreate_v2(void **context, unsigned flags, int device) { told("made"); *context = (void *)0x99; return 0; }
int cuCtxPushCurrent_v2(void *context) { return 0; }
int cuCtxPopCurrent_v2(void **context) { return 0; }
int cuCtxDestroy_v2(void *context) { told(context == (void *)0x99 ? "ended" : "ended another's"); return 0; }
"""

OPEN = """
import threading
import av
from perception.sources import nvdec
nvdec.nvdec_fault = lambda: ""
for _ in range(2):
    open_one = lambda: av.CodecContext.create("h264", "r", hwaccel=nvdec.accelerator("nvdec", "x"))
    source = threading.Thread(target=open_one)
    source.start()
    source.join()
print("opened")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the driver's library has another name there")
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler to make the library with")
@pytest.mark.parametrize(
    ("busy", "said"), [(0, ["retained", "opened"]), (2, ["retained", "made", "ended", "made", "ended", "opened"])]
)
def test_all_sources_take_one_context(tmp_path, busy, said):
    """FFmpeg's own code, with a driver made here: what it asks for tells whose context it takes."""
    (library,) = [
        *Path(av.__file__).parent.parent.glob("av.libs/libavutil*"),
        *Path(av.__file__).parent.glob("libavutil*"),
    ]
    names = set(re.findall(rb"\0(cu[A-Z][A-Za-z0-9]+(?:_v2)?)(?=\0)", library.read_bytes()))
    rest = [name.decode() for name in names if not re.search(rb"\b%s\(" % name, DRIVER.encode())]
    (tmp_path / "driver.c").write_text(DRIVER + "".join(f"int {name}(void) {{ return 0; }}\n" for name in sorted(rest)))
    command = ["cc", f"-DBUSY={busy}", "-shared", "-fPIC", "-o", tmp_path / "libcuda.so.1", tmp_path / "driver.c"]
    subprocess.run(command, check=True, timeout=60)
    environment = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", OPEN], env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == said
