"""Decoding on a GPU: what happens where there is none, and where it refuses. The refusals are FFmpeg's own."""

import logging

import av
import numpy as np
import pytest

from perception.common import hardware
from perception.errors import SourceError, UsageError
from perception.picture.decoder_frames import Converter
from perception.sources import nvdec, open_source
from perception.sources.base import Selection
from perception.sources.decode import Decoder, open_container
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


def test_a_gpu_that_is_lost_ends_the_source_with_what_to_do(tmp_path, monkeypatch):
    path = make_video(tmp_path / "v.mp4", frames=12)
    decoder = Decoder(open_container(str(path), str(path), {}), str(path))
    decoder._on_gpu = True

    class Lost:
        codec_context = decoder.stream.codec_context

        def decode(self, packet):
            raise av.error.ExternalError(542398533, "Generic error in an external library")

    packets = list(decoder._packets())
    monkeypatch.setattr(decoder, "_packets", lambda: iter(packets))
    monkeypatch.setattr(decoder, "stream", Lost())
    with pytest.raises(SourceError, match=r"the GPU failed while decoding: .*decoder=cpu"):
        list(decoder.frames())


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
