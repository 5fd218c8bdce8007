"""The TensorRT engine with everything real but the GPU; see `tests.gpu.stand_in`."""

from __future__ import annotations

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from perception import EngineError, UsageError, load_model, open_sink, open_source, run
from perception.card import read_card
from perception.common import hardware
from perception.common.hardware import Gpu
from perception.diagnostics.verify import verify
from perception.engines import engine_status, open_engine, tensorrt
from perception.engines.trt import flavour as flavour_module
from perception.engines.trt import worker
from perception.engines.trt.flavour import Flavour, installed
from perception.postprocess.class_maps import LogitsClassMap
from perception.postprocess.post_processing import labels_of
from perception.types import Frame, Prediction
from tests.engines.trt_models import card as make_card
from tests.engines.trt_models import detector
from tests.gpu.conftest import SIMULATED
from tests.gpu.stand_in import Context as StandInContext
from tests.gpu.stand_in import StandIn
from tests.models import calibrated, half_gray, solid, write_model
from tests.noise import noise

pytestmark = [
    pytest.mark.skipif("rtx" not in installed(), reason="TensorRT for RTX has no wheel for this system"),
    pytest.mark.skipif(not SIMULATED, reason="the stand-in reads simulated memory"),
]


def test_masks_are_those_of_the_cpu_engines(stand_in: StandIn, tmp_path: Path) -> None:
    """To the pixel, in frames larger than the input, too: both have logits, of which the mask is made in one way."""
    path = write_model(tmp_path / "colors.onnx", width=16, height=12)
    frame = np.kron(noise(3, 4, 1, seed=1) // 86, np.ones((23, 31, 3), np.uint8)) * np.array([90, 1, 30], np.uint8)
    with (
        load_model(path, engine="tensorrt", precision="fp32") as on_gpu,
        load_model(path, engine="onnxruntime", precision="fp32") as on_cpu,
    ):
        assert (
            on_gpu.engine.description == f"TensorRT for RTX {Flavour('rtx').version} fp32, 2 streams, NVIDIA Simulated"
        )
        ours, theirs = on_gpu.predict(frame).class_map, on_cpu.predict(frame).class_map
    assert isinstance(ours, LogitsClassMap) and isinstance(theirs, LogitsClassMap)
    np.testing.assert_array_equal(ours.logits, theirs.logits)
    assert ours.labels is not None and theirs.labels is None
    np.testing.assert_array_equal(ours.labels, theirs.logits.argmax(0))
    assert len(np.unique(ours.mask)) > 1 and ours.mask.shape == (69, 124)
    np.testing.assert_array_equal(ours.mask, theirs.mask)
    np.testing.assert_array_equal(ours.shares, theirs.shares)
    drawn = [np.empty_like(frame) for _ in range(2)]
    for class_map, out in zip((ours, theirs), drawn, strict=True):
        class_map.overlay(frame, np.eye(3, dtype=np.uint8) * 255, 0.6, out)
    np.testing.assert_array_equal(*drawn)
    assert stand_in.built[0].inspection.products == {"FLOAT": 1}


def test_pixels_of_which_the_network_is_not_sure(stand_in: StandIn, tmp_path: Path) -> None:
    """They need more than the argmax that comes with the logits."""
    path = calibrated(write_model(tmp_path / "sure.onnx", width=16, height=12))
    masks = []
    for engine in ("tensorrt", "onnxruntime"):
        with load_model(path, engine=engine, precision="fp32", unknown=0.5) as model:
            class_map = model.predict(half_gray()).class_map
            assert class_map is not None and class_map.unknown == 3
            masks.append(class_map.mask)
    assert (masks[0][-8:] == 3).all() and (masks[0][:8] == 0).all()
    np.testing.assert_array_equal(*masks)


def test_engines_are_compared_like_with_like(stand_in: StandIn, tmp_path: Path) -> None:
    """Edges, too, so that `perception verify --require 0.999` can be asked for."""
    path = write_model(tmp_path / "colors.onnx", width=16, height=12)
    frame = np.kron(noise(3, 4, 1, seed=1) // 86, np.ones((23, 31, 3), np.uint8)) * np.array([90, 1, 30], np.uint8)
    agreements = verify(path, [Frame(frame)], engines=("tensorrt", "onnxruntime"))
    assert [(a.engine, a.precision) for a in agreements] == [
        ("onnxruntime", "fp32"), ("tensorrt", "fp32"), ("tensorrt", "fp16"),
    ]  # fmt: skip
    assert agreements[1].mask == 1.0 and agreements[1].logits == 0.0
    assert agreements[2].mask is not None and agreements[2].mask > 0.999 and agreements[2].logits is not None


def test_many_frames_a_call_and_results_of_ones_own(stand_in: StandIn, tmp_path: Path) -> None:
    path = write_model(tmp_path / "colors.onnx", detection=True, classification=True)
    with open_engine(path, read_card(path), engine="tensorrt") as engine:
        assert engine.precision == "fp16" and engine.input_shape == (None, 48, 64, 3)
        frames = np.stack([solid("red"), solid("green"), solid("blue")])
        for wrong in (noise(1, 48, 80, 3), noise(1, 40, 64, 3), frames[..., 0], frames.astype(np.float32)):
            with pytest.raises(EngineError, match=r"takes frames uint8 \[N, 48, 64, 3\], got"):
                engine.infer(wrong)
        all_at_once = engine.infer(frames)
        kept = {name: array.copy() for name, array in all_at_once.items()}
        for i in range(3):
            alone = engine.infer(frames[i : i + 1])
            for name, array in alone.items():
                np.testing.assert_array_equal(array[0], all_at_once[name][i], name)
        for name, array in all_at_once.items():
            np.testing.assert_array_equal(array, kept[name])
    labels = all_at_once.pop(labels_of("class_logits"))
    assert [int(np.unique(m)[0]) for m in labels] == [0, 1, 2] and labels.dtype == np.uint8
    np.testing.assert_array_equal(all_at_once["class_logits"].argmax(1), labels)
    assert {array.dtype for array in all_at_once.values()} == {np.dtype(np.float32)} and len(all_at_once) == 4


def test_a_detector_gives_its_best_candidates(stand_in: StandIn, tmp_path: Path) -> None:
    import onnx

    from perception.card import write_card

    described = make_card(4, segmentation=False, detection=True)
    model = detector(np.random.default_rng(0), rows=4096)
    write_card(model, described)
    onnx.save(model, str(tmp_path / "boxes.onnx"))
    frames = noise(1, 16, 16, 3)
    with open_engine(tmp_path / "boxes.onnx", described, engine="tensorrt", precision="fp32") as engine:
        kept = engine.infer(frames)
    with open_engine(tmp_path / "boxes.onnx", described, engine="onnxruntime") as engine:
        every = engine.infer(frames)
    assert kept["boxes"].shape == (1, 1000, 4)
    best = np.sort(every["scores"][0].max(1))[::-1][:1000]
    np.testing.assert_allclose(kept["scores"][0].max(1), best, atol=1e-6)


def test_threads_share_the_streams(stand_in: StandIn, tmp_path: Path) -> None:
    path = write_model(tmp_path / "colors.onnx")
    with open_engine(path, read_card(path), engine="tensorrt", mode="throughput") as engine:
        assert engine.streams == 2 and len(stand_in.engines[-1].contexts) == 2
        frames = [noise(1, 48, 64, 3, seed=i) for i in range(40)]
        expected = [engine.infer(f)["class_logits"] for f in frames]
        with ThreadPoolExecutor(8) as pool:
            for got, wanted in zip(pool.map(engine.infer, frames), expected, strict=True):
                np.testing.assert_array_equal(got["class_logits"], wanted)


def test_a_frame_is_copied_while_another_one_is_computed(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In latency mode, too, which all of `perception live` is: the first call is not done before the second one is."""
    path = write_model(tmp_path / "colors.onnx", width=16, height=8)
    with load_model(path, engine="tensorrt", mode="latency") as model:
        second, begun = threading.Event(), threading.Event()
        execute = StandInContext.execute_async_v3

        def waiting(self: StandInContext, stream: int) -> bool:
            if not begun.is_set():
                begun.set()
                assert second.wait(60), "the second frame waits for the first"
            return execute(self, stream)

        monkeypatch.setattr(StandInContext, "execute_async_v3", waiting)
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(model.predict, solid("red", 40, 30))
            assert begun.wait(60)
            later = model.predict(solid("green", 40, 30)).class_map
            assert not first.done()
            second.set()
            earlier = first.result(60).class_map
    assert earlier is not None and later is not None
    assert (earlier.mask == 0).all() and (later.mask == 1).all()


def test_less_memory_means_fewer_streams_and_none_an_error(
    stand_in: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_model(tmp_path / "colors.onnx")
    stand_in.contexts_that_fit = 1
    with open_engine(path, read_card(path), engine="tensorrt", mode="throughput") as engine:
        assert engine.streams == 1
    assert "1 of 2 streams" in caplog.text
    stand_in.contexts_that_fit = 0
    with pytest.raises(EngineError, match=r"cannot run on the GPU.*is its memory used up") as caught:
        open_engine(path, read_card(path), engine="tensorrt")
    assert str(path) in str(caught.value)


def test_built_once_and_compiled_kernels_are_kept(
    stand_in: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_model(tmp_path / "colors.onnx")
    with caplog.at_level(logging.INFO, "perception"):
        open_engine(path, read_card(path), engine="tensorrt").close()
        assert caplog.text.count("engine built") == 1
        open_engine(path, read_card(path), engine="tensorrt").close()
    assert caplog.text.count("engine built") == 1
    assert [bool(b.engine.built) for b in stand_in.built] == [True, False]
    assert stand_in.built[0].inspection == stand_in.built[1].inspection
    assert stand_in.built[0].recipe.capabilities == ("89",)
    assert stand_in.runtime_caches == [b"", *[b"compiled kernels"] * 3]  # two streams, twice


def test_a_gpu_that_goes_away_is_an_engine_error(stand_in: StandIn, tmp_path: Path) -> None:
    path = write_model(tmp_path / "colors.onnx")
    engine = open_engine(path, read_card(path), engine="tensorrt")
    stand_in.engines[-1].broken = True
    with pytest.raises(EngineError, match="fallen off the bus"):
        engine.infer(noise(1, 48, 64, 3))
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer(noise(1, 48, 64, 3))


def test_closing_waits_for_calls_and_frees_those_that_wait(stand_in: StandIn, tmp_path: Path) -> None:
    path = write_model(tmp_path / "colors.onnx")
    engine = open_engine(path, read_card(path), engine="tensorrt")
    results: list[str] = []

    def call() -> None:
        try:
            for _ in range(200):
                engine.infer(noise(1, 48, 64, 3))
            results.append("done")
        except EngineError as error:
            results.append(str(error))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    engine.close()
    for thread in threads:
        thread.join(30)
    assert len(results) == 4 and all("closed" in r or r == "done" for r in results)


def test_an_engine_that_does_not_load_or_is_another(stand_in: StandIn, tmp_path: Path) -> None:
    path = write_model(tmp_path / "colors.onnx")
    stand_in.loads = False
    with pytest.raises(EngineError, match=r"cannot load the engine.*Version tag"):
        open_engine(path, read_card(path), engine="tensorrt")
    stand_in.why = "Error Code 2: OutOfMemory (Requested size was 17179869184 bytes.)"
    with pytest.raises(EngineError, match="not enough GPU memory to load the engine"):
        open_engine(path, read_card(path), engine="tensorrt")
    stand_in.loads = True
    open_engine(path, read_card(path), engine="tensorrt").close()
    loaded, built = stand_in.engines[-1], stand_in.built[-1].inspection
    tensorrt.check_engine(loaded, built, path)
    loaded.tensors = [loaded.tensors[0], type(loaded.tensors[1])("class_logits", "UINT8", (-1, 48, 64))]
    with pytest.raises(EngineError, match=r"not the one that was built.*class_logits uint8"):
        tensorrt.check_engine(loaded, built, path)


def test_options_that_do_not_fit(stand_in: StandIn, tmp_path: Path) -> None:
    path = write_model(tmp_path / "colors.onnx")
    with pytest.raises(EngineError, match="first GPU, not on 'NPU'"):
        open_engine(path, read_card(path), engine="tensorrt", device="NPU")
    with pytest.raises(UsageError):
        open_engine(path, read_card(path), engine="tensorrt", precision="f8")  # type: ignore[arg-type]


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "nvidia_gpus", lambda: ([], "no NVIDIA driver"))
    assert engine_status("tensorrt") == (False, "no NVIDIA driver; TensorRT runs on NVIDIA GPUs only")
    gpu = Gpu("NVIDIA Simulated", (8, 9), 8 << 30)
    monkeypatch.setattr(hardware, "nvidia_gpus", lambda: ([gpu], "CUDA driver 13.0"))
    there, said = engine_status("tensorrt")
    assert there and said.endswith("on NVIDIA Simulated")
    monkeypatch.setattr(flavour_module, "find_spec", lambda name: None)
    there, said = engine_status("tensorrt")
    assert not there and said.count("pip install '") == 2


def test_without_a_driver_nothing_is_captured() -> None:
    assert worker.capture(lambda: None, 7) is None


def test_a_file_for_a_fixed_number_of_frames(stand_in: StandIn, tmp_path: Path) -> None:
    import onnx

    from tests.models import build_model

    model = build_model()
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(model, str(tmp_path / "three.onnx"))
    card = read_card(tmp_path / "three.onnx")
    with open_engine(tmp_path / "three.onnx", card, engine="tensorrt") as engine:
        assert engine.input_shape == (3, 48, 64, 3)
        labels = engine.infer(np.stack([solid("red"), solid("green"), solid("blue")]))[labels_of("class_logits")]
        assert [int(np.unique(m)[0]) for m in labels] == [0, 1, 2]
        with pytest.raises(EngineError, match=r"3 frame\(s\) per call, got 1"):
            engine.infer(noise(1, 48, 64, 3))


def test_auto_goes_on_with_the_cpu_when_the_gpu_is_lost(
    stand_in: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_model(tmp_path / "colors.onnx", width=16, height=8)
    with load_model(path, engine="auto") as model:
        assert model.engine.name == "tensorrt"
        before = model.predict(solid("green"))
        stand_in.engines[-1].broken = True
        with ThreadPoolExecutor(4) as pool:
            after = list(pool.map(model.predict, [solid("green")] * 8))
        assert model.engine.name == "openvino" and "OpenVINO" in model.engine.description
    assert caplog.text.count("continuing with OpenVINO") == 1 and "fallen off the bus" in caplog.text
    for prediction in [before, *after]:
        assert prediction.class_map is not None and (prediction.class_map.mask == 1).all()
    with pytest.raises(EngineError, match="closed"):
        model.predict(solid("green"))


def test_auto_takes_the_next_engine_where_the_first_refuses(
    stand_in: StandIn, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_model(tmp_path / "colors.onnx")
    stand_in.contexts_that_fit = 0
    with caplog.at_level(logging.INFO, "perception"), load_model(path, engine="auto") as model:
        assert model.engine.name == "openvino"
    assert "trying the next engine" in caplog.text and "(not tensorrt: cannot run on the GPU" in caplog.text


@pytest.mark.parametrize("engine", ["auto", "tensorrt"])
def test_a_gpu_that_disappears_in_mid_stream(
    stand_in: StandIn, tmp_path: Path, engine: str, caplog: pytest.LogCaptureFixture
) -> None:
    """``auto`` loses no frame by it; who asked for TensorRT is told."""
    path = write_model(tmp_path / "colors.onnx", width=16, height=8)
    lines = tmp_path / "lines.jsonl"

    def lose(prediction: Prediction) -> Prediction:
        if prediction.frame.index == 2:
            stand_in.engines[-1].broken = True
        return prediction

    with load_model(path, engine=engine) as model, open_source("synthetic:?size=32x16&frames=16") as source:
        if engine == "auto":
            report = run(source, model, stages=[lose], sinks=[open_sink(lines)])
            assert report.frames == 16 and model.engine.name == "openvino"
            assert [json.loads(line)["index"] for line in lines.read_text().splitlines()] == list(range(16))
            assert caplog.text.count("continuing with OpenVINO") == 1
        else:
            with pytest.raises(EngineError, match="fallen off the bus"):
                run(source, model, stages=[lose], sinks=[open_sink(lines)])
