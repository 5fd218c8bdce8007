"""Frames that are fitted into the network's input on the GPU; see `tests.gpu.stand_in`."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import cuda

from perception import load_model
from perception.card import read_card
from perception.engines import open_engine
from perception.engines.trt.flavour import installed
from perception.picture.resize import to_input
from perception.postprocess import cuda as kernels
from perception.types import Frame
from tests.gpu.conftest import SIMULATED
from tests.gpu.stand_in import Context as StandInContext
from tests.gpu.stand_in import StandIn
from tests.models import solid, write_model
from tests.noise import noise, random_planes

pytestmark = [
    pytest.mark.skipif("rtx" not in installed(), reason="TensorRT for RTX has no wheel for this system"),
    pytest.mark.skipif(not SIMULATED, reason="the stand-in reads simulated memory"),
]

WIDTH, HEIGHT = 16, 16  # small: under the simulator each pixel is a thread of the system


def frame_of(kind: str, width: int, height: int, seed: int = 0) -> Frame:
    """Noise, as BGR or as planes whose rows are padded, as decoders give them."""
    if kind == "bgr":
        return Frame(noise(height, width, 3, seed=seed))
    return Frame(planes=random_planes(width, height, seed, pad=13, matrix="bt709"))


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("kind", ["bgr", "planes"])
def test_the_network_sees_what_the_cpu_would_show_it(
    stand_in: StandIn, tmp_path: Path, kind: str, resize: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_model(tmp_path / "colors.onnx", width=WIDTH, height=HEIGHT, detection=True, classification=True)
    crossed: list[int] = []
    upload = kernels.cuda.cudadrv.devicearray.FakeCUDAArray.copy_to_device

    def counted(self: Any, array: Any, stream: Any = 0) -> None:
        crossed.append(array.nbytes)
        upload(self, array, stream)

    with open_engine(path, read_card(path), engine="tensorrt", precision="fp32") as engine:
        buffer = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
        for seed, (width, height) in enumerate([(64, 36), (64, 36), (41, 27), (WIDTH, HEIGHT)]):
            frame = frame_of(kind, width, height, seed)
            monkeypatch.setattr(type(cuda.device_array(1)), "copy_to_device", counted)
            ((outputs, letterbox, timings),) = engine.infer_frames([frame], resize, buffer)
            monkeypatch.setattr(type(cuda.device_array(1)), "copy_to_device", upload)
            fitted, expected_box = to_input(frame.picture, WIDTH, HEIGHT, resize)
            assert letterbox == expected_box and set(timings) == {"resize", "infer"}
            for name, expected in engine.infer(fitted[None]).items():
                np.testing.assert_array_equal(outputs[name], expected, name)
            size = width * height
            planes = size + 2 * ((width + 1) // 2) * ((height + 1) // 2)
            assert sum(crossed) == (planes if kind == "planes" else 3 * size)  # once, and as it came
            crossed.clear()
    assert not buffer.any()  # nothing was resized on the CPU


def test_what_a_frame_costs(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of the driver for a frame of planes: none allocates, and one waits."""
    path = write_model(tmp_path / "colors.onnx", width=WIDTH, height=HEIGHT, detection=True)
    calls: Counter[str] = Counter()

    def counted(owner: Any, name: str, what: str) -> None:
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, **b: (calls.update([what]), real(*a, **b))[1])

    frame = frame_of("planes", 40, 30)
    with open_engine(path, read_card(path), engine="tensorrt") as engine:
        buffer = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
        for _ in range(engine.streams):
            engine.infer_frames([frame], "stretch", buffer)  # memory for frames of its size
        arrays = cuda.cudadrv.devicearray.FakeCUDAArray
        for name, what in {"copy_to_device": "up", "copy_to_host": "down"}.items():
            counted(arrays, name, what)
        for name in ("device_array", "pinned_array", "to_device"):
            counted(cuda, name, "allocated")
        for name in ("fit", "fit_planes", "label"):
            counted(kernels, name, "kernels")
        counted(StandInContext, "execute_async_v3", "network")
        counted(type(kernels.make_stream()), "synchronize", "waits")
        for _ in range(3):
            calls.clear()
            ((outputs, _, _),) = engine.infer_frames([frame], "stretch", buffer)
            assert calls == {"up": 3, "kernels": 2, "network": 1, "down": 4, "waits": 1}
    assert len(outputs) == 4


def test_results_stay_the_callers(stand_in: StandIn, tmp_path: Path) -> None:
    path = write_model(tmp_path / "colors.onnx", width=WIDTH, height=HEIGHT)
    with load_model(path, engine="tensorrt") as model:
        first = model.predict(solid("red", WIDTH, HEIGHT)).class_map
        second = model.predict(solid("green", 2 * WIDTH, HEIGHT)).class_map
    assert first is not None and second is not None
    assert (first.mask == 0).all() and (second.mask == 1).all() and second.mask.shape == (HEIGHT, 2 * WIDTH)


def test_a_file_for_several_frames_a_call(stand_in: StandIn, tmp_path: Path) -> None:
    import onnx

    from tests.models import build_model

    network = build_model(width=WIDTH, height=HEIGHT)
    for value in [*network.graph.input, *network.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(network, str(tmp_path / "three.onnx"))
    with load_model(tmp_path / "three.onnx", engine="tensorrt") as model:
        seen = model.predict(solid("blue", 50, 40)).class_map
    assert seen is not None and (seen.mask == 2).all()


def test_a_frame_too_large_for_the_gpu_is_resized_on_the_cpu(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_model(tmp_path / "colors.onnx", width=WIDTH, height=HEIGHT)

    class Full(Exception):
        """What Numba raises then."""

        code = 2

    def full(shape: tuple[int, ...], dtype: Any) -> Any:
        raise Full("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")

    with load_model(path, engine="tensorrt") as model, caplog.at_level(logging.WARNING, "perception"):
        with monkeypatch.context() as patched:
            patched.setattr(cuda, "device_array", full)
            for color in ("red", "green", "blue"):
                seen = model.predict(solid(color, 64, 48)).class_map
                assert seen is not None and (seen.mask == ["red", "green", "blue"].index(color)).all()
        assert caplog.text.count("frames are resized on the CPU: not enough GPU memory for a frame of 64x48") == 1
        fitted: list[tuple[int, ...]] = []
        fit = kernels.fit

        def noted(image: Any, *rest: Any) -> None:
            fitted.append(image.shape)
            fit(image, *rest)

        monkeypatch.setattr(kernels, "fit", noted)
        for width, height in ((64, 48), (63, 48), (65, 48)):
            seen = model.predict(solid("green", width, height)).class_map
            assert seen is not None and (seen.mask == 1).all()
        assert fitted == [(48, 63, 3)]  # smaller ones may have room, and do
