"""A foreign detector with one output, each row of which is a box with all that belongs to it."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from perception.foreign.adapter import ForeignCard, RowsOutput
from perception.foreign.conventions import class_scores, label_scores, to_pixels
from perception.foreign.graph import Graph, Shape


def adapt_rows(graph: Graph, spec: RowsOutput, card: ForeignCard, batch: int | str) -> tuple[str, str]:
    """Add the nodes that make boxes ``[N, K, 4]`` xyxy in input pixels and scores ``[N, K, C]`` of rows.

    Raises:
        ModelError: the output is not as wide as the card's columns.
    """
    assert card.detection is not None
    classes = len(card.detection.classes)
    name = graph.output(spec.output, "adapter.detection.output")
    shape = graph.shape(name)
    scored = _scored(graph, spec, shape, classes)
    sizes = [_size(column, scored) for column in spec.columns]
    rows = graph.cast(_turned(graph, spec, name, shape, sum(sizes), scored))
    if "batch" in spec.columns or (shape is not None and len(shape) != 3):
        alone = "batch" in spec.columns or (shape is not None and len(shape) == 2)
        rows = graph.reshape(rows, 1 if alone else 0, -1, sum(sizes))
    parts: dict[str, str] = {}
    start = 0
    for column, size in zip(spec.columns, sizes, strict=True):
        if isinstance(column, str):
            parts[column] = graph.columns(rows, start, start + size)
        start += size
    boxes = to_pixels(graph, spec, parts["box"], card.input.width, card.input.height)
    scores = _scores(graph, spec, parts, scored, classes)
    if "objectness" in parts:
        sure = graph.add("Sigmoid", parts["objectness"]) if spec.activation == "sigmoid" else parts["objectness"]
        scores = graph.add("Mul", sure, scores)
    return _by_picture(graph, card, parts["batch"], boxes, scores, batch) if "batch" in parts else (boxes, scores)


def _scores(graph: Graph, spec: RowsOutput, parts: dict[str, str], scored: int, classes: int) -> str:
    if "classes" in parts:
        return class_scores(graph, spec, parts["classes"], scored)
    if not spec.labelled:
        return graph.add("Sigmoid", parts["score"]) if spec.activation == "sigmoid" else parts["score"]
    if spec.labels is None:
        return label_scores(graph, spec, parts["score"], parts["label"], classes)
    labels = graph.output(spec.labels, "adapter.detection.labels")
    shape = graph.shape(labels)
    alone = "batch" in spec.columns or (shape is not None and len(shape) == 1)
    return label_scores(graph, spec, parts["score"], graph.reshape(labels, 1 if alone else 0, -1, 1), classes)


def _scored(graph: Graph, spec: RowsOutput, shape: Shape | None, classes: int) -> int:
    """Number of columns of scores: the card's classes, a background, and with ``indices`` all that are left."""
    if spec.indices is None or "classes" not in spec.columns:
        return classes + (spec.background is not None)
    sides = shape or ()
    sides = {"last": sides[-1:], "second": sides[-2:-1]}.get(spec.columns_axis or "", sides[-2:])
    known = [side for side in sides if side is not None]
    if not known:
        raise graph.fault("its columns cannot be counted, which adapter.detection.indices needs")
    return min(known) - sum(_size(column, 0) for column in spec.columns)


def _size(column: str | int, scored: int) -> int:
    return column if isinstance(column, int) else {"box": 4, "classes": scored}.get(column, 1)


def _turned(graph: Graph, spec: RowsOutput, name: str, shape: Shape | None, width: int, scored: int) -> str:
    """Return the output with its columns on the last axis.

    Raises:
        ModelError: no axis is as long as the columns.
    """
    axis = spec.columns_axis
    usual = axis or ("second" if spec.format == "yolov8" else "last")
    if shape is None:
        return graph.add("Transpose", name, perm=[0, 2, 1]) if usual == "second" else name
    sides = {"last": shape[-1], "second": shape[-2]} if len(shape) in (2, 3, 4) else {}
    if len(shape) == 4 and shape[1] not in (1, None):
        sides = {}
    order = [axis] if axis else sorted(sides, key=lambda side: side != usual)
    found = [side for side in order if sides.get(side) == width] or [s for s in order if s in sides and not sides[s]]
    if not found:
        raise graph.fault(_wrong_width(spec, name, shape, width, scored))
    if found[0] == "last":
        return name
    return graph.add("Transpose", name, perm=[*range(len(shape) - 2), len(shape) - 1, len(shape) - 2])


def _wrong_width(spec: RowsOutput, name: str, shape: Shape, width: int, scored: int) -> str:
    words = {"box": "4", "classes": f"{scored} classes"}
    row = " + ".join(
        words.get(str(column), f"1 {column}" if isinstance(column, str) else str(column)) for column in spec.columns
    )
    text = f"output {name!r} is {list(shape)}; rows of {row} are [N, A, {width}] or [N, {width}, A]"
    more = min((side for side in shape[-2:] if side is not None), default=0) - width
    if more > 0:
        columns = ", ".join(map(str, [*spec.columns, more]))
        names = f"are {more} names missing in detection.classes? " if "classes" in spec.columns else ""
        text += f" ({names}columns of masks or key points are passed over with `columns: [{columns}]`)"
    return text


def _by_picture(
    graph: Graph, card: ForeignCard, index: str, boxes: str, scores: str, batch: int | str
) -> tuple[str, str]:
    """From the rows of all pictures, one after the other, to ``[N, K, ...]``: rows of others score nothing.

    An index that no picture has, such as -1 behind the last row, so counts for nothing.
    """
    if isinstance(batch, int):
        number = graph.constant(np.arange(batch).reshape(-1, 1, 1), np.int32)
        each = graph.constant([batch, 1, 1], np.int64)
    else:
        size = graph.add("Shape", card.input.name)
        pictures = graph.add("Gather", size, graph.constant(0, np.int64), axis=0)
        counted = graph.add("Range", graph.constant(0, np.int64), pictures, graph.constant(1, np.int64))
        number = graph.cast(graph.reshape(counted, -1, 1, 1), TensorProto.INT32)
        each = graph.add("Shape", number)
    mine = graph.cast(graph.add("Equal", graph.cast(index, TensorProto.INT32), number))
    return graph.add("Expand", boxes, each), graph.add("Mul", scores, mine)
