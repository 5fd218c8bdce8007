"""Several frames in one execution: what comes out is what each of them gives alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from perception import EngineError, ModelError, UsageError, load_model
from perception.card import read_card
from perception.engines import Engine, open_engine
from perception.engines.fallback import FallbackEngine
from perception.types import Frame
from tests.models import build_model, solid, write_model
from tests.noise import noise, random_planes

CPU_ENGINES = ["openvino", "onnxruntime", "torch"]


def frames_of_many_kinds(seed: int, count: int) -> list[Frame]:
    """Noise of different sizes, as BGR and as planes."""
    rng = np.random.default_rng(seed)
    frames = []
    for index in range(count):
        height, width = (int(side) for side in rng.integers(20, 120, 2))
        if index % 3:
            frames.append(Frame(noise(height, width, 3, seed=rng)))
        else:
            frames.append(Frame(planes=random_planes(width, height, rng)))
    return frames


def executions(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many frames each execution has from now on."""
    seen: list[int] = []
    run = engine._run

    def counted(frames: np.ndarray) -> dict[str, Any]:
        seen.append(len(frames))
        return run(frames)

    monkeypatch.setattr(engine, "_run", counted)
    return seen


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize("name", CPU_ENGINES)
def test_frames_together_give_what_they_give_alone(
    name: str, resize: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_model(tmp_path / "m.onnx", detection=True, classification=True, resize=resize)
    frames = frames_of_many_kinds(3, 7)
    with (
        load_model(path, engine=name, precision="fp32", batch=3) as together,
        load_model(path, engine=name, precision="fp32") as alone,
    ):
        assert (together.engine.batch, alone.engine.batch) == (3, 1)
        assert together.engine.input_shape == alone.engine.input_shape == (None, 48, 64, 3)
        seen, ones = executions(together.engine, monkeypatch), executions(alone.engine, monkeypatch)
        got = together.infer_batch(frames)
        assert seen == [3, 3, 1]
        expected = [alone.infer(frame) for frame in frames]
        assert ones == [1] * 7
        for result, one, frame in zip(got, expected, frames, strict=True):
            assert result.frame is frame and result.letterbox == one.letterbox
            assert set(result.timings) == {"resize", "infer"} and min(result.timings.values()) > 0
            assert set(result.outputs) == set(one.outputs)
            for output, array in one.outputs.items():
                assert result.outputs[output].shape == array.shape and array.shape[0] == 1
                # OpenVINO and oneDNN, in torch, have other kernels for many frames, which add in another order
                tolerance = {"rtol": 0, "atol": 0} if name == "onnxruntime" else {"rtol": 1e-4, "atol": 1e-4}
                np.testing.assert_allclose(result.outputs[output], array, **tolerance)
        boxes = together.interpret(got[0]).detections
        assert boxes is not None
        np.testing.assert_allclose(boxes.boxes, alone.predict(frames[0]).detections.boxes, atol=1e-3)


def test_results_stay_the_callers(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx")
    with load_model(path, engine="onnxruntime", batch=2) as model:
        first = model.infer_batch([solid("red"), solid("green")])
        kept = [result.outputs["class_logits"].copy() for result in first]
        model.infer_batch([solid("blue"), solid("blue")])
        for result, before in zip(first, kept, strict=True):
            np.testing.assert_array_equal(result.outputs["class_logits"], before)
        assert model.infer_batch([]) == []


def test_a_file_for_a_fixed_number_of_frames_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_model()
    for value in [*network.graph.input, *network.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(network, str(path := tmp_path / "three.onnx"))
    with load_model(path, engine="onnxruntime") as model:
        assert model.engine.batch == 3
        seen = executions(model.engine, monkeypatch)
        colors = ["red", "green", "blue", "green"]
        results = model.infer_batch([solid(color) for color in colors])
        assert seen == [3, 3]
        assert [int(model.interpret(r).class_map.mask[0, 0]) for r in results] == [0, 1, 2, 1]
    for batch in (2, 4):
        with pytest.raises(UsageError, match=r"this model file has a fixed batch size of 3") as caught:
            load_model(path, engine="onnxruntime", batch=batch)
        assert str(path) in str(caught.value)


def test_a_frame_that_is_no_picture_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with load_model(write_model(tmp_path / "m.onnx"), engine="onnxruntime", batch=2) as model:
        seen = executions(model.engine, monkeypatch)
        for wrong in (np.zeros((48, 64), np.uint8), np.zeros((48, 64, 3), np.float32), np.zeros((0, 64, 3), np.uint8)):
            for frame in (wrong, Frame(wrong)):
                with pytest.raises(UsageError, match=r"an image must|the image is empty"):
                    model.infer_batch([solid("red"), frame])
        assert not seen


def test_a_graph_that_only_claims_to_take_many_frames_is_found_out(tmp_path: Path) -> None:
    """As exporters leave it that were given one frame: the first dimension is free by name only."""
    network = build_model()
    network.graph.node[-1].output[0] = "all_logits"
    network.graph.initializer.append(numpy_helper.from_array(np.array([1, 3, 12, 16]), "one_frame"))
    network.graph.node.append(helper.make_node("Reshape", ["all_logits", "one_frame"], ["class_logits"]))
    onnx.save(network, str(path := tmp_path / "one.onnx"))
    card = read_card(path)
    for name in CPU_ENGINES:
        open_engine(path, card, engine=name, precision="fp32").close()
        with pytest.raises((EngineError, ModelError)):
            open_engine(path, card, engine=name, precision="fp32", batch=2)


def test_a_batch_that_makes_no_sense(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="batch must be at least 1, not 0"):
        load_model(path, batch=0)


def test_frames_go_on_together_or_one_by_one_when_an_engine_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next engine takes fewer frames at once, and one that is to follow takes more than the buffer holds."""
    path = write_model(tmp_path / "m.onnx")
    card = read_card(path)
    first = open_engine(path, card, engine="onnxruntime", batch=2)
    opened = [first]

    def then(name: str, **options: Any) -> Callable[[], Engine]:
        def opens() -> Engine:
            opened.append(open_engine(path, card, engine=name, **options))
            return opened[-1]

        return opens

    others = [then("openvino", precision="fp32"), then("onnxruntime", batch=4)]
    engine = FallbackEngine(first, then("onnxruntime", batch=2), others)
    frames = [Frame(solid(color)) for color in ("red", "green", "blue")]
    buffer = np.zeros((2, 48, 64, 3), np.uint8)
    with engine:
        for batch, name in ((2, "onnxruntime"), (1, "openvino"), (4, "onnxruntime")):
            results = engine.infer_frames(frames, "stretch", buffer)
            assert [int(r[0]["class_logits"][0].argmax(0)[0, 0]) for r in results] == [0, 1, 2]
            assert (engine.batch, engine.name) == (batch, name)
            opened[-1].close()  # as if it were lost
