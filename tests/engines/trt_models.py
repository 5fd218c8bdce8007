"""Graphs that put TensorRT's parser and the precision conversion to the test."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from perception.card import ModelCard, validate_card, write_card


def card(classes: int = 3, *, segmentation: bool = True, detection: bool = False, side: int = 16) -> ModelCard:
    """A card for `graph`."""
    listed = [{"name": f"class {i}", "color": (i, 0, 0)} for i in range(classes)]
    data: dict[str, Any] = {"name": "made", "licence": "MIT", "input": {"width": side, "height": side, "multiple": 4}}
    if segmentation:
        data["segmentation"] = {"classes": listed}
    if detection:
        data["detection"] = {"classes": listed}
    return validate_card(data, "tests")


def graph(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray],
    outputs: dict[str, list[Any]],
    *,
    side: int | None = 16,
    opset: int = 17,
    with_card: ModelCard | None = None,
) -> onnx.ModelProto:
    """A model that takes ``frames`` and ends in float32 ``outputs``, given by name with their shapes."""
    made = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", side or "h", side or "w", 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    if with_card is not None:
        write_card(model, with_card)
    return model


def node(kind: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """A node; names are separated by blanks, ``_`` is an input that is left out."""
    return helper.make_node(kind, ["" if n == "_" else n for n in inputs.split()], outputs.split(), **attributes)


def bytes_to_planes() -> list[onnx.NodeProto]:
    """``frames`` to float ``planes`` [N, 3, h, w], the transpose first, as the exporter writes it."""
    return [
        node("Transpose", "frames", "turned", perm=[0, 3, 1, 2]),
        node("Cast", "turned", "planes", to=TensorProto.FLOAT),
    ]


def mixed_network(rng: np.random.Generator, side: int | None = 16) -> onnx.ModelProto:
    """Scaling, convolutions with a Clip, a Resize by scales, a ConstantOfShape and a softmax-like end.

    The convolutions' results are large and close together, so that what follows them needs float32.
    """
    nodes = [
        *bytes_to_planes(),
        node("Sub", "planes mean", "centred"),
        node("Mul", "centred factor", "unit"),
        node("Conv", "unit w1 b1", "c1", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Clip", "c1 low high", "a1"),
        node("Shape", "a1", "a1_shape"),
        node("ConstantOfShape", "a1_shape", "ones", value=numpy_helper.from_array(np.ones(1, np.float32))),
        node("Add", "a1 ones", "a2"),
        node("Resize", "a2 _ scales", "up", mode="linear"),
        node("Cast", "up", "again", to=TensorProto.FLOAT),
        node("ConvTranspose", "again w2", "c2", strides=[1, 1]),
        node("Conv", "c2 w3 b3", "c3"),
        node("Mul", "c3 thousand", "large"),
        node("Sub", "large thousand", "class_logits"),
    ]
    normal = rng.standard_normal
    constants = {
        "mean": np.float32(127),
        "factor": np.float32(1 / 128),
        "w1": normal((8, 3, 3, 3)).astype(np.float32) / 5,
        "b1": normal(8).astype(np.float32),
        "low": np.float32(0),
        "high": np.float32(6),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "w2": normal((8, 8, 1, 1)).astype(np.float32) / 3,
        "w3": normal((3, 8, 1, 1)).astype(np.float32) / 3,
        "b3": normal(3).astype(np.float32),
        "thousand": np.float32(1000),
    }
    return graph(nodes, constants, {"class_logits": ["N", 3, side, side]}, side=side)


def detector(
    rng: np.random.Generator, rows: int = 64, classes: int = 4, side: int = 16, free: bool = False, opset: int = 17
) -> onnx.ModelProto:
    """``boxes`` [N, rows, 4] and ``scores`` [N, rows, classes] in 0..1; all scores of a frame differ.

    With ``free`` the size is, and so is the number of rows: ``rows`` at ``side``.
    """
    parts = rows // (side // 2) ** 2
    nodes = [
        *bytes_to_planes(),
        node("Mul", "planes factor", "unit"),
        node("Conv", "unit wb", "cb", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "unit ws", "cs", kernel_shape=[2, 2], strides=[2, 2]),
        node("Reshape", "cb flat4", "rb"),
        node("Reshape", "cs flatc", "rs"),
        node("Transpose", "rb", "boxes", perm=[0, 2, 1]),
        node("Transpose", "rs", "ts", perm=[0, 2, 1]),
        node("Sigmoid", "ts", "scores"),
    ]
    constants = {
        "factor": np.float32(1 / 255),
        "wb": rng.standard_normal((4 * parts, 3, 2, 2)).astype(np.float32),
        "ws": rng.standard_normal((classes * parts, 3, 2, 2)).astype(np.float32),
        "flat4": np.array([0, 4, -1 if free else rows]),
        "flatc": np.array([0, classes, -1 if free else rows]),
    }
    k = "K" if free else rows
    outputs = {"boxes": ["N", k, 4], "scores": ["N", k, classes]}
    return graph(nodes, constants, outputs, side=None if free else side, opset=opset)
