"""`perception weights` as a user runs it; soup has its own tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from perception.card import read_card  # noqa: E402
from perception.commands.main import app  # noqa: E402
from perception.errors import ModelError, UsageError  # noqa: E402
from perception.model import load_model  # noqa: E402
from perception.training.weights.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from tests.models import build_model, solid  # noqa: E402


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["weights", *map(str, arguments)])


def test_a_compact_checkpoint_has_the_average_in_half_and_how_far_it_has_come(tmp_path: Path) -> None:
    state = {"config": {"name": "x"}, "epoch": 3, "step": 30, "best": 0.5, "stale": 1, "average_steps": 30}
    average = {"w": torch.randn(40, 50), "batches": torch.tensor(7)}
    save_checkpoint(tmp_path / "a.pt", {**state, "average": average, "network": average, "optimiser": {"x": average}})
    done = call("compact", tmp_path / "a.pt", "-o", tmp_path / "b.pt")
    assert done.exit_code == 0 and done.stdout.strip() == str(tmp_path / "b.pt")
    made = load_checkpoint(tmp_path / "b.pt")
    assert {name: made[name] for name in state} == state
    assert set(made) == {*state, "average", "format"}
    assert torch.equal(made["average"]["w"], average["w"].half())
    assert torch.equal(made["average"]["batches"], average["batches"])
    assert isinstance(call("compact", tmp_path / "a.pt", "-o", tmp_path / "b.pt").exception, UsageError)
    told = call("compact", tmp_path / "a.pt", "-o", tmp_path / "c.pt", "--data", tmp_path)
    assert isinstance(told.exception, UsageError) and "--data belongs to --recipe" in str(told.exception)


def with_large_weight(scale: float) -> onnx.ModelProto:
    """The tiny model, and 4096 numbers that add nothing to its masks."""
    model = build_model()
    values = (scale * np.random.default_rng(0).standard_normal(4096)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(values, "large"))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "none"))
    (last,) = (node for node in model.graph.node if "class_logits" in node.output)
    last.output[0] = "plain"
    model.graph.node.append(helper.make_node("ReduceSum", ["large"], ["sum"], keepdims=1))
    model.graph.node.append(helper.make_node("Mul", ["sum", "none"], ["nothing"]))
    model.graph.node.append(helper.make_node("Add", ["plain", "nothing"], ["class_logits"]))
    return model


def test_a_model_in_half_says_the_same_and_is_half_as_large(tmp_path: Path) -> None:
    model = with_large_weight(1.0)
    onnx.save(model, str(tmp_path / "a.onnx"))
    done = call("half", tmp_path / "a.onnx", "-o", tmp_path / "b.onnx")
    assert done.exit_code == 0, done.output
    made = onnx.load(str(tmp_path / "b.onnx"))
    kinds = {tensor.name: tensor.data_type for tensor in made.graph.initializer}
    assert kinds["large/half"] == TensorProto.FLOAT16 and "large" not in kinds
    assert (tmp_path / "b.onnx").stat().st_size < (tmp_path / "a.onnx").stat().st_size - 8000
    assert read_card(tmp_path / "b.onnx") == read_card(tmp_path / "a.onnx")
    with load_model(tmp_path / "b.onnx", engine="openvino", precision="fp32") as loaded:
        class_map = loaded.predict(solid("green")).class_map
        assert class_map is not None and (class_map.mask == 1).all()


def test_weights_beyond_half_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    onnx.save(with_large_weight(1e6), str(tmp_path / "a.onnx"))
    done = call("half", tmp_path / "a.onnx", "-o", tmp_path / "b.onnx")
    assert isinstance(done.exception, ModelError) and "too large for float16" in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]
