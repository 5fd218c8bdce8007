"""A graph and a card that do not belong together are found out when the model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from perception import ModelError
from perception.card import METADATA_KEY, read_card, write_card
from perception.engines import open_engine
from tests.models import build_model

Change = Callable[[onnx.ModelProto], None]


def rename(old: str, new: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]
        for value in [*model.graph.input, *model.graph.output]:
            if value.name == old:
                value.name = new

    return change


def float_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def planes_input(model: onnx.ModelProto) -> None:
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, 3, 48, 64), strict=True):
        dim.dim_value = size


def other_size(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 96


def second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("threshold", TensorProto.FLOAT, []))


def half_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def flat_output(model: onnx.ModelProto) -> None:
    del model.graph.output[0].type.tensor_type.shape.dim[0]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (rename("frames", "images"), "the only input must be 'frames'"),
        (second_input, "the only input must be 'frames'"),
        (float_input, "must be uint8"),
        (planes_input, r"must be \[N, height, width, 3\]"),
        (other_size, "does not take frames of 64x48"),
        (rename("class_logits", "logits"), "there is no output 'class_logits'"),
        (rename("scores", "confidence"), "there is no output 'scores'"),
        (half_output, "must be float32 and is float16"),
        (flat_output, "must have 4 dimensions"),
    ],
)
def test_what_the_graph_declares(change: Change, fault: str, tmp_path: Path) -> None:
    model = build_model(detection=True)
    change(model)
    path = tmp_path / "wrong.onnx"
    onnx.save(model, str(path))
    with pytest.raises(ModelError, match=fault) as caught:
        open_engine(path, read_card(path))
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    assert "The graph has inputs" in message and "class_logits with 3 classes" in message


def card_says(tmp_path: Path, task: str, classes: int, **outputs: str) -> Path:
    """A model of three classes, with all heads, whose card says something else of one of them."""
    model = build_model(detection=True, classification=True)
    path = tmp_path / "wrong.onnx"
    onnx.save(model, str(path))
    card = read_card(path)
    head = getattr(card, task)
    extra = [{"name": f"extra {i}", "color": (1, 2, i)} for i in range(8)]
    told = [c.model_dump() for c in head.classes] + extra
    changed = type(head).model_validate(head.model_dump() | {"classes": told[:classes]} | outputs)
    write_card(model, card.model_copy(update={task: changed}))
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch"])
@pytest.mark.parametrize(
    ("task", "output", "has"),
    [
        ("segmentation", "class_logits", r"\[1, 3, 12, 16\] for 1 frame\(s\), expected \[N, 5, any, any\]"),
        ("detection", "scores", r"\[1, 24, 3\] for 1 frame\(s\), expected \[N, any, 5\]"),
        ("classification", "probabilities", r"\[1, 3\] for 1 frame\(s\), expected \[N, 5\]"),
    ],
)
def test_another_number_of_classes(engine: str, task: str, output: str, has: str, tmp_path: Path) -> None:
    path = card_says(tmp_path, task, 5)
    with pytest.raises(ModelError, match=f"output '{output}' is {has}.*with 5 classes"):
        open_engine(path, read_card(path), engine=engine)
    path = card_says(tmp_path, task, 2)
    with pytest.raises(ModelError, match="with 2 classes"):
        open_engine(path, read_card(path), engine=engine)


def test_scores_given_for_boxes(tmp_path: Path) -> None:
    path = card_says(tmp_path, "detection", 3, boxes="scores")
    with pytest.raises(ModelError, match=r"output 'scores' is \[1, 24, 3\].*expected \[N, any, 4\]"):
        open_engine(path, read_card(path))


def test_boxes_and_scores_of_different_numbers(tmp_path: Path) -> None:
    model = build_model(detection=True)
    concat = next(node for node in model.graph.node if node.op_type == "Concat")
    concat.input.pop()  # scores for the cells only, boxes still for cells and narrow cells
    del model.graph.output[2].type.tensor_type.shape.dim[:]
    path = tmp_path / "uneven.onnx"
    onnx.save(model, str(path))
    with pytest.raises(ModelError, match="one row per anchor each"):
        open_engine(path, read_card(path))


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch"])
def test_a_network_that_gives_nonsense(engine: str, tmp_path: Path) -> None:
    model = build_model()
    scale = next(weight for weight in model.graph.initializer if weight.name == "full")
    scale.CopyFrom(numpy_helper.from_array(np.zeros((), np.float32), "full"))
    path = tmp_path / "nonsense.onnx"
    onnx.save(model, str(path))
    with pytest.raises(ModelError, match=r"nonsense\.onnx.*'class_logits' has NaN"):
        open_engine(path, read_card(path), engine=engine, precision="fp32")


def test_weights_among_the_inputs_are_not_inputs(tmp_path: Path) -> None:
    """As in files from before ONNX IR 4."""
    model = build_model()
    for weight in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))
    path = tmp_path / "old.onnx"
    onnx.save(model, str(path))
    for engine in ("openvino", "onnxruntime", "torch"):
        with open_engine(path, read_card(path), engine=engine) as opened:
            assert opened.input_shape == (None, 48, 64, 3)


def test_the_card_travels_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(build_model(), str(path))
    assert [p.key for p in onnx.load(str(path)).metadata_props] == [METADATA_KEY]
