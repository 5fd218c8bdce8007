"""Several frames in one execution of the TensorRT engine; see `tests.gpu.stand_in`."""

from __future__ import annotations

import logging
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import cuda

from perception import EngineError, UsageError, load_model
from perception.card import read_card
from perception.engines import open_engine
from perception.engines.trt.build import build_model
from perception.engines.trt.flavour import installed
from perception.postprocess.post_processing import labels_of
from perception.server.inference.scheduler import Scheduler
from perception.types import Frame
from tests.gpu.conftest import SIMULATED
from tests.gpu.stand_in import StandIn
from tests.gpu.test_frames import HEIGHT, WIDTH, frame_of
from tests.models import solid, write_model

pytestmark = [
    pytest.mark.skipif("rtx" not in installed(), reason="TensorRT for RTX has no wheel for this system"),
    pytest.mark.skipif(not SIMULATED, reason="the stand-in reads simulated memory"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_model(tmp_path / "colors.onnx", width=WIDTH, height=HEIGHT, detection=True, classification=True)


@pytest.mark.timeout(600)  # each frame is hundreds of threads of the system
def test_frames_together_give_exactly_what_they_give_alone(
    stand_in: StandIn, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of one size share no memory, and one of another size is not in their way."""
    sizes = [
        ("bgr", 40, 27),
        ("bgr", 40, 27),
        ("planes", 41, 27),
        ("planes", 41, 27),
        ("bgr", 20, 31),
        ("planes", 24, 9),
    ]
    frames = [frame_of(kind, width, height, seed) for seed, (kind, width, height) in enumerate(sizes)]
    crossed: list[int] = []
    upload = cuda.cudadrv.devicearray.FakeCUDAArray.copy_to_device

    def counted(self: Any, array: Any, stream: Any = 0) -> None:
        crossed.append(array.nbytes)
        upload(self, array, stream)

    with (
        load_model(path, engine="tensorrt", precision="fp32", batch=4) as together,
        load_model(path, engine="tensorrt", precision="fp32", batch=1) as alone,
    ):
        many, one = stand_in.engines
        assert [context.shapes["frames"][0] for context in many.contexts] == [4, 3, 2, 1]
        assert (together.engine.batch, together.engine.streams) == (4, 1)
        assert "1 stream of up to 4 frames" in together.engine.description
        assert [context.shapes["frames"][0] for context in one.contexts] == [1, 1]  # two streams
        many.executions.clear()
        one.executions.clear()
        for first in (0, 1):  # then in other places, and in memory that was used before
            with monkeypatch.context() as patched:
                patched.setattr(cuda.cudadrv.devicearray.FakeCUDAArray, "copy_to_device", counted)
                got = together.infer_batch(frames[first:])
            assert len(crossed) == sum(1 if frame.planes is None else 3 for frame in frames[first:])
            crossed.clear()
            for result, frame in zip(got, frames[first:], strict=True):
                expected = alone.infer(frame)
                assert result.frame is frame and result.letterbox == expected.letterbox
                assert (
                    set(result.outputs)
                    == set(expected.outputs)
                    == {"class_logits", "class_logits/labels", "boxes", "scores", "probabilities"}
                )
                for name, array in expected.outputs.items():
                    np.testing.assert_array_equal(result.outputs[name], array, name)
        assert many.executions == [4, 2, 4, 1]
        assert set(one.executions) == {1}


def test_an_engine_that_was_built_for_more_is_taken_as_it_is(stand_in: StandIn, path: Path) -> None:
    assert build_model(path, flavour="rtx", precision="fp16", batch=2, capabilities=("89",)).engine.built
    assert build_model(path, flavour="rtx", precision="fp16", batch=4, capabilities=("80", "89")).engine.built
    for wanted, batch, built in ((None, 4, False), (2, 2, False), (1, 1, True), (None, 4, False)):
        with open_engine(path, read_card(path), engine="tensorrt", precision="fp16", batch=wanted) as engine:
            assert engine.batch == batch
            assert bool(stand_in.built[-1].engine.built) == built
    # in another precision there is none
    with open_engine(path, read_card(path), engine="tensorrt", precision="fp32") as engine:
        assert engine.batch == 1 and stand_in.built[-1].engine.built


def test_less_memory_means_fewer_frames_at_once_and_then_an_error(
    stand_in: StandIn, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in.contexts_that_fit = 2  # one for each number of frames: 2 and 1
    with open_engine(path, read_card(path), engine="tensorrt", batch=8) as engine:
        assert engine.batch == 2 and engine.streams == 1
        results = engine.infer_frames([Frame(solid("blue", WIDTH, HEIGHT))] * 3, "stretch", engine_input(engine))
        assert [int(r[0][labels_of("class_logits")][0, 0, 0]) for r in results] == [2, 2, 2]
    said = [record.getMessage().rpartition("; ")[2] for record in caplog.records]
    assert said == ["trying batch 4", "trying batch 2"]
    stand_in.contexts_that_fit = 0
    with pytest.raises(EngineError, match=r"cannot run on the GPU.*is its memory used up"):
        open_engine(path, read_card(path), engine="tensorrt", batch=2)
    with pytest.raises(UsageError, match=r"batch must be in 1..8, not 9"):
        open_engine(path, read_card(path), engine="tensorrt", batch=9)


def engine_input(engine: Any) -> np.ndarray:
    return np.zeros((engine.batch, *engine.input_shape[1:]), np.uint8)


def test_one_frame_too_large_for_the_gpu_among_others(
    stand_in: StandIn, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(Exception):
        """What Numba raises then."""

        code = 2

    make = cuda.device_array

    def nearly_full(shape: tuple[int, ...], dtype: Any) -> Any:
        if np.prod(shape) > 10_000:
            raise Full("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")
        return make(shape, dtype)

    with load_model(path, engine="tensorrt", batch=4) as model, caplog.at_level(logging.WARNING, "perception"):
        monkeypatch.setattr(cuda, "device_array", nearly_full)
        pictures = [solid("red", 40, 30), solid("green", 90, 80), solid("blue", 40, 30)]
        for _ in range(2):
            results = [model.interpret(inference) for inference in model.infer_batch(pictures)]
            assert [int(r.class_map.mask.max()) for r in results if r.class_map is not None] == [0, 1, 2]
    assert caplog.text.count("frames are resized on the CPU: not enough GPU memory for a frame of 90x80") == 1


def test_a_frame_that_fails_on_its_way_leaves_no_trace(
    stand_in: StandIn, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perception.postprocess import cuda as kernels

    fit = kernels.fit

    def fail(image: Any, letterbox: Any, *rest: Any) -> None:
        if letterbox.frame_width == 33:
            raise ValueError("no such picture")
        fit(image, letterbox, *rest)

    pictures = [solid("red", 40, 30), solid("green", 40, 30), solid("blue", 33, 30)]
    with load_model(path, engine="tensorrt", batch=3) as model:
        monkeypatch.setattr(kernels, "fit", fail)
        for _ in range(5):  # memory of frames that came to nothing is used again
            with pytest.raises(EngineError, match="no such picture"):
                model.infer_batch(pictures)
        results = [model.interpret(inference) for inference in model.infer_batch(pictures[:2])]
        assert [int(r.class_map.mask.max()) for r in results if r.class_map is not None] == [0, 1]


def test_auto_goes_on_one_by_one_when_the_gpu_is_lost(stand_in: StandIn, path: Path) -> None:
    build_model(path, flavour="rtx", precision="fp16", batch=4, capabilities=("89",))
    with load_model(path, engine="auto") as model:
        assert (model.engine.name, model.engine.batch) == ("tensorrt", 4)
        stand_in.engines[-1].broken = True
        colors = ["red", "green", "blue"]
        results = [model.interpret(i) for i in model.infer_batch([solid(color, 20, 20) for color in colors])]
        assert (model.engine.name, model.engine.batch) == ("openvino", 1)
        assert [int(r.class_map.mask.max()) for r in results if r.class_map is not None] == [0, 1, 2]


def test_clients_of_a_scheduler_share_executions(stand_in: StandIn, path: Path) -> None:
    with load_model(path, engine="tensorrt", batch=4) as model:
        stand_in.engines[-1].executions.clear()
        with Scheduler(model, waiting=20) as scheduler:
            sent = [
                scheduler.submit(solid(color, 30 + client, 20), client=str(client))
                for client in range(3)
                for color in ("red", "green", "blue", "red")
            ]
            done, _ = wait(sent, 300)
            assert len(done) == 12
            masks = [int(future.result().class_map.mask.max()) for future in sent]  # type: ignore[union-attr]
        assert masks == [0, 1, 2, 0] * 3
        executions = stand_in.engines[-1].executions
        assert sum(executions) == 12 and max(executions) == 4
