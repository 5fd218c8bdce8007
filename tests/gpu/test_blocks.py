"""The blocks of `perception gpu-check`: all on a GPU; those for TensorRT on a stand-in, see `tests.gpu.stand_in`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception.engines.trt.cache import EngineCache
from perception.engines.trt.flavour import installed
from perception.gpu_check import BLOCKS, engine_blocks, kernel_blocks, run_blocks, torch_block
from perception.gpu_check.finding import Absent, Wrong
from perception.weights import library
from tests.gpu.conftest import SIMULATED
from tests.gpu.stand_in import StandIn
from tests.models import write_model

stands_in = [
    pytest.mark.skipif("rtx" not in installed(), reason="TensorRT for RTX has no wheel for this system"),
    pytest.mark.skipif(not SIMULATED, reason="the stand-in reads simulated memory"),
]


@pytest.mark.skipif(SIMULATED, reason="there is no GPU")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [block.name for block in BLOCKS])
def test_on_a_gpu(name: str) -> None:
    (outcome,) = run_blocks((name,), quick=True)
    assert outcome.status != "FAIL" and not outcome.simulated, outcome.number


@pytest.mark.skipif(not SIMULATED, reason="test_on_a_gpu has it")
def test_threads_fit_and_compute_at_once() -> None:
    found = kernel_blocks.streams(True)
    assert found.simulated and found.number.startswith("2 threads, 6 calls each")


@pytest.mark.skipif(not SIMULATED, reason="test_on_a_gpu has it")
def test_a_kernel_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from perception.postprocess import cuda as kernels

    fit_planes = kernels.fit_planes
    monkeypatch.setattr(
        kernels, "fit_planes", lambda planes, matrix, full, *rest: fit_planes(planes, "bt601", full, *rest)
    )
    with pytest.raises(Wrong, match=r"bytes differ: 40x30, \w+, bt709, limited range"):
        kernel_blocks.exactness(True)


@pytest.mark.skipif(not SIMULATED, reason="test_on_a_gpu has it")
@pytest.mark.parametrize("fault", ["ties", "NaN and infinities"])
def test_an_argmax_that_is_wrong_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes the last of several that are best, and one that leaves NaN where it is."""
    from perception.postprocess import cuda as kernels

    def wrong(logits: Any, labels: Any, stream: Any) -> None:
        given = logits.copy_to_host()
        finite = np.nan_to_num(given, nan=-1e30, posinf=1e30, neginf=-1e30)
        last = finite.shape[1] - 1 - finite[:, ::-1].argmax(1)
        labels.copy_to_device((last if fault == "ties" else finite.argmax(1)).astype(np.uint8))

    monkeypatch.setattr(kernels, "label", wrong)
    with pytest.raises(Wrong, match=f"values differ: the argmax of logits, {fault}"):
        kernel_blocks.exactness(True)


