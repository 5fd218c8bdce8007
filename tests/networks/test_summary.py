"""`perception summary`: of networks by name and of model files, which must agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from typer.testing import CliRunner  # noqa: E402

import perception.classics  # noqa: E402, F401 - its networks are summed up
from perception.card import ModelCard  # noqa: E402
from perception.commands.main import app  # noqa: E402
from perception.errors import PerceptionError, UsageError  # noqa: E402
from perception.networks.classifier import Classifier, build_classifier  # noqa: E402
from perception.networks.summary import summarise_named  # noqa: E402
from perception.training.export.export import export_network  # noqa: E402
from perception.training.weights.half_weights import store_in_half  # noqa: E402


@pytest.mark.parametrize("name", ["lenet_color", "mini_alexnet_v4"])
def test_a_model_file_has_the_layers_of_its_network(name: str, tmp_path: Path) -> None:
    network = build_classifier(name)
    side = network.input_shape[1]
    card = {
        "name": "exported", "licence": "free", "input": {"width": side, "height": side},
        "classification": {"classes": [str(i) for i in range(10)]},
    }  # fmt: skip
    path = tmp_path / "exported.onnx"
    export_network(Classifier(network.eval()), ModelCard.model_validate(card), path)
    file, torchs = summarise_named(str(path)), summarise_named(name)
    weighted = ("Conv", "Linear", "Gemm")
    ours = [layer for layer in torchs.layers if layer.kind.startswith(weighted)]
    theirs = [layer for layer in file.layers if layer.kind.startswith(weighted)]
    assert [layer.multiplications for layer in theirs] == [layer.multiplications for layer in ours]
    assert [layer.output for layer in theirs] == [layer.output for layer in ours]
    assert [layer.field for layer in theirs] == [layer.field for layer in ours]
    if name == "lenet_color":  # no batch normalisations that are folded or stay
        assert file.parameters == torchs.parameters
        assert [layer.parameters for layer in theirs] == [layer.parameters for layer in ours]
    model = onnx.load(str(path))
    store_in_half(model)
    onnx.save(model, str(tmp_path / "half.onnx"))
    assert summarise_named(str(tmp_path / "half.onnx")) == file
    with pytest.raises(UsageError, match=f"this model takes {side}x{side} only, not 64x64"):
        summarise_named(str(path), size=(64, 64))


@pytest.mark.parametrize(("name", "least"), [("camvid", 3e6), ("street", 1.75e6)])
def test_shipped_models_have_the_same_layers_in_eight_bits(name: str, least: float) -> None:
    full, eight = summarise_named(name), summarise_named(f"{name}-int8")
    assert full.multiplications == eight.multiplications > 1e9
    assert full.parameters == eight.parameters > least
    strides = [layer.step[0] for layer in full.layers if layer.step is not None]
    assert strides[0] == 2 and max(strides) == 32
    heads = [layer for layer in full.layers if "/head/classify" in layer.name]
    assert heads[-1].field is None  # a part of the pyramid's context is the mean of the whole picture


def test_the_command_prints_numbers_and_nothing_else() -> None:
    result = CliRunner().invoke(app, ["summary", "lenet5", "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert rows[-1]["parameters"] == 44_426
    assert rows[0] == {
        "name": "C1", "kind": "Conv2d 5x5", "output": "6x24x24", "parameters": 156, "multiplications": 86400,
        "field": "5x5", "step": "1x1",
    }  # fmt: skip
    more = CliRunner().invoke(app, ["summary", "lenet5", "--classes", "3", "--json"])
    assert json.loads(more.stdout)[-1]["parameters"] == 44_426 - 7 * 85


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lenet7"], "no classifier is called 'lenet7'"),
        (["lenet5", "--size", "64x64"], "to_fully_convolutional"),
        (["nothing.onnx"], "no such model file"),
        (["camvid", "--classes", "3"], "leave the number of classes out"),
        (["street", "--size", "483x361"], "multiples of 4, not 483x361; try 484x360"),
        (["torchvision:squeezenet1_1", "--size", "3x3"], "it cannot take images of 3x3x3: "),
        (["timm:nonsense"], "timm has no model 'nonsense'"),
    ],
)
def test_faults_are_one_line(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["summary", *arguments])
    assert isinstance(result.exception, PerceptionError)
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
