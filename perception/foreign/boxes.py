"""Behind a foreign detector: from its own output conventions to ``boxes`` and ``scores``.

Only additions, products and slices: engines that compute in bf16 keep such a tail of the graph in float32, whereas a
matrix product of coordinates would run in bf16 and move boxes by pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from perception.foreign.adapter import BoxesOutput, ForeignCard, YoloOutput, YoloxOutput
from perception.foreign.graph import Graph


def adapt_boxes(graph: Graph, card: ForeignCard, batch: int | str) -> None:
    """Add the outputs ``boxes`` ``[N, K, 4]`` xyxy in input pixels and ``scores`` ``[N, K, C]`` in 0..1.

    Raises:
        ModelError: the outputs that the card describes are not those that the graph has.
    """
    spec, task = card.adapter.detection, card.detection
    assert spec is not None and task is not None
    classes = len(task.classes)
    width, height = card.input.width, card.input.height
    fixed = isinstance(spec, YoloxOutput) or (isinstance(spec, BoxesOutput) and spec.coordinates == "normalised")
    if fixed and card.input.multiple is not None:
        raise graph.fault(f"{spec.format} is decoded for one input size: leave out input.multiple")
    if isinstance(spec, YoloxOutput):
        boxes, scores = _yolox(graph, spec, classes, width, height)
    elif isinstance(spec, YoloOutput):
        boxes, scores = {"yolov5": _yolov5, "yolov8": _yolov8, "yolov10": _yolov10}[spec.format](graph, spec, classes)
    else:
        boxes, scores = _boxes_scores(graph, spec, classes, width, height)
    graph.set_output(task.boxes, boxes, [batch, "boxes", 4])
    graph.set_output(task.scores, scores, [batch, "boxes", classes])


def _yolox(graph: Graph, spec: YoloxOutput, classes: int, width: int, height: int) -> tuple[str, str]:
    rows = _rows(graph, spec.output, 5 + classes, f"5 + {classes} classes")
    for stride in spec.strides:
        if width % stride or height % stride:
            raise graph.fault(f"the input size {width}x{height} is not a multiple of stride {stride}")
    cells, strides = _grid(spec.strides, width, height)
    shape = graph.shape(rows)
    if shape is not None and shape[1] not in (None, len(cells)):
        raise graph.fault(
            f"its output has {shape[1]} rows; an input of {width}x{height} with strides {spec.strides} has {len(cells)}"
        )
    rows = graph.cast(rows)
    stride_column = graph.constant(strides[None, :, None])
    offsets = graph.add("Add", graph.columns(rows, 0, 2), graph.constant(cells[None]))
    centre = graph.add("Mul", offsets, stride_column)
    size = graph.add("Mul", graph.add("Exp", graph.columns(rows, 2, 4)), stride_column)
    return _around(graph, centre, size), _with_objectness(graph, rows, classes)


def _yolov5(graph: Graph, spec: YoloOutput, classes: int) -> tuple[str, str]:
    rows = graph.cast(_rows(graph, spec.output, 5 + classes, f"5 + {classes} classes"))
    boxes = _around(graph, graph.columns(rows, 0, 2), graph.columns(rows, 2, 4))
    return boxes, _with_objectness(graph, rows, classes)


def _yolov8(graph: Graph, spec: YoloOutput, classes: int) -> tuple[str, str]:
    name = graph.output(spec.output, "adapter.detection.output")
    shape = graph.shape(name) or (None, None, None)
    if len(shape) == 3 and shape[1] in (4 + classes, None) and (shape[1] is not None or shape[2] != 4 + classes):
        rows = graph.add("Transpose", name, perm=[0, 2, 1])
    elif len(shape) == 3 and shape[2] == 4 + classes:
        rows = name
    else:
        raise graph.fault(f"its output is {list(shape)}; yolov8 has [N, 4 + {classes} classes, A]")
    rows = graph.cast(rows)
    boxes = _around(graph, graph.columns(rows, 0, 2), graph.columns(rows, 2, 4))
    return boxes, graph.columns(rows, 4, 4 + classes)


def _yolov10(graph: Graph, spec: YoloOutput, classes: int) -> tuple[str, str]:
    rows = graph.cast(_rows(graph, spec.output, 6, "left, top, right, bottom, score, class id"))
    scores = _one_class(graph, graph.columns(rows, 4, 5), graph.columns(rows, 5, 6), range(classes))
    return graph.columns(rows, 0, 4), scores


def _boxes_scores(graph: Graph, spec: BoxesOutput, classes: int, width: int, height: int) -> tuple[str, str]:
    boxes = graph.output(spec.boxes, "adapter.detection.boxes")
    shape = graph.shape(boxes)
    if shape is not None and (len(shape) not in (2, 3, 4) or shape[-1] not in (4, None)):
        raise graph.fault(f"output {spec.boxes!r} is {list(shape)}; boxes are [N, K, 4], [N, K, 1, 4] or [K, 4]")
    single = shape is not None and len(shape) == 2
    boxes = graph.cast(boxes)
    if shape is not None and len(shape) != 3:
        boxes = graph.reshape(boxes, 1 if single else 0, -1, 4)
    boxes = _corners(graph, boxes, spec)
    if spec.coordinates == "normalised":
        boxes = graph.add("Mul", boxes, graph.constant([[[width, height, width, height]]]))
    scores = graph.cast(graph.output(spec.scores, "adapter.detection.scores"))
    score_shape = graph.shape(graph.tensor(spec.scores))
    if spec.labels is not None:
        labels = graph.output(spec.labels, "adapter.detection.labels")
        for name in (spec.scores, spec.labels):
            shape = graph.shape(graph.tensor(name))
            if shape is not None and len(shape) != (1 if single else 2):
                raise graph.fault(f"output {name!r} is {list(shape)}; with labels it is [N, K], or [K] like the boxes")
        column = (1, -1, 1) if single else (0, -1, 1)
        scores = graph.reshape(scores, *column)
        if spec.activation == "sigmoid":
            scores = graph.add("Sigmoid", scores)
        own = spec.indices or range(spec.first_label, spec.first_label + classes)
        return boxes, _one_class(graph, scores, graph.reshape(labels, *column), own)
    return boxes, _class_scores(graph, spec, scores, score_shape, classes, single)


def _class_scores(
    graph: Graph, spec: BoxesOutput, scores: str, shape: tuple[int | None, ...] | None, classes: int, single: bool
) -> str:
    """Scores ``[N, K, C]`` from a matrix with or without a background and a batch."""
    columns: int | None = classes + (spec.background is not None)
    if shape is not None:
        axis = len(shape) - 1 if spec.classes_axis == "last" else len(shape) - 2
        if spec.indices is not None and len(shape) == (2 if single else 3):
            columns = shape[axis]
        if len(shape) != (2 if single else 3) or shape[axis] not in (columns, None):
            extra = " + background" if spec.background is not None else ""
            raise graph.fault(
                f"output {spec.scores!r} is {list(shape)}; the card has {classes} classes{extra}, on the "
                f"{spec.classes_axis} axis (one score a box needs adapter.detection.labels)"
            )
    if spec.classes_axis == "second":
        scores = graph.add("Transpose", scores, perm=[1, 0] if single else [0, 2, 1])
    if single:
        rows = graph.add("Shape", scores)
        scores = graph.add("Reshape", scores, graph.add("Concat", graph.constant([1], np.int64), rows, axis=0))
    if spec.activation == "softmax":
        scores = graph.add("Softmax", scores, axis=2)
    elif spec.activation == "sigmoid":
        scores = graph.add("Sigmoid", scores)
    return _own_classes(graph, spec, scores, columns)


def _own_classes(graph: Graph, spec: BoxesOutput, scores: str, columns: int | None) -> str:
    """Keep the columns of the score matrix that are classes of the card."""
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


def _rows(graph: Graph, output: str | None, columns: int, what: str) -> str:
    """Return the output of that name, if it is ``[N, A, columns]``."""
    name = graph.output(output, "adapter.detection.output")
    shape = graph.shape(name)
    if shape is not None and (len(shape) != 3 or shape[2] not in (columns, None)):
        raise graph.fault(f"its output is {list(shape)}, expected [N, A, {columns}]: {what}")
    return name


def _corners(graph: Graph, boxes: str, spec: BoxesOutput) -> str:
    if spec.corners == "xyxy":
        return boxes
    if spec.corners == "yxyx":
        return graph.add("Gather", boxes, graph.constant([1, 0, 3, 2], np.int64), axis=2)
    place, size = graph.columns(boxes, 0, 2), graph.columns(boxes, 2, 4)
    if spec.corners == "cxcywh":
        return _around(graph, place, size)
    return graph.add("Concat", place, graph.add("Add", place, size), axis=2)


def _around(graph: Graph, centre: str, size: str) -> str:
    """Compute boxes xyxy from centres and sizes ``[N, K, 2]``."""
    half = graph.add("Mul", size, graph.constant(0.5))
    return graph.add("Concat", graph.add("Sub", centre, half), graph.add("Add", centre, half), axis=2)


def _with_objectness(graph: Graph, rows: str, classes: int) -> str:
    return graph.add("Mul", graph.columns(rows, 4, 5), graph.columns(rows, 5, 5 + classes))


def _one_class(graph: Graph, scores: str, labels: str, own: Sequence[int]) -> str:
    """Build a score matrix ``[N, K, C]`` from one score and one label a box ``[N, K, 1]``; others score nothing."""
    ids = graph.constant([[list(own)]], np.int32)
    mine = graph.add("Equal", graph.cast(labels, TensorProto.INT32), ids)
    return graph.add("Mul", scores, graph.cast(mine))


def _grid(strides: Sequence[int], width: int, height: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Column and row ``[A, 2]`` and stride ``[A]`` of all cells, row by row, one grid after the other."""
    cells, sizes = [], []
    for stride in strides:
        y, x = np.mgrid[: height // stride, : width // stride]
        cells.append(np.stack([x.ravel(), y.ravel()], 1))
        sizes.append(np.full(x.size, stride))
    return np.concatenate(cells).astype(np.float64), np.concatenate(sizes).astype(np.float64)
