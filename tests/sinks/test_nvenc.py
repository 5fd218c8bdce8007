"""The encoder of a GPU: where it is taken, and what happens where it refuses. The refusals are FFmpeg's own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from perception import UsageError, open_sink
from perception.common import hardware
from perception.sinks import codecs
from perception.sinks.codecs import choose_encoder
from perception.sinks.nvenc import NVENC, nvenc_fault
from perception.types import Frame, Prediction, SourceInfo

pytestmark = pytest.mark.skipif(NVENC not in av.codecs_available, reason="FFmpeg was built without it")
NO_GPU = pytest.mark.skipif(bool(hardware.nvidia_gpus()[0]), reason="there is a GPU, which would not refuse")


@pytest.fixture
def hopeful(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that looks as if its GPU could encode."""
    monkeypatch.setattr(codecs, "nvenc_fault", lambda: "")


@pytest.fixture
def asked_again() -> Iterator[None]:
    nvenc_fault.cache_clear()
    yield
    nvenc_fault.cache_clear()


@NO_GPU
def test_without_a_gpu_auto_is_the_usual_encoder() -> None:
    for container in ("mp4", "matroska", "webm"):
        auto, usual = (choose_encoder(container, codec, 20, None, 2, "x") for codec in ("auto", None))
        assert auto == usual and auto.otherwise is None


def test_with_a_gpu_auto_is_its_encoder_and_the_default_stays(hopeful: None) -> None:
    auto, usual = (choose_encoder("mp4", codec, 20, None, None, "x") for codec in ("Auto", None))
    assert (auto.name, usual.name) == (NVENC, "libx264") and auto.otherwise == usual
    assert auto.options["cq"] == "20" and "crf" not in auto.options and auto.options["b"] == "0"
    assert choose_encoder("webm", "auto", None, None, None, "x").name == "libvpx-vp9"  # which takes no H.264
    assert choose_encoder("mpegts", "auto", None, None, None, "x").name == "libx264"  # what is published is not by it


@NO_GPU
def test_a_gpu_that_refuses_costs_no_video(tmp_path: Path, hopeful: None, caplog: pytest.LogCaptureFixture) -> None:
    """As one whose sessions are all taken does."""
    with open_sink(tmp_path / "out.mp4", codec="auto") as sink:
        sink.open(SourceInfo("x", "file", 64, 48), None)
        for index in range(3):
            image = np.full((48, 64, 3), 80 * index, np.uint8)
            sink.write(Prediction(Frame(image, index=index, time=index / 25), picture=image))
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert f"the encoder {NVENC} does not accept 64x48" in line and line.endswith("it is encoded on the CPU")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert len(list(container.decode(video=0))) == 3
    with pytest.raises(UsageError, match=f"the encoder {NVENC} does not accept"):
        open_sink(tmp_path / "named.mp4", codec=NVENC).open(SourceInfo("x", "file", 64, 48), None)


@NO_GPU
def test_a_gpu_without_an_encoder(asked_again: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an H200 says is not known here; FFmpeg's refusal without a driver is of the same kind."""
    monkeypatch.setattr(hardware, "nvidia_gpus", lambda: ([hardware.Gpu("NVIDIA H200", (9, 0), 1)], "CUDA driver 13.0"))
    assert nvenc_fault().startswith(f"{NVENC} does not open: ")
    assert choose_encoder("mp4", "auto", None, None, None, "x").name == "libx264"
