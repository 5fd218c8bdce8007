"""What belongs to loading an engine: which one is taken, what is tried, what is said; see `tests.gpu.stand_in`."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from numba import cuda
from onnx import TensorProto, helper

from perception import EngineError, load_model
from perception.card import read_card, write_card
from perception.common.waits import WAITS
from perception.engines import open_engine, tensorrt
from perception.engines.trt import reports, worker
from perception.engines.trt.build import build_model
from perception.engines.trt.flavour import installed
from perception.postprocess import cuda as kernels
from tests.gpu.conftest import SIMULATED
from tests.gpu.stand_in import StandIn
from tests.models import build_model as build_network
from tests.models import solid, write_model
from tests.noise import noise

pytestmark = [
    pytest.mark.skipif("rtx" not in installed(), reason="TensorRT for RTX has no wheel for this system"),
    pytest.mark.skipif(not SIMULATED, reason="the stand-in reads simulated memory"),
]

SIZE = 8  # small: under the simulator each pixel is a thread of the system


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_model(tmp_path / "colors.onnx", width=SIZE, height=SIZE)


def test_an_intact_engine_that_does_not_load_is_built_again(
    stand_in: StandIn, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_engine(path, read_card(path), engine="tensorrt").close()
    stand_in.refused = 1  # as after an update of what is not in the key of the cache
    with open_engine(path, read_card(path), engine="tensorrt") as engine:
        assert engine.infer(solid("green", SIZE, SIZE)[None])["class_logits"].argmax(1).max() == 1
    assert [b.engine.built for b in stand_in.built] == [
        stand_in.built[0].engine.built, "", "the one in the cache cannot be loaded"
    ]  # fmt: skip
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warned) == 2 and "Version tag does not match" in warned[0] and "built again" in warned[0]
    open_engine(path, read_card(path), engine="tensorrt").close()
    assert not stand_in.built[-1].engine.built  # the new one is in the cache


def test_one_that_was_just_built_and_does_not_load_is_an_error(stand_in: StandIn, path: Path) -> None:
    open_engine(path, read_card(path), engine="tensorrt").close()
    stand_in.refused = 2
    with pytest.raises(EngineError, match="cannot load the engine"):
        open_engine(path, read_card(path), engine="tensorrt")
    assert len(stand_in.built) == 3


def test_kernels_are_run_before_the_first_frame(stand_in: StandIn, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    for name in ("fit", "fit_planes", "label"):
        real = getattr(kernels, name)
        monkeypatch.setattr(kernels, name, lambda *a, real=real, name=name: (ran.append(name), real(*a))[1])
    with open_engine(path, read_card(path), engine="tensorrt"):
        assert ran[:3] == ["fit", "fit_planes", "label"]


def test_a_numba_cuda_that_is_broken_is_found_at_loading(
    stand_in: StandIn, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("libNVVM cannot be found")

    monkeypatch.setattr(kernels, "fit_planes", broken)
    with pytest.raises(
        EngineError, match=r"numba-cuda cannot compile or run a kernel: libNVVM cannot be found"
    ) as told:
        open_engine(path, read_card(path), engine="tensorrt")
    assert "memory" not in str(told.value)
    with load_model(path, engine="auto") as model:
        assert model.engine.name == "openvino"


def test_a_build_says_that_it_is_one_and_how_it_goes_on(
    stand_in: StandIn, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reports, "_SPOKEN_S", 0.0)
    with caplog.at_level(logging.INFO, WAITS):
        open_engine(path, read_card(path), engine="tensorrt").close()
        said = [r.getMessage() for r in caplog.records if r.name == WAITS]
        assert "engine of colors is built" in said[0]
        assert any(line.startswith("colors: 0 s, ") and " of " in line for line in said[1:])
        caplog.clear()
        open_engine(path, read_card(path), engine="tensorrt").close()
    assert "is built" not in caplog.text  # it was in the cache


def test_an_output_of_another_type_comes_along(stand_in: StandIn, tmp_path: Path) -> None:
    model = build_network(width=SIZE, height=SIZE)
    model.graph.node.append(helper.make_node("ArgMax", ["class_logits"], ["ids"], axis=1, keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", SIZE // 4, SIZE // 4]))
    path = tmp_path / "two.onnx"
    onnx.save(model, str(path))
    with open_engine(path, read_card(path), engine="tensorrt", precision="fp32") as engine:
        ids = engine.infer(solid("blue", SIZE, SIZE)[None])["ids"]
    assert ids.dtype == np.int64 and ids.shape == (1, 2, 2) and (ids == 2).all()


def test_an_output_of_a_type_that_numpy_lacks_is_told(
    stand_in: StandIn, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(worker._DTYPES, "FLOAT")
    with pytest.raises(EngineError, match=r"output 'class_logits' is of a type .*: float") as told:
        open_engine(path, read_card(path), engine="tensorrt")
    assert "memory" not in str(told.value)


def test_an_engine_for_many_sizes_serves_the_sizes_that_it_takes(stand_in: StandIn, tmp_path: Path) -> None:
    path = write_model(tmp_path / "free.onnx", width=32, height=32, multiple=4)
    build_model(path, flavour="rtx", precision="fp16", size="dynamic", capabilities=("89",))
    for size, dynamic in (((32, 32), True), ((16, 24), True), ((64, 64), True), ((12, 16), False)):
        with open_engine(path, read_card(path), engine="tensorrt", size=size) as engine:
            assert stand_in.built[-1].recipe.profile.dynamic == dynamic
            assert bool(stand_in.built[-1].engine.built) != dynamic
            assert engine.input_shape == (None, size[1], size[0], 3)
            logits = engine.infer(solid("green", *size)[None])["class_logits"]
            assert logits.shape == (1, 3, size[1] // 4, size[0] // 4) and (logits.argmax(1) == 1).all()
    build_model(path, flavour="rtx", precision="fp16", size="16x24", capabilities=("89",))
    with open_engine(path, read_card(path), engine="tensorrt", size=(16, 24)):
        assert not stand_in.built[-1].recipe.profile.dynamic  # made for it: better


def test_files_take_an_engine_for_one_frame_and_live_sources_the_larger_one(stand_in: StandIn, path: Path) -> None:
    """A file's frames go one by one over the streams, where kernels that were tuned for four are slower."""
    build_model(path, flavour="rtx", precision="fp16", batch=4, capabilities=("89",))
    for mode, wanted, batch in (("latency", None, 4), ("throughput", None, 1), ("throughput", 4, 4)):
        with open_engine(path, read_card(path), engine="tensorrt", mode=mode, batch=wanted) as engine:  # type: ignore[arg-type]
            assert engine.batch == batch


