"""Every engine present, held to the same promises and to ONNX's own reference evaluator."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from perception import EngineError, ModelError, UsageError
from perception.card import ModelCard, read_card, validate_card, write_card
from perception.common import hardware
from perception.engines import ENGINES, Engine, engine_status, open_engine
from perception.engines import checked as checked_module
from tests.models import PALETTE, build_model, write_model
from tests.noise import noise

PRESENT = [name for name in ENGINES if engine_status(name)[0]]
MODES = ("latency", "throughput")


def read(path: Path) -> tuple[Path, ModelCard]:
    return path, read_card(path)


def open_present(path: Path, name: str, **options: Any) -> Engine:
    return open_engine(path, read_card(path), engine=name, **{"precision": "fp32"} | options)


def reference(path: Path, frames: np.ndarray) -> dict[str, np.ndarray]:
    evaluator = ReferenceEvaluator(str(path))
    return dict(zip(evaluator.output_names, evaluator.run(None, {"frames": frames}), strict=True))


def write_deep_model(path: Path, width: int = 48, height: int = 32, seed: int = 0) -> Path:
    """A network with the operations of a real one: strided, grouped and dilated convolutions, a pyramid, a cut."""
    rng = np.random.default_rng(seed)
    constants: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []

    def weights(name: str, *shape: int) -> str:
        fan_in = int(np.prod(shape[1:]))
        constants[name] = rng.normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32)
        return name

    def node(op: str, *inputs: str, to: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, list(inputs), [to], **attributes))
        return to

    constants |= {
        "mean": np.float32(127), "scale": np.float32(1 / 128), "zero": np.float32(0), "six": np.float32(6),
        "twice": np.array([1, 1, 2, 2], np.float32), "from": np.array([0], np.int64),
        "until": np.array([height // 2], np.int64), "rows": np.array([2], np.int64),
    }  # fmt: skip
    nodes.append(helper.make_node("Cast", ["frames"], ["float"], to=TensorProto.FLOAT))
    x = node("Transpose", "float", to="planes", perm=[0, 3, 1, 2])
    x = node("Sub", x, "mean", to="centred")
    x = node("Mul", x, "scale", to="scaled")
    x = node("Conv", x, weights("w1", 16, 3, 3, 3), to="c1", strides=[2, 2], pads=[1, 1, 1, 1])
    fine = node("Clip", x, "zero", "six", to="r1")
    x = node("Conv", fine, weights("w2", 16, 1, 3, 3), to="c2", group=16, strides=[2, 2], pads=[1, 1, 1, 1])
    x = node("Clip", x, "zero", "six", to="r2")
    x = node("Conv", x, weights("w3", 32, 16, 3, 3), to="c3", dilations=[2, 2], pads=[2, 2, 2, 2])
    pooled = node("GlobalAveragePool", x, to="pooled")
    x = node("Add", x, pooled, to="context")
    x = node("Conv", x, weights("w4", 16, 32, 1, 1), to="narrow")
    x = node("Resize", x, "", "twice", to="up", mode="linear")
    x = node("Slice", x, "from", "until", "rows", to="cut")
    x = node("Concat", x, fine, to="both", axis=1)
    node("Conv", x, weights("w5", 5, 32, 1, 1), to="class_logits")
    graph = helper.make_graph(
        nodes,
        "deep",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", height, width, 3])],
        [helper.make_tensor_value_info("class_logits", TensorProto.FLOAT, ["N", 5, height // 2, width // 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    classes = [{"name": name, "color": PALETTE[name]} for name in list(PALETTE)[:5]]
    card = {"name": "deep", "licence": "MIT", "input": {"width": width, "height": height}}
    write_card(model, validate_card(card | {"segmentation": {"classes": classes}}, path))
    onnx.save(model, str(path))
    return path


def test_all_engines_are_present_where_tests_run() -> None:
    assert {"openvino", "onnxruntime", "torch"} <= set(PRESENT)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PRESENT)
def test_parity_with_the_reference(name: str, mode: str, tmp_path: Path) -> None:
    path = write_deep_model(tmp_path / "deep.onnx")
    with open_present(path, name, mode=mode) as engine:
        assert engine.input_shape == (None, 32, 48, 3)
        assert engine.precision == "fp32"
        for seed in range(3):
            frames = noise(1, 32, 48, 3, seed=seed)
            expected = reference(path, frames)["class_logits"]
            assert expected.std() > 0.5  # the comparison means something
            (result,) = engine.infer(frames).values()
            assert result.dtype == np.float32 and result.flags.c_contiguous
            np.testing.assert_allclose(result, expected, atol=1e-3)


@pytest.mark.parametrize("name", PRESENT)
def test_several_outputs_and_batches(name: str, tmp_path: Path) -> None:
    path = write_model(tmp_path / "heads.onnx", detection=True, classification=True, classes=4)
    with open_present(path, name) as engine:
        for n in (1, 3, 2, 1):
            frames = noise(n, 48, 64, 3, seed=n)
            frames[0, :16, :16] = (0, 0, 255)
            expected = reference(path, frames)
            results = engine.infer(frames)
            assert set(results) == set(expected) == {"class_logits", "boxes", "scores", "probabilities"}
            for key, value in expected.items():
                np.testing.assert_allclose(results[key], value, atol=1e-3)


def test_bf16_agrees_where_the_cpu_has_it(tmp_path: Path) -> None:
    path = write_deep_model(tmp_path / "deep.onnx")
    frames = noise(1, 32, 48, 3)
    exact = reference(path, frames)["class_logits"]
    try:
        engine = open_present(path, "openvino", precision="bf16")
    except EngineError as error:
        assert "bf16" in str(error) and "fp32" in str(error)
        pytest.skip("this CPU has no bf16")
    with engine:
        rough = engine.infer(frames)["class_logits"]
        assert engine.precision == "bf16" and "bf16" in engine.description
    # the compiled model that bf16 left in the cache must not make fp32 rough
    with open_present(path, "openvino", precision="fp32") as engine:
        fine = engine.infer(frames)["class_logits"]
    assert 1e-4 < np.abs(rough - exact).max() < 0.2 * exact.std()
    assert (rough.argmax(1) == exact.argmax(1)).mean() > 0.97
    np.testing.assert_allclose(fine, exact, atol=1e-3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PRESENT)
def test_many_threads_get_their_own_results_and_keep_them(name: str, mode: str, tmp_path: Path) -> None:
    path = write_deep_model(tmp_path / "deep.onnx")
    frames = [noise(1, 32, 48, 3, seed=seed) for seed in range(24)]
    with open_present(path, name, mode=mode) as engine:
        alone = [engine.infer(f)["class_logits"].copy() for f in frames]
        with ThreadPoolExecutor(5) as pool:
            together = list(pool.map(lambda f: engine.infer(f)["class_logits"], frames))
    for mine, right in zip(together, alone, strict=True):
        np.testing.assert_allclose(mine, right, atol=1e-5)  # all held until now: none was written over
    assert not any(np.array_equal(a, b) for a, b in pairwise(alone))


@pytest.mark.parametrize("name", PRESENT)
def test_results_can_be_written_and_frames_are_not(name: str, tmp_path: Path) -> None:
    path = write_deep_model(tmp_path / "deep.onnx")
    frames = noise(1, 32, 48, 3)
    before = frames.copy()
    locked = frames.copy()
    locked.flags.writeable = False
    wide = noise(1, 32, 96, 3)
    wide[:, :, ::2] = frames
    with open_present(path, name) as engine:
        first = engine.infer(frames)["class_logits"]
        kept = first.copy()
        np.testing.assert_array_equal(engine.infer(locked)["class_logits"], kept)
        np.testing.assert_array_equal(engine.infer(wide[:, :, ::2])["class_logits"], kept)
        np.testing.assert_array_equal(frames, before)
        first[:] = -1
        np.testing.assert_array_equal(engine.infer(frames)["class_logits"], kept)


@pytest.mark.parametrize("name", PRESENT)
def test_wrong_frames_are_refused(name: str, tmp_path: Path) -> None:
    path = write_model(tmp_path / "colors.onnx")
    good = np.zeros((1, 48, 64, 3), np.uint8)
    with open_present(path, name) as engine:
        for bad in (good.astype(np.float32), good[0], good[:, :-1], good[..., :2], good[:0]):
            with pytest.raises(EngineError, match=r"colors\.onnx"):
                engine.infer(bad)
        assert engine.infer(good)["class_logits"].shape == (1, 3, 12, 16)


@pytest.mark.parametrize("name", PRESENT)
def test_closed(name: str, tmp_path: Path) -> None:
    engine = open_present(write_model(tmp_path / "colors.onnx"), name)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer(np.zeros((1, 48, 64, 3), np.uint8))


@pytest.mark.parametrize("name", PRESENT)
def test_a_graph_for_single_frames(name: str, tmp_path: Path) -> None:
    model = build_model()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 1
    path = tmp_path / "single.onnx"
    onnx.save(model, str(path))
    with open_present(path, name) as engine:
        assert engine.input_shape == (1, 48, 64, 3)
        frames = noise(1, 48, 64, 3)
        np.testing.assert_allclose(
            engine.infer(frames)["class_logits"], reference(path, frames)["class_logits"], atol=1e-3
        )
        with pytest.raises(EngineError, match="1 frame"):
            engine.infer(noise(2, 48, 64, 3))


@pytest.mark.parametrize("name", PRESENT)
def test_another_size_where_the_graph_is_free(name: str, tmp_path: Path) -> None:
    path = write_model(tmp_path / "free.onnx", multiple=4)
    with open_present(path, name, size=(100, 36)) as engine:
        frames = noise(1, 36, 100, 3)
        result = engine.infer(frames)["class_logits"]
        assert result.shape == (1, 3, 9, 25)
        np.testing.assert_allclose(result, reference(path, frames)["class_logits"], atol=1e-3)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_streams_follow_the_mode(name: str, tmp_path: Path) -> None:
    path = write_model(tmp_path / "colors.onnx")
    cores = hardware.usable_cores()
    for mode, threads, streams in (("latency", None, 1), ("throughput", None, cores), ("throughput", 1, 1)):
        with open_present(path, name, mode=mode, threads=threads) as engine:
            assert engine.streams == streams
            assert f"{streams} stream" in engine.description


@pytest.mark.parametrize("name", PRESENT)
def test_a_model_that_the_runtime_refuses(name: str, tmp_path: Path) -> None:
    model = build_model()
    next(node for node in model.graph.node if node.op_type == "Div").op_type = "NoSuchOperation"
    path = tmp_path / "strange.onnx"
    onnx.save(model, str(path))
    with pytest.raises(EngineError, match=r"strange\.onnx.*NoSuchOperation") as caught:
        open_present(path, name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"engine": "opnvino"}, {"precision": "f64"}, {"mode": "fast"}, {"threads": 0}],
)
def test_options_that_make_no_sense(options: dict[str, Any], tmp_path: Path) -> None:
    path, card = read(write_model(tmp_path / "colors.onnx"))
    with pytest.raises(UsageError):
        open_engine(path, card, **options)


def test_precisions_and_devices_that_are_not_there(tmp_path: Path) -> None:
    path, card = read(write_model(tmp_path / "colors.onnx"))
    with pytest.raises(EngineError, match="fp32"):
        open_engine(path, card, engine="onnxruntime", precision="bf16")
    for name in ("openvino", "onnxruntime", "torch"):
        with pytest.raises(EngineError, match="toaster"):
            open_engine(path, card, engine=name, device="toaster")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("openvino", "pip install openvino"),
        ("onnxruntime", "pip install onnxruntime"),
        ("torch", "PyTorch is not installed; `pip install '"),
    ],
)
def test_an_engine_that_is_not_installed(
    name: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, card = read(write_model(tmp_path / "colors.onnx"))
    monkeypatch.setattr(f"perception.engines.{name}.find_spec", lambda _: None)
    with pytest.raises(EngineError, match=advice):
        open_engine(path, card, engine=name)


def test_auto_takes_the_best_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, card = read(write_model(tmp_path / "colors.onnx"))
    monkeypatch.setattr("perception.engines.ENGINES", ("openvino", "onnxruntime", "torch"))
    with caplog.at_level(logging.INFO, "perception"), open_engine(path, card) as engine:
        assert engine.name == "openvino"
    assert "OpenVINO" in caplog.text
    caplog.clear()
    monkeypatch.setattr("perception.engines.openvino.find_spec", lambda _: None)
    with caplog.at_level(logging.INFO, "perception"), open_engine(path, card) as engine:
        assert engine.name == "onnxruntime"
    assert "ONNX Runtime" in caplog.text and "openvino: OpenVINO is not installed" in caplog.text
    monkeypatch.setattr("perception.engines.onnxruntime.find_spec", lambda _: None)
    with pytest.raises(EngineError, match=r"no engine can run here.*openvino.*onnxruntime"):
        open_engine(path, card)


def test_compiled_models_are_kept_and_damage_is_survived(own_cache: Path, tmp_path: Path) -> None:
    path = write_deep_model(tmp_path / "deep.onnx")
    frames = noise(1, 32, 48, 3)
    expected = reference(path, frames)["class_logits"]
    open_present(path, "openvino").close()
    blobs = [p for p in (own_cache / "compiled").rglob("*") if p.is_file()]
    assert len(blobs) == 1
    written = blobs[0].stat().st_mtime_ns
    with open_present(path, "openvino") as engine:
        np.testing.assert_allclose(engine.infer(frames)["class_logits"], expected, atol=1e-3)
    assert blobs[0].stat().st_mtime_ns == written
    whole = blobs[0].read_bytes()
    for damage in (b"", whole[: len(whole) // 2], bytes(len(whole)), b"\xff" * 1000 + whole[1000:]):
        blobs[0].unlink(missing_ok=True)
        blobs[0].write_bytes(damage)
        with open_present(path, "openvino") as engine:
            np.testing.assert_allclose(engine.infer(frames)["class_logits"], expected, atol=1e-3)


def test_a_graph_is_checked_once_and_again_where_something_has_changed(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, checked = write_model(tmp_path / "colors.onnx"), []
    check = checked_module.check_valid
    monkeypatch.setattr(checked_module, "check_valid", lambda model, path: (checked.append(path), check(model, path)))
    for expected in (1, 1):
        open_present(path, "openvino").close()
        assert len(checked) == expected
    kept = own_cache / "checked.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    write_model(path, classes=4)  # the file
    open_present(path, "openvino").close()
    assert len(checked) == 2
    graph = checked_module.checked_graph(path, read_card(path), (64, 48))
    assert graph == checked_module.Graph(("class_logits",), 0) and len(checked) == 2
    wrong = read_card(write_model(tmp_path / "other.onnx", classes=4, detection=True))  # the card
    with pytest.raises(ModelError, match="the card does not fit the graph"):
        checked_module.checked_graph(path, wrong, (64, 48))
    other = json.dumps({key: {"batch": "x"} for key in json.loads(kept.read_text())})
    for damage in ("", "[]", '{"a": 1}', "{", other):
        kept.write_text(damage)
        count = len(checked)
        open_present(path, "openvino").close()
        assert len(checked) == count + 1


def test_a_cache_that_cannot_be_written(own_cache: Path, tmp_path: Path) -> None:
    own_cache.write_text("a file where the folder should be")
    with open_present(write_model(tmp_path / "colors.onnx"), "openvino") as engine:
        assert engine.infer(np.zeros((1, 48, 64, 3), np.uint8))["class_logits"].shape == (1, 3, 12, 16)
    assert own_cache.read_text() == "a file where the folder should be"