@pytest.mark.skipif(not SIMULATED, reason="test_on_a_gpu has it")
def test_a_result_of_an_earlier_call_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not written again is poisoned."""
    from perception.gpu_check import network

    execute, ran = network.Context.execute_async_v3, []

    def stop(self: network.Context, stream: int) -> bool:
        ran.append(stream)
        return True if len(ran) > 12 else execute(self, stream)

    monkeypatch.setattr(network.Context, "execute_async_v3", stop)
    with pytest.raises(Wrong, match="gave something else"):
        kernel_blocks.streams(True)


@pytest.fixture
def small(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = write_model(tmp_path / "colors.onnx", width=8, height=8)
    monkeypatch.setattr(engine_blocks, "street", lambda: path)
    values = {"CALLS": 2, "QUICK_CALLS": 4, "WARM_CALLS": 1, "FRAMES": 2, "PARITY_SIZE": (40, 30)}
    for name, value in values.items():
        monkeypatch.setattr(engine_blocks, name, value)
    return path


class TestWithAStandIn:
    pytestmark = stands_in

    def test_parity(self, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert engine_blocks.parity(True).number == "fp32 100.00%, fp16 100.00% of pixels equal"
        monkeypatch.setitem(engine_blocks.LEAST, "fp32", 1.01)
        with pytest.raises(Wrong, match=r"fp32: 100.00% of pixels are equal, not 101.0%"):
            engine_blocks.parity(True)

    @pytest.mark.slow  # each frame is hundreds of threads of the system
    @pytest.mark.timeout(1800)
    def test_speed(self, small: Path) -> None:
        number = engine_blocks.speed(False).number
        assert [part.partition(":")[0] for part in number.split("; ")] == ["1 x 1", "2 x 1", "1 x 4", "1 x 8"]

    def test_building(self, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """By the builder itself; what is wrong with the cache is found."""
        monkeypatch.setattr(library, "model_paths", lambda: {"street-open": small})
        assert engine_blocks.building(True).number.startswith("2 engines in ")
        with monkeypatch.context() as patched:
            patched.setattr(EngineCache, "_write", lambda self, *_: self.folder / "not there")
            with pytest.raises(Wrong, match="the cache does not have what was built"):
                engine_blocks.building(True)
        write = EngineCache._write

        def partly(self: EngineCache, fields: Any, plan: bytes, summary: Any) -> Path | None:
            return self.folder / "in part" if self.folder.name == "full" else write(self, fields, plan, summary)

        monkeypatch.setattr(EngineCache, "_write", partly)
        with pytest.raises(Wrong, match="on a disk that is full"):
            engine_blocks.building(True)

    @pytest.mark.slow  # each frame is hundreds of threads of the system
    @pytest.mark.timeout(1800)
    def test_throughput(self, small: Path) -> None:
        number = engine_blocks.throughput(True).number
        assert number.startswith("1280x720: engine ") and number.count(" of it") == 1

    @pytest.mark.slow
    @pytest.mark.timeout(1800)
    def test_loss(self, small: Path, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
        def lose() -> None:
            stand_in.engines[-1].broken = True

        monkeypatch.setattr(engine_blocks, "_ruin", lose)
        assert "OpenVINO" in engine_blocks.loss(True).number
        monkeypatch.setattr(engine_blocks, "_ruin", lambda: None)
        with pytest.raises(Wrong, match="was not lost"):
            engine_blocks.loss(True)


def test_torch_is_measured_on_the_same_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = write_model(tmp_path / "colors.onnx", width=16, height=16, detection=True)
    monkeypatch.setattr(torch_block, "WARM_CALLS", 2)
    real, made = torch.compile, []

    def compile_it(network: Any) -> Any:
        made.append(network)
        return real(network, backend="eager", fullgraph=True)  # no C++ compiler is asked for

    monkeypatch.setattr(torch, "compile", compile_it)
    said = torch_block.rates(path, "cpu", "fp32", 3, compiled=True)
    assert re.fullmatch(r"eager \d+ fps, [\d.]+ ms; compiled \d+ fps, [\d.]+ ms", said) and len(made) == 1
    assert "compiled" not in torch_block.rates(path, "cpu", "fp32", 3, compiled=False)
    zeros = {"class_logits": torch.zeros(1, 3, 4, 4)}
    monkeypatch.setattr(torch, "compile", lambda network: lambda frames: zeros)
    with pytest.raises(Wrong, match="compiled, torch gives other classes"):
        torch_block.rates(path, "cpu", "fp32", 3, compiled=True)


def test_without_a_gpu_they_are_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    from perception.common import hardware

    monkeypatch.setattr(hardware, "nvidia_gpus", lambda: ([], "no NVIDIA driver"))
    for block in (*(getattr(engine_blocks, n) for n in ("parity", "speed", "throughput", "loss")), torch_block.torch):
        with pytest.raises(Absent, match="no NVIDIA GPU"):
            block(True)
