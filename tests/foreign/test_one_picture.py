"""Graphs that take one picture without an axis for the batch, as torchvision's detectors are exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from perception.card import validate_card
from perception.engines import open_engine
from perception.errors import ModelError
from perception.foreign.adapt import adapt_model
from perception.foreign.adapter import ForeignCard
from perception.model import load_model
from tests.foreign import graphs
from tests.foreign.graphs import Net, prepare
from tests.noise import noise

WIDTH, HEIGHT = 32, 48
PIXELS: dict[str, Any] = {"channels": "RGB", "scale": 1 / 255, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}


def without_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with an input ``[3, H, W]`` (or ``[H, W, 3]``) and outputs without their first axis."""
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.array([0], np.int64), "first_axis"))
    front, back = [], []
    for values, nodes, op in ((graph.input, front, "Unsqueeze"), (graph.output, back, "Squeeze")):
        for value in values:
            outer, inner = value.name, f"{value.name}_of_a_batch"
            for node in graph.node:
                node.input[:] = [inner if name == outer else name for name in node.input]
                node.output[:] = [inner if name == outer else name for name in node.output]
            ends = (outer, inner) if op == "Unsqueeze" else (inner, outer)
            nodes.append(helper.make_node(op, [ends[0], "first_axis"], [ends[1]]))
            del value.type.tensor_type.shape.dim[0]
    nodes = [*front, *graph.node, *back]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return model


def described(task: str, section: dict[str, Any], **image: Any) -> ForeignCard:
    data = {
        "name": "foreign", "licence": "MIT", "input": {"width": WIDTH, "height": HEIGHT},
        task: {"classes": ["a", "b", "c"]}, "adapter": {"input": PIXELS | image, task: section},
    }  # fmt: skip
    return validate_card(data, "card.yaml", ForeignCard)


def logits(layout: str = "NCHW", free: bool = False) -> Net:
    size: Any = ("height", "width") if free else None
    net = Net(WIDTH, HEIGHT, batch=1, layout=layout, size=size)
    sides = [None, None] if free else [HEIGHT // 4, WIDTH // 4]
    return net.output(net.conv(3, 4), "logits", [1, 3, *sides])


def ids() -> Net:
    net = Net(WIDTH, HEIGHT, batch=1)
    shape = [1, HEIGHT // 4, WIDTH // 4]
    return net.output(net("ArgMax", net.conv(3, 4), axis=1, keepdims=0), "ids", shape, TensorProto.INT64)


def ids_alone() -> Net:
    """Without logits that an argmax could be undone for."""
    net = Net(WIDTH, HEIGHT, batch=1)
    values = net("Cast", net("Abs", net.conv(1, 4)), to=TensorProto.INT64)
    flat = net("Reshape", values, np.array([1, HEIGHT // 4, WIDTH // 4], np.int64))
    return net.output(flat, "ids", [1, HEIGHT // 4, WIDTH // 4], TensorProto.INT64)


def probabilities() -> Net:
    net = Net(WIDTH, HEIGHT, batch=1)
    pooled = net("Flatten", net("GlobalAveragePool", net.conv(3, 4)))
    return net.output(net("Softmax", pooled, axis=1), "probabilities", [1, 3])


def rows() -> Net:
    net = Net(WIDTH, HEIGHT, batch=1)
    return net.output(net.rows(8, 8, 0.3), "output", [1, WIDTH * HEIGHT // 64, 8])


CASES: dict[str, tuple[Any, ForeignCard]] = {
    "logits": (logits, described("segmentation", {"values": "logits"})),
    "channels last": (lambda: logits("NHWC"), described("segmentation", {"values": "logits"}, layout="NHWC")),
    "free sizes": (lambda: logits(free=True), described("segmentation", {"values": "logits"})),
    "class ids": (ids, described("segmentation", {"values": "class_ids"})),
    "class ids alone": (ids_alone, described("segmentation", {"values": "class_ids"})),
    "probabilities": (probabilities, described("classification", {"activation": "none"})),
    "yolox": (rows, described("detection", {"format": "yolox", "strides": [8]})),
    "yolov5": (rows, described("detection", {"format": "yolov5"})),
}


@pytest.mark.parametrize("case", CASES)
def test_it_gives_what_the_graph_with_a_batch_gives(case: str, tmp_path: Path) -> None:
    make, card = CASES[case]
    results = {}
    for name, model in (("batch", make().build()), ("alone", without_batch(make().build()))):
        path = tmp_path / f"{name}.onnx"
        onnx.save(adapt_model(model, card, "theirs.onnx"), str(path))
        for engine in ("onnxruntime", "openvino"):
            with open_engine(path, card.native(), engine=engine, precision="fp32") as opened:
                results[name, engine] = opened.infer(noise(1, HEIGHT, WIDTH, 3, seed=5))
    for found in results.values():
        for output, expected in results["batch", "onnxruntime"].items():
            np.testing.assert_allclose(found[output], expected, atol=1e-3, rtol=1e-4)
            assert np.std(expected) > 1e-3


def test_boxes_scores_and_labels_as_torchvision_has_them(tmp_path: Path) -> None:
    net = Net(WIDTH, HEIGHT, batch=1)
    model = without_batch(graphs.labelled(net).build())
    frame = noise(HEIGHT, WIDTH, 3, seed=3)
    boxes, scores, labels = onnxruntime.InferenceSession(model.SerializeToString()).run(
        ["detection_boxes", "detection_scores", "detection_classes"],
        {"images": prepare(frame, layout="NCHW", **PIXELS)[0]},
    )
    names = {"boxes": "detection_boxes", "scores": "detection_scores", "labels": "detection_classes"}
    card = described("detection", {"format": "boxes_scores", **names})
    path = tmp_path / "mine.onnx"
    onnx.save(adapt_model(model, card, "theirs.onnx"), str(path))
    with open_engine(path, card.native(), engine="onnxruntime") as engine:
        found = engine.infer(frame[None])
    np.testing.assert_allclose(found["boxes"], boxes[None], atol=1e-2)
    for box, (score, label) in enumerate(zip(scores, labels, strict=True)):
        expected = [score if index == label else 0 for index in range(3)]
        np.testing.assert_allclose(found["scores"][0, box], expected, atol=1e-4)


def test_a_foreign_file_is_a_model_at_once(tmp_path: Path) -> None:
    path, card = tmp_path / "theirs.onnx", tmp_path / "card.yaml"
    onnx.save(without_batch(logits().build()), str(path))
    card.write_text(
        f"name: foreign\nlicence: MIT\ninput: {{width: {WIDTH}, height: {HEIGHT}}}\n"
        "segmentation: {classes: [a, b, c]}\n"
        "adapter: {input: {channels: RGB, scale: 1/255}, segmentation: {values: logits}}\n"
    )
    with load_model(path, card=card) as model:
        maps = [model.predict(noise(60, 80, 3, seed=seed)).class_map for seed in range(3)]
        masks = [found.mask for found in maps if found is not None]
    assert len(masks) == 3
    assert all(mask.shape == (60, 80) for mask in masks) and (masks[0] != masks[1]).any()


def test_three_axes_that_are_no_picture() -> None:
    net = Net(WIDTH, HEIGHT, batch=1)
    net.output(net.conv(3, 4), "logits", [1, 3, HEIGHT // 4, WIDTH // 4])
    model = without_batch(net.build())
    with pytest.raises(ModelError, match=r"'images' is not NHWC with 3 channels"):
        adapt_model(model, described("segmentation", {"values": "logits"}, layout="NHWC"), "theirs.onnx")