def test_contexts_of_a_worker_share_their_scratch_memory(stand_in: StandIn, path: Path) -> None:
    with open_engine(path, read_card(path), engine="tensorrt", batch=4):
        places = [context.scratch for context in stand_in.engines[-1].contexts]
        assert len(places) == 4 and len(set(places)) == 1 and places[0] is not None and places[0][0] != 0
    with open_engine(path, read_card(path), engine="tensorrt", batch=1):
        assert [context.scratch for context in stand_in.engines[-1].contexts] == [(0, 1000)] * 2  # each its own


def test_a_size_that_was_too_large_is_tried_again(
    stand_in: StandIn, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(Exception):
        code = 2

    def full(shape: tuple[int, ...], dtype: Any) -> Any:
        raise Full("[2] Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY")

    fitted: list[int] = []
    with load_model(path, engine="tensorrt") as model, caplog.at_level(logging.WARNING, "perception"):
        monkeypatch.setattr(tensorrt, "_TRY_AGAIN_S", 1e9)
        with monkeypatch.context() as patched:
            patched.setattr(cuda, "device_array", full)
            model.predict(noise(40, 50, 3))
            monkeypatch.setattr(tensorrt, "_TRY_AGAIN_S", 0.0)
            model.predict(noise(40, 50, 3))
        assert caplog.text.count("frames are resized on the CPU") == 1  # said once
        fit = kernels.fit
        monkeypatch.setattr(kernels, "fit", lambda image, *rest: (fitted.append(image.shape[1]), fit(image, *rest))[1])
        model.predict(noise(40, 50, 3))
        monkeypatch.setattr(tensorrt, "_TRY_AGAIN_S", 1e9)
        model.predict(noise(40, 50, 3))
    assert fitted == [50, 50]


def test_nothing_is_put_on_the_legacy_stream(stand_in: StandIn, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is an error while another thread records a graph."""
    arrays = cuda.cudadrv.devicearray.FakeCUDAArray
    streams: list[Any] = []
    to_device = cuda.to_device
    up, down = arrays.copy_to_device, arrays.copy_to_host

    def noted(call: Any) -> Any:
        def wrapped(*args: Any, stream: Any = 0, **rest: Any) -> Any:
            streams.append(stream)
            return call(*args, stream=stream, **rest)

        return wrapped

    monkeypatch.setattr(cuda, "to_device", noted(to_device))
    monkeypatch.setattr(arrays, "copy_to_device", noted(up))
    monkeypatch.setattr(arrays, "copy_to_host", noted(down))
    for cached in (kernels._device_taps, kernels._device_plane_taps, kernels._device_factors):
        cached.cache_clear()
    with load_model(path, engine="tensorrt") as model:
        model.predict(noise(30, 44, 3))
        model.warmup(44, 30)
    assert len(streams) > 10 and not any(isinstance(stream, int) for stream in streams)


def test_streams_do_not_wait_for_the_legacy_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = pytest.importorskip("cuda.bindings.driver")
    asked: list[Any] = []
    monkeypatch.setattr(kernels, "SIMULATED", False)
    monkeypatch.setattr(driver, "cuStreamCreate", lambda flags: (asked.append(flags), (0, 77))[1])
    monkeypatch.setattr(driver, "cuStreamDestroy", lambda handle: asked.append(handle))
    monkeypatch.setattr(cuda, "external_stream", lambda handle: SimpleStream(handle))
    stream = kernels.make_stream()
    assert stream.handle == 77 and asked == [driver.CUstream_flags.CU_STREAM_NON_BLOCKING]
    del stream
    assert asked[1:] == [77]
    monkeypatch.setattr(driver, "cuStreamCreate", lambda flags: (2, None))
    with pytest.raises(RuntimeError, match="CUDA: 2"):
        kernels.make_stream()


class SimpleStream:
    def __init__(self, handle: int) -> None:
        self.handle = handle


def test_graphs_are_destroyed(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = pytest.importorskip("cuda.bindings.driver")
    calls: list[tuple[str, Any]] = []
    answers: dict[str, Any] = {
        "cuStreamBeginCapture": (0,), "cuStreamEndCapture": (0, "graph"), "cuGraphInstantiate": (0, "executable"),
        "cuGraphDestroy": (0,), "cuGraphLaunch": (0,), "cuGraphExecDestroy": (0,),
    }  # fmt: skip
    for name, answer in answers.items():
        monkeypatch.setattr(driver, name, lambda *a, name=name, answer=answer: (calls.append((name, a[0])), answer)[1])
    context = SimpleNamespace(execute_async_v3=lambda stream: True)
    stream: Any = type("Stream", (), {"__int__": lambda self: 7, "synchronize": lambda self: None})()
    made = worker._Pass(context, stream, (None, None), {}, None, graph=True)
    assert ("cuGraphDestroy", "graph") in calls
    made.start()
    made.release()
    made.release()
    assert calls[-2:] == [("cuGraphLaunch", "executable"), ("cuGraphExecDestroy", "executable")]


def test_which_gpu_is_the_first_is_told(stand_in: StandIn, path: Path) -> None:
    with pytest.raises(EngineError, match=r"first GPU, not on 'cuda:1'; .*CUDA_VISIBLE_DEVICES"):
        open_engine(path, read_card(path), engine="tensorrt", device="cuda:1")


def test_cards_of_foreign_graphs_of_old_operator_sets(stand_in: StandIn, tmp_path: Path) -> None:
    """From opset 11 to the newest, the engine gives the best candidates of a detector."""
    from tests.engines.trt_models import card as make_card
    from tests.engines.trt_models import detector

    for opset in (11, 12, 18):
        described = make_card(4, segmentation=False, detection=True)
        model = detector(np.random.default_rng(0), rows=4096, opset=opset)
        write_card(model, described)
        path = tmp_path / f"boxes{opset}.onnx"
        onnx.save(model, str(path))
        frames = noise(1, 16, 16, 3)
        with open_engine(path, described, engine="tensorrt", precision="fp32") as engine:
            kept = engine.infer(frames)
        with open_engine(path, described, engine="onnxruntime") as engine:
            every = engine.infer(frames)
        best = np.sort(every["scores"][0].max(1))[::-1][:1000]
        np.testing.assert_allclose(kept["scores"][0].max(1), best, atol=1e-6)


@pytest.mark.parametrize("opset", [11, 12, 18])
def test_masks_of_old_operator_sets_are_built(stand_in: StandIn, tmp_path: Path, opset: int) -> None:
    from tests.engines.trt_models import bytes_to_planes, card, graph, node

    nodes = [*bytes_to_planes(), node("Conv", "planes w", "class_logits", kernel_shape=[4, 4], strides=[4, 4])]
    weights = np.random.default_rng(0).standard_normal((3, 3, 4, 4)).astype(np.float32)
    model = graph(nodes, {"w": weights}, {"class_logits": ["N", 3, 4, 4]}, opset=opset, with_card=card(3))
    onnx.save(model, str(tmp_path / "m.onnx"))
    with open_engine(tmp_path / "m.onnx", card(3), engine="tensorrt", precision="fp32") as engine:
        assert engine.infer(noise(1, 16, 16, 3))["class_logits"].shape == (1, 3, 4, 4)
