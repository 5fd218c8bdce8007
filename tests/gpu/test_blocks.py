"""The blocks of `perception gpu-check`: all on a GPU; those for TensorRT on a stand-in, see `tests.gpu.stand_in`."""

from __future__ import annotations

from pathlib import Path

import pytest

from perception.engines.trt.flavour import installed
from perception.gpu_check import BLOCKS, engine_blocks, kernel_blocks, run_blocks
from perception.gpu_check.finding import Absent, Wrong
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
    monkeypatch.setattr(engine_blocks, "_street", lambda: path)
    for name, value in {"CALLS": 2, "QUICK_CALLS": 4, "WARM_CALLS": 1, "FRAMES": 2}.items():
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


def test_without_a_gpu_they_are_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    from perception.common import hardware

    monkeypatch.setattr(hardware, "nvidia_gpus", lambda: ([], "no NVIDIA driver"))
    for name in ("parity", "speed", "throughput", "loss"):
        with pytest.raises(Absent, match="no NVIDIA GPU"):
            getattr(engine_blocks, name)(True)
