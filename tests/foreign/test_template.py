"""The card that a file without one is refused with: its adapter is of the format that the outputs look most like."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from perception.card import read_card, template, validate_card
from perception.errors import ModelError
from perception.foreign.adapt import adapt_model
from perception.foreign.adapter import ForeignCard
from tests.foreign import graphs
from tests.foreign.graphs import Net
from tests.models import build_model

FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8


def described(path: Path, model: onnx.ModelProto) -> dict[str, Any]:
    """What the error says to begin with, as YAML."""
    onnx.save(model, str(path))
    with pytest.raises(ModelError) as caught:
        read_card(path)
    (text,) = re.findall(r"such as (\{.*\}), and give", caught.value.message)
    data = yaml.safe_load(text)
    validate_card(data, "the template", ForeignCard)
    return data


def signature(shape: list[Any], outputs: dict[str, list[Any]], whole: tuple[str, ...] = ()) -> onnx.ModelProto:
    """A graph of which only inputs and outputs are known."""
    images = helper.make_tensor_value_info("images", FLOAT, shape)
    made = [helper.make_tensor_value_info(n, INT64 if n in whole else FLOAT, s) for n, s in outputs.items()]
    return helper.make_model(helper.make_graph([], "foreign", [images], made))


@pytest.mark.parametrize(("width", "height"), [(64, 48), (640, 384)])
def test_the_size_is_that_of_the_input(tmp_path: Path, width: int, height: int) -> None:
    model = build_model(width=width, height=height, with_card=False)
    data = described(tmp_path / "My net (v2).onnx", model)
    assert data["name"] == "My-net-v2"
    assert (data["input"]["width"], data["input"]["height"]) == (width, height)
    assert data["adapter"]["input"] == {"layout": "NHWC", "channels": "RGB", "scale": 1}  # of bytes
    for shape in ([1, 3, height, width], [3, height, width], [height, width, 3]):
        model.graph.input[0].CopyFrom(helper.make_tensor_value_info("images", FLOAT, shape))
        made = yaml.safe_load(template("a.onnx", model))
        assert (made["input"]["width"], made["input"]["height"]) == (width, height)
        assert made["adapter"]["input"].get("layout", "NCHW") == ("NHWC" if shape[-1] == 3 else "NCHW")
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("images", FLOAT, ["n", 3, "h", "w"]))
    assert yaml.safe_load(template("a.onnx", model))["input"]["width"] == 640


def segmenter(net: Net, ids: bool = False, channels: int = 3) -> Net:
    logits = net.conv(channels, 4)
    if ids:
        return net.output(net("ArgMax", logits, axis=1, keepdims=0), "ids", ["batch", 12, 16], INT64)
    return net.output(logits, "logits", ["batch", channels, 12, 16])


def classifier(net: Net) -> Net:
    return net.output(net("Flatten", net("GlobalAveragePool", net.conv(3, 4))), "logits", ["batch", 3])


GRAPHS: dict[str, tuple[Callable[[Net], Net], dict[str, Any]]] = {
    "yolov8": (lambda net: graphs.yolov8(net), {"format": "yolov8"}),
    "yolov10": (graphs.yolov10, {"format": "yolov10"}),
    "boxes and scores": (graphs.boxes_scores, {"format": "boxes_scores", "boxes": "boxes", "scores": "scores"}),
    "labels": (lambda net: graphs.labelled(net), {"format": "boxes_scores", "labels": "detection_classes"}),
    "logits": (segmenter, {"values": "logits"}),
    "ids": (lambda net: segmenter(net, ids=True), {"values": "class_ids"}),
    "binary": (lambda net: segmenter(net, channels=1), {"values": "binary"}),
    "classifier": (classifier, {"activation": "softmax"}),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_with_its_classes_filled_in_it_runs_the_graph(name: str, tmp_path: Path) -> None:
    make, expected = GRAPHS[name]
    model = make(Net()).build()
    data = described(tmp_path / "theirs.onnx", model)
    (task,) = {"detection", "segmentation", "classification"} & data.keys()
    assert expected.items() <= data["adapter"][task].items()
    if name != "binary":
        data[task]["classes"] = ["a", "b", "c"]
    card = validate_card(data, "card.yaml", ForeignCard)
    assert (card.input.width, card.input.height) == (64, 48)
    onnx.checker.check_model(adapt_model(model, card, "theirs.onnx"))


CELLS = 80 * 80 + 40 * 40 + 20 * 20
IMAGE = [1, 3, 640, 640]


@pytest.mark.parametrize(
    ("outputs", "whole", "expected", "told"),
    [
        ({"output": [1, CELLS, 85]}, (), {"format": "yolox"}, "card=yolox"),
        ({"output": [1, CELLS, 12]}, (), {"format": "yolox"}, "its 7 classes"),
        ({"output": [1, 3 * CELLS, 85]}, (), {"format": "yolov5"}, "its 80 classes"),
        ({"output0": [1, 84, CELLS]}, (), {"format": "yolov8"}, "card=yolov8"),
        ({"output0": ["n", 84, CELLS]}, (), {"format": "yolov8"}, "card=yolov8"),
        ({"output0": [1, 116, CELLS], "output1": [1, 32, 160, 160]}, (),
         {"format": "yolov8", "columns": ["box", "classes", 32], "output": "output0"}, "its 80 classes"),
        ({"output0": [1, 300, 84]}, (), {"format": "yolov8", "coordinates": "normalised"}, "its 80 classes"),
        ({"output0": [1, 300, 6]}, (), {"format": "yolov10"}, ""),
        ({"output": ["k", 7]}, (), {"format": "rows", "columns": ["batch", "box", "label", "score"]}, ""),
        ({"detection_out": [1, 1, 200, 7]}, (), {"columns": ["batch", "label", "score", "box"]}, ""),
        ({"dets": [1, 100, 5], "labels": [1, 100]}, ("labels",), {"columns": ["box", "score"], "labels": "labels"}, ""),
        ({"logits": [1, 300, 80], "pred_boxes": [1, 300, 4]}, (), {"format": "detr"}, "card=rt-detr"),
        ({"boxes": ["k", 4], "labels": ["k"], "scores": ["k"]}, ("labels",),
         {"format": "boxes_scores", "labels": "labels", "scores": "scores"}, ""),
        ({"num": [1], "detection_boxes": [1, 100, 4], "detection_scores": [1, 100], "detection_classes": [1, 100]}, (),
         {"corners": "yxyx", "coordinates": "normalised"}, "card=ssd"),
        ({"out": [1, 21, 640, 640], "aux": [1, 21, 640, 640]}, (), {"values": "logits", "output": "out"},
         "card=segmenter"),
        ({"mask": [1, 640, 640, 5]}, (), {"values": "logits", "layout": "NHWC"}, "its 5 classes"),
        ({"logits": [1, 1000]}, (), {"activation": "softmax"}, "its 1000 classes"),
        ({"unknown": [None, None, None]}, (), {"format": "yolov8"}, ""),
        ({"nothing": []}, (), {"format": "yolov8"}, ""),
    ],
)  # fmt: skip
def test_formats_by_their_shapes(
    outputs: dict[str, list[Any]], whole: tuple[str, ...], expected: dict[str, Any], told: str, tmp_path: Path
) -> None:
    model = signature(IMAGE, outputs, whole)
    data = described(tmp_path / "theirs.onnx", model)
    (section,) = (part for task, part in data["adapter"].items() if task != "input")
    assert expected.items() <= section.items()
    with pytest.raises(ModelError) as caught:
        read_card(tmp_path / "theirs.onnx")
    assert told in caught.value.message
    assert ("or try" in caught.value.message) == told.startswith("card=")


def test_one_picture_without_a_batch(tmp_path: Path) -> None:
    logits = described(tmp_path / "a.onnx", signature([3, 64, 64], {"out": [5, 16, 16]}))
    assert logits["adapter"]["segmentation"] == {"values": "logits"}
    boxes = {"boxes": ["k", 4], "labels": ["k"], "scores": ["k"]}
    found = described(tmp_path / "b.onnx", signature([3, 64, 64], boxes, ("labels",)))
    assert found["adapter"]["detection"]["labels"] == "labels"
