"""What other people's boxes and scores mean: corners, normalised coordinates, labels, backgrounds.

Only additions, products and slices: engines that compute in bf16 keep such a tail of the graph in float32, whereas a
matrix product of coordinates would run in bf16 and move boxes by pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from perception.foreign.adapter import BoxesOutput, RowsOutput
from perception.foreign.graph import Graph


def to_pixels(graph: Graph, spec: BoxesOutput | RowsOutput, boxes: str, width: int, height: int) -> str:
    """Boxes xyxy in input pixels ``[N, K, 4]`` from the graph's."""
    boxes = _corners(graph, boxes, spec.corners)
    if spec.coordinates == "normalised":
        boxes = graph.add("Mul", boxes, graph.constant([[[width, height, width, height]]]))
    return boxes


def class_scores(graph: Graph, spec: BoxesOutput | RowsOutput, scores: str, columns: int | None) -> str:
    """Scores of the card's classes ``[N, K, C]`` from those of the graph, ``columns`` of them."""
    if spec.activation == "softmax":
        scores = graph.add("Softmax", scores, axis=2)
    elif spec.activation == "sigmoid":
        scores = graph.add("Sigmoid", scores)
    if spec.indices is not None:
        if columns is not None and max(spec.indices) >= columns:
            raise graph.fault(
                f"adapter.detection.indices go up to {max(spec.indices)}; the scores have {columns} columns"
            )
        return graph.add("Gather", scores, graph.constant(spec.indices, np.int64), axis=2)
    if spec.background is None or columns is None:
        return scores
    if not -columns <= spec.background < columns:
        raise graph.fault(f"adapter.detection.background is {spec.background}, and the scores have {columns} classes")
    background = spec.background % columns
    kept = [(a, b) for a, b in ((0, background), (background + 1, columns)) if a < b]
    parts = [graph.columns(scores, a, b) for a, b in kept]
    return parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=2)


def label_scores(graph: Graph, spec: BoxesOutput | RowsOutput, scores: str, labels: str, classes: int) -> str:
    """Scores ``[N, K, C]`` from one score and one label a box ``[N, K, 1]``; the other classes score nothing."""
    if spec.activation == "sigmoid":
        scores = graph.add("Sigmoid", scores)
    own: Sequence[int] = spec.indices or range(spec.first_label, spec.first_label + classes)
    ids = graph.constant([[list(own)]], np.int32)
    mine = graph.add("Equal", graph.cast(labels, TensorProto.INT32), ids)
    return graph.add("Mul", scores, graph.cast(mine))


def around(graph: Graph, centre: str, size: str) -> str:
    """Compute boxes xyxy from centres and sizes ``[N, K, 2]``."""
    half = graph.add("Mul", size, graph.constant(0.5))
    return graph.add("Concat", graph.add("Sub", centre, half), graph.add("Add", centre, half), axis=2)


def _corners(graph: Graph, boxes: str, corners: str) -> str:
    if corners == "xyxy":
        return boxes
    if corners == "yxyx":
        return graph.add("Gather", boxes, graph.constant([1, 0, 3, 2], np.int64), axis=2)
    place, size = graph.columns(boxes, 0, 2), graph.columns(boxes, 2, 4)
    if corners == "cxcywh":
        return around(graph, place, size)
    return graph.add("Concat", place, graph.add("Add", place, size), axis=2)
