"""From a model to its version in eight bits: accuracy is guarded, the card tells, every engine runs it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from perception.card import load_onnx, read_card
from perception.commands.main import app
from perception.engines import open_engine
from perception.engines.trt.build import build
from perception.engines.trt.flavour import find_flavour, installed
from perception.engines.trt.graph import Tail
from perception.engines.trt.recipe import make_profile, make_recipe
from perception.errors import ModelError, UsageError
from perception.evaluation.segmentation import evaluate_segmentation
from perception.quantize import quantize as module
from perception.quantize.accuracy import Validation
from perception.quantize.graph import PRODUCTS, quantised_layers
from perception.quantize.quantize import quantize
from tests.evaluation.scenes import write_boxes, write_labels
from tests.models import write_model
from tests.noise import noise_frames
from tests.quantize.networks import write_deep


@pytest.fixture(autouse=True)
def short_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEASURE_SECONDS", 0.05)


def masks(folder: Path, **options: Any) -> Validation:
    return Validation(images=folder / "images", labels=folder / "labels", ignore=[11], **options)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labels(tmp_path_factory.mktemp("scenes"), images=8)


def test_all_of_it(tmp_path: Path, scenes: Path) -> None:
    source, output = write_deep(tmp_path / "deep.onnx"), tmp_path / "deep-int8.onnx"
    told: list[str] = []
    result = quantize(
        source,
        [scenes / "images"],
        output,
        count=4,
        validation=masks(scenes),
        progress=lambda *step: told.append(step[0]),
    )
    model, card = load_onnx(output), read_card(output)
    facts = card.quantization
    assert facts is not None and card == result.card
    assert card.name == "deep-int8" and facts.precision == "int8" and facts.float_layers == []
    assert facts.source_sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert facts.calibrated_on == [f"{'/'.join((scenes / 'images').parts[-3:])}: 4 pictures of 8"]
    products = {n.name for n in model.graph.node if n.op_type in PRODUCTS}
    assert products == {"spread", "mix", "depth", "decide"} <= set(quantised_layers(model))
    # what the card says is what the evaluation measures
    again = evaluate_segmentation(output, scenes / "images", scenes / "labels", ignore=[11]).as_dict()
    before = evaluate_segmentation(
        source, scenes / "images", scenes / "labels", ignore=[11], engine="onnxruntime"
    ).as_dict()
    assert card.metrics["deep_val_miou"] == pytest.approx(again["miou"], abs=1e-4)
    assert facts.before["deep_val_miou"] == pytest.approx(before["miou"], abs=1e-3)
    assert again["miou"] > before["miou"] - 0.007
    names = [v.precision for v in result.variants]
    assert names[0] == "fp32" and names[-1] == "int8" and len(set(names)) == len(names)
    assert all(v.ms > 0 and 0 < v.metrics["miou"] <= 1 for v in result.variants)
    assert result.rows()[-1]["MB"] == round(output.stat().st_size / 1e6, 2)
    assert set(told) == {"calibrate", "measure masks"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep-int8.onnx", "deep.onnx"]


def test_engines_agree_on_the_result(tmp_path: Path, scenes: Path) -> None:
    source, output = write_deep(tmp_path / "deep.onnx"), tmp_path / "deep-int8.onnx"
    quantize(source, [scenes / "images"], output, count=4)
    card = read_card(output)
    frames = noise_frames(1)
    logits = {}
    for name in ("torch", "onnxruntime", "openvino"):
        with open_engine(output, card, engine=name) as engine:
            logits[name] = engine.infer(frames)["class_logits"]
    assert (tmp_path / "deep-int8.onnx").is_file()
    spread = np.ptp(logits["torch"])
    for name in ("onnxruntime", "openvino"):
        np.testing.assert_allclose(logits[name], logits["torch"], atol=0.03 * spread)
        assert (logits[name].argmax(1) == logits["torch"].argmax(1)).mean() > 0.97


def test_the_layer_that_hurts_goes_back_to_float(tmp_path: Path, scenes: Path) -> None:
    """Channel 8 of ``spread`` is so large that eight bits leave nothing of what ``mix`` reads beside it."""
    source, output = write_deep(tmp_path / "deep.onnx", outlier=3000), tmp_path / "deep-int8.onnx"
    careless = quantize(source, [scenes / "images"], tmp_path / "careless.onnx", validation=masks(scenes, max_drop=1))
    before, after = (v.metrics["miou"] for v in (careless.variants[0], careless.variants[-1]))
    assert after < before - 0.2  # it does hurt
    told: list[str] = []
    result = quantize(
        source, [scenes / "images"], output, validation=masks(scenes), progress=lambda *step: told.append(step[0])
    )
    facts = result.card.quantization
    assert facts is not None
    assert facts.float_layers[0] == "mix"
    assert "rank layers" in told
    assert {"depth", "decide"} & set(quantised_layers(load_onnx(output)))
    assert result.layers == len(quantised_layers(load_onnx(output)))
    assert "mix" not in quantised_layers(load_onnx(output))
    assert result.variants[-1].metrics["miou"] > before - 0.007
    measured = evaluate_segmentation(output, scenes / "images", scenes / "labels", ignore=[11]).as_dict()["miou"]
    assert measured == pytest.approx(result.variants[-1].metrics["miou"], abs=1e-6)


def test_boxes_are_measured_too(tmp_path: Path) -> None:
    folder = write_boxes(tmp_path / "boxes")
    source = write_model(tmp_path / "colors.onnx", width=128, height=96, detection=True)
    validation = Validation(boxed=folder / "images", annotations=folder / "boxes.json")
    result = quantize(source, [folder / "images"], tmp_path / "colors-int8.onnx", validation=validation)
    first, last = result.variants[0].metrics, result.variants[-1].metrics
    assert set(first) == {"map", "map50"} == set(last)
    assert 0.3 < first["map50"] < 1
    assert last["map50"] >= first["map50"] - 0.01


def test_impossible_accuracy_leaves_no_file(tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = write_deep(tmp_path / "deep.onnx"), tmp_path / "deep-int8.onnx"
    # no loss is small enough for this: everything counts as one
    monkeypatch.setattr(Validation, "limits", {"miou": -1.0})
    with pytest.raises(UsageError, match="no layer of this model can be quantised"):
        quantize(source, [scenes / "images"], output, count=2, validation=masks(scenes))
    assert [p.name for p in tmp_path.iterdir()] == ["deep.onnx"]


def test_what_is_asked_for_must_fit(tmp_path: Path, scenes: Path) -> None:
    source, output = write_deep(tmp_path / "deep.onnx"), tmp_path / "deep-int8.onnx"
    images = [scenes / "images"]
    with pytest.raises(UsageError, match="does not do detection"):
        quantize(source, images, output, validation=Validation(annotations=tmp_path / "boxes.json"))
    with pytest.raises(UsageError, match=r"must end in \.onnx"):
        quantize(source, images, tmp_path / "deep.bin")
    with pytest.raises(UsageError, match="overwrite=True"):
        quantize(source, images, source)
    with pytest.raises(ModelError, match="no such model"):
        quantize(tmp_path / "none.onnx", images, output)
    quantize(source, images, output, count=1)
    with pytest.raises(UsageError, match="already quantised"):
        quantize(output, images, tmp_path / "twice.onnx")


@pytest.mark.skipif("rtx" not in installed(), reason="TensorRT for RTX has no wheel for this system")
def test_tensorrt_builds_the_same_file(tmp_path: Path, scenes: Path) -> None:
    source, output = write_deep(tmp_path / "deep.onnx"), tmp_path / "deep-int8.onnx"
    quantize(source, [scenes / "images"], output, count=2)
    card = read_card(output)
    recipe = make_recipe(
        output, card, find_flavour("rtx"), "int8", make_profile(card), capabilities=("75", "89"), tail=Tail()
    )
    plan, seen = build(recipe)
    assert seen.products == {"INT8": 4}
    assert len(plan) > 1000


def test_the_command(tmp_path: Path, scenes: Path) -> None:
    source, output = write_deep(tmp_path / "deep.onnx"), tmp_path / "deep-int8.onnx"
    arguments = ["quantize", source, "-o", output, "--images", scenes / "images", "--count", 3]
    arguments += ["--labels", scenes / "labels", "--ignore", 11]
    called = CliRunner().invoke(app, [str(a) for a in [*arguments, "--json"]])
    assert called.exit_code == 0, called.output
    data = json.loads(called.stdout)
    assert data["name"] == "deep-int8" and data["float_layers"] == []
    assert data["variants"][-1]["precision"] == "int8" and data["variants"][-1]["miou"] > 0.5
    refused = CliRunner().invoke(app, [str(a) for a in arguments])
    assert isinstance(refused.exception, UsageError) and "overwrite=True" in str(refused.exception)
    table = CliRunner().invoke(app, [str(a) for a in [*arguments, "--overwrite"]])
    assert table.exit_code == 0
    for word in ("fp32", "int8", "miou", "times faster", "MB"):
        assert word in table.stdout
    assert "calibrated on" in table.stderr and "NNCF" in table.stderr
