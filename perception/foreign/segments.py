"""Behind a foreign segmenter or classifier: from its own output conventions to ``class_logits``, ``probabilities``."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from perception.foreign.adapter import ForeignCard
from perception.foreign.graph import Graph

_TRANSPARENT = ("Identity", "Cast", "Squeeze", "Unsqueeze")
"""Operations between an argmax and the output that leave class ids as they are."""


def adapt_logits(graph: Graph, card: ForeignCard, batch: int | str) -> None:
    """Add the output ``class_logits`` ``[N, C, h, w]``.

    Raises:
        ModelError: the output that the card describes is not the one that the graph has.
    """
    spec, task = card.adapter.segmentation, card.segmentation
    assert spec is not None and task is not None
    classes = len(task.classes)
    total = classes + (spec.background is not None)
    if spec.background is not None and not -total <= spec.background < total:
        raise graph.fault(f"adapter.segmentation.background {spec.background} is none of the {total} channels")
    name = graph.output(spec.output, "adapter.segmentation.output")
    axis = 1 if spec.layout == "NCHW" else 3
    if spec.values == "class_ids":
        found = _before_argmax(graph, name, total)
        if found is None:
            if spec.background is not None:
                raise graph.fault(f"output {name!r} has ids and no logits that a background could be removed from")
            logits = _one_hot(graph, graph.with_batch(name, 3, batch), classes, axis)
            graph.set_output(task.output, logits, [batch, classes, "rows", "columns"])
            return
        name, axis = found
    else:
        name = graph.with_batch(name, 4, batch)
    channels = 1 if spec.values == "binary" else total
    shape = graph.shape(name)
    if shape is not None and (len(shape) != 4 or shape[axis] not in (channels, None)):
        where = "[N, {}, h, w]" if axis == 1 else "[N, h, w, {}]"
        raise graph.fault(
            f"tensor {name!r} is {list(shape)}; {spec.values} of {classes} classes are {where.format(channels)}"
        )
    if axis == 1:
        name = _before_enlargement(graph, name)
    logits = graph.add("Transpose", name, perm=[0, 3, 1, 2]) if axis == 3 else name
    if spec.background is not None:
        kept = [i for i in range(total) if i != spec.background % total]
        logits = graph.add("Gather", logits, graph.constant(kept, np.int64), axis=1)
    if spec.values == "binary":
        logits = graph.cast(logits)
        # the first class is as likely everywhere as the threshold says
        nothing = graph.add("Mul", logits, graph.constant(0))
        level = graph.add("Add", nothing, graph.constant(spec.threshold))
        logits = graph.add("Concat", level, logits, axis=1)
    graph.set_output(task.output, logits, [batch, classes, "rows", "columns"])


def adapt_probabilities(graph: Graph, card: ForeignCard, batch: int | str) -> None:
    """Add the output ``probabilities`` ``[N, C]``.

    Raises:
        ModelError: the output that the card describes is not the one that the graph has.
    """
    spec, task = card.adapter.classification, card.classification
    assert spec is not None and task is not None
    classes = len(task.classes)
    name = graph.with_batch(graph.output(spec.output, "adapter.classification.output"), 2, batch)
    shape = graph.shape(name)
    if shape is not None and (len(shape) < 2 or shape[1] not in (classes, None)):
        raise graph.fault(f"output {name!r} is {list(shape)}; {classes} classes are [N, {classes}]")
    values = graph.cast(name)
    if shape is None or len(shape) != 2:
        values = graph.reshape(values, 0, classes)
    if spec.activation == "softmax":
        values = graph.add("Softmax", values, axis=1)
    elif spec.activation == "sigmoid":
        values = graph.add("Sigmoid", values)
    graph.set_output(task.output, values, [batch, classes])


def _one_hot(graph: Graph, name: str, classes: int, axis: int) -> str:
    """1 for the class that each pixel has and 0 for the others, ``[N, C, h, w]``."""
    shape = graph.shape(name)
    ids = graph.cast(name, TensorProto.INT32)
    if shape is not None and len(shape) == 4:
        if shape[axis] not in (1, None):
            raise graph.fault(f"output {name!r} is {list(shape)}; class ids have one channel at most")
        if axis == 3:
            ids = graph.add("Transpose", ids, perm=[0, 3, 1, 2])
    elif shape is None or len(shape) == 3:
        # [N, h, w] to [N, 1, h, w] without knowing h and w: Unsqueeze has changed its form since opset 11
        sizes = graph.add("Shape", ids)
        parts = [graph.constant(part, np.int64) for part in ([0], [1], [1], [3])]
        first = graph.add("Slice", sizes, parts[0], parts[1])
        last = graph.add("Slice", sizes, parts[2], parts[3])
        ids = graph.add("Reshape", ids, graph.add("Concat", first, graph.constant([1], np.int64), last, axis=0))
    else:
        raise graph.fault(f"output {name!r} is {list(shape)}; class ids are [N, h, w] or [N, 1, h, w]")
    return graph.cast(graph.add("Equal", ids, graph.constant(np.arange(classes).reshape(1, -1, 1, 1), np.int32)))


def _before_argmax(graph: Graph, name: str, classes: int) -> tuple[str, int] | None:
    """Find the logits whose argmax gives the class ids, and their channel axis (1 or 3), if the graph has them."""
    node = graph.producer(name)
    while node is not None and node.op_type in _TRANSPARENT:
        node = graph.producer(node.input[0])
    if node is None or node.op_type != "ArgMax":
        return None
    shape = graph.shape(node.input[0])
    axis = _attributes(node).get("axis", 0)
    if shape is None or len(shape) != 4 or axis % 4 not in (1, 3) or shape[axis] != classes:
        return None
    return node.input[0], axis % 4


def _before_enlargement(graph: Graph, name: str) -> str:
    """Find the tensor that the last node enlarges, if it does so as post-processing would: bilinear, half pixel."""
    node = graph.producer(name)
    while node is not None and node.op_type == "Identity":
        node = graph.producer(node.input[0])
    if node is None or node.op_type != "Resize":
        return name
    attributes = _attributes(node)
    where = attributes.get("coordinate_transformation_mode", b"half_pixel")
    before, after = graph.shape(node.input[0]), graph.shape(node.output[0])
    if attributes.get("mode") != b"linear" or where not in (b"half_pixel", b"pytorch_half_pixel"):
        return name
    if before is None or after is None or before[1] != after[1]:
        return name
    if any(a is None or b is None or a > b for a, b in zip(before[2:], after[2:], strict=True)):
        return name
    return node.input[0]


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}
