"""Behind a foreign detector: from its own output conventions to ``boxes`` and ``scores``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perception.foreign.adapter import BoxesOutput, ForeignCard, RowsOutput, YoloxOutput
from perception.foreign.conventions import around, class_scores, label_scores, to_pixels
from perception.foreign.graph import Graph
from perception.foreign.rows import adapt_rows


def adapt_boxes(graph: Graph, card: ForeignCard, batch: int | str) -> None:
    """Add the outputs ``boxes`` ``[N, K, 4]`` xyxy in input pixels and ``scores`` ``[N, K, C]`` in 0..1.

    Raises:
        ModelError: the outputs that the card describes are not those that the graph has.
    """
    spec, task = card.adapter.detection, card.detection
    assert spec is not None and task is not None
    classes = len(task.classes)
    width, height = card.input.width, card.input.height
    fixed = isinstance(spec, YoloxOutput) or spec.coordinates == "normalised"
    if fixed and card.input.multiple is not None:
        raise graph.fault(f"{spec.format} is decoded for one input size: leave out input.multiple")
    if isinstance(spec, YoloxOutput):
        boxes, scores = _yolox(graph, spec, card, batch)
    elif isinstance(spec, RowsOutput):
        boxes, scores = adapt_rows(graph, spec, card, batch)
    else:
        boxes, scores = _boxes_scores(graph, spec, classes, width, height)
    graph.set_output(task.boxes, boxes, [batch, "boxes", 4])
    graph.set_output(task.scores, scores, [batch, "boxes", classes])


def _yolox(graph: Graph, spec: YoloxOutput, card: ForeignCard, batch: int | str) -> tuple[str, str]:
    assert card.detection is not None
    classes, width, height = len(card.detection.classes), card.input.width, card.input.height
    rows = graph.with_batch(graph.output(spec.output, "adapter.detection.output"), 3, batch)
    shape = graph.shape(rows)
    if shape is not None and (len(shape) != 3 or shape[2] not in (5 + classes, None)):
        raise graph.fault(f"its output is {list(shape)}, expected [N, A, {5 + classes}]: 5 + {classes} classes")
    for stride in spec.strides:
        if width % stride or height % stride:
            raise graph.fault(f"the input size {width}x{height} is not a multiple of stride {stride}")
    cells, strides = _grid(spec.strides, width, height)
    if shape is not None and shape[1] not in (None, len(cells)):
        raise graph.fault(
            f"its output has {shape[1]} rows; an input of {width}x{height} with strides {spec.strides} has {len(cells)}"
        )
    rows = graph.cast(rows)
    stride_column = graph.constant(strides[None, :, None])
    offsets = graph.add("Add", graph.columns(rows, 0, 2), graph.constant(cells[None]))
    centre = graph.add("Mul", offsets, stride_column)
    size = graph.add("Mul", graph.add("Exp", graph.columns(rows, 2, 4)), stride_column)
    scores = graph.add("Mul", graph.columns(rows, 4, 5), graph.columns(rows, 5, 5 + classes))
    return around(graph, centre, size), scores


def _boxes_scores(graph: Graph, spec: BoxesOutput, classes: int, width: int, height: int) -> tuple[str, str]:
    boxes = graph.output(spec.boxes, "adapter.detection.boxes")
    shape = graph.shape(boxes)
    if shape is not None and (len(shape) not in (2, 3, 4) or shape[-1] not in (4, None)):
        raise graph.fault(
            f"output {spec.boxes!r} is {list(shape)}; boxes are [N, K, 4], [N, K, 1, 4] or [K, 4]; "
            "more columns are described by format: rows"
        )
    single = shape is not None and len(shape) == 2
    boxes = graph.cast(boxes)
    if shape is not None and len(shape) != 3:
        boxes = graph.reshape(boxes, 1 if single else 0, -1, 4)
    boxes = to_pixels(graph, spec, boxes, width, height)
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
        return boxes, label_scores(graph, spec, scores, graph.reshape(labels, *column), classes)
    return boxes, _score_matrix(graph, spec, scores, score_shape, classes, single)


def _score_matrix(
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
    return class_scores(graph, spec, scores, columns)


def _grid(strides: Sequence[int], width: int, height: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Column and row ``[A, 2]`` and stride ``[A]`` of all cells, row by row, one grid after the other."""
    cells, sizes = [], []
    for stride in strides:
        y, x = np.mgrid[: height // stride, : width // stride]
        cells.append(np.stack([x.ravel(), y.ravel()], 1))
        sizes.append(np.full(x.size, stride))
    return np.concatenate(cells).astype(np.float64), np.concatenate(sizes).astype(np.float64)
