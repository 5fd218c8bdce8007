"""A card to begin with for an ONNX file that has none, told from the shapes of its graph."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_INTEGERS = (2, 3, 4, 5, 6, 7, 12, 13)  # TensorProto.UINT8 to INT64, UINT32, UINT64
_UINT8 = 2
_IMAGENET = "mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]"
_MANY_QUERIES = 1000
"""More rows than that are of anchors; fewer, with the columns last, of queries."""


@dataclass(frozen=True, slots=True)
class _Tensor:
    """Sizes of an output, 0 for those that are free."""

    shape: tuple[int, ...]
    whole: bool


@dataclass(frozen=True, slots=True)
class _Guess:
    """What a graph seems to do: the task, its section of the adapter, the number of its classes, 0 if not known."""

    task: str
    section: str
    classes: int = 0
    card: str = ""


def template(path: str | Path, model: Any) -> str:
    """Return a card to begin with, as YAML in one line: its adapter is of the format that the outputs look most like.

    Args:
        path: the file, after which it is named.
        model: its ``onnx.ModelProto``; sizes of input and classes are taken from it where they are told.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(path).stem).strip("-._") or "mine"
    width, height, last, scale = _input(model)
    guess = _guess(model, width, height)
    pixels = f"{'layout: NHWC, ' if last else ''}channels: RGB, scale: {scale}"
    if guess.task != "detection" and scale != "1":
        pixels += f", {_IMAGENET}"
    resize = "stretch" if guess.task == "classification" else "letterbox"
    known = {"detection": ["person", "car"], "segmentation": ["background", "road"]}.get(guess.task, ["cat", "dog"])
    return (
        f"{{name: {name}, licence: unknown, input: {{width: {width}, height: {height}, resize: {resize}}}, "
        f"{guess.task}: {{classes: [{', '.join(known[: guess.classes or None])}]}}, "
        f"adapter: {{input: {{{pixels}}}, {guess.task}: {{{guess.section}}}}}}}"
    )


def advice(model: Any) -> str:
    """Return a clause on what the template leaves open: how many classes there are, which card that ships may fit."""
    guess = _guess(model, *_input(model)[:2])
    parts = [f"with the names of its {guess.classes} classes"] if guess.classes > 2 else []
    parts += [f"or try `card={guess.card}`"] if guess.card else []
    return "".join(f", {part}" for part in parts)


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(d.dim_value for d in value.type.tensor_type.shape.dim)


def _input(model: Any) -> tuple[int, int, bool, str]:
    """Return width and height of the image input, whether its channels are last, and the factor of its pixels."""
    weights = {weight.name for weight in model.graph.initializer}
    for value in model.graph.input:
        shape = _shape(value)
        if value.name in weights or len(shape) not in (3, 4):
            continue
        last = shape[-1] in (1, 3) and shape[-3] not in (1, 3)
        height, width = shape[-3:-1] if last else shape[-2:]
        scale = "1" if value.type.tensor_type.elem_type == _UINT8 else "1/255"
        return (width, height, last, scale) if width and height else (640, 640, last, scale)
    return 640, 640, False, "1/255"


def _guess(model: Any, width: int, height: int) -> _Guess:
    outputs = {
        value.name: _Tensor(_shape(value), value.type.tensor_type.elem_type in _INTEGERS)
        for value in model.graph.output
    }
    alone = any(len(_shape(value)) == 3 and 3 in _shape(value)[::2] for value in model.graph.input)
    found = _boxes_and_scores(outputs) if len(outputs) > 1 else None
    if found is not None:
        return found
    for name, tensor in outputs.items():
        which = f", output: {name}" if len(outputs) > 1 else ""
        shape = (1, *tensor.shape) if alone and not tensor.whole and len(tensor.shape) in (1, 3) else tensor.shape
        guess = _of_shape(shape, tensor.whole, (width, height), masks=_masks(outputs))
        if guess is not None:
            return _Guess(guess.task, guess.section + which, guess.classes, guess.card)
    return _Guess("detection", "format: yolov8")


def _boxes_and_scores(outputs: Mapping[str, _Tensor]) -> _Guess | None:
    """Boxes and what belongs to them as outputs of their own."""
    if "dets" in outputs and "labels" in outputs and outputs["dets"].shape[-1:] == (5,):
        return _Guess("detection", "format: rows, output: dets, columns: [box, score], labels: labels")
    boxes = next((n for n, t in outputs.items() if t.shape[-1:] == (4,) and len(t.shape) in (2, 3) and not t.whole), "")
    if not boxes:
        return None
    if {"detection_boxes", "detection_scores", "detection_classes"} <= {*outputs}:
        section = "format: boxes_scores, boxes: detection_boxes, scores: detection_scores, labels: detection_classes"
        return _Guess("detection", f"{section}, first_label: 1, corners: yxyx, coordinates: normalised", card="ssd")
    rank = len(outputs[boxes].shape)
    others = {n: t for n, t in outputs.items() if n != boxes}
    matrix = next((n for n, t in others.items() if len(t.shape) == rank and not t.whole), "")
    if matrix and {boxes, matrix} == {"pred_boxes", "logits"}:
        classes = others[matrix].shape[-1]
        return _Guess("detection", "format: detr", classes, "rt-detr" if classes == 80 else "")
    if matrix:
        section = f"format: boxes_scores, boxes: {boxes}, scores: {matrix}"
        return _Guess("detection", section, others[matrix].shape[-1])
    flat = {n: t for n, t in others.items() if len(t.shape) == rank - 1}
    labels = next((n for n, t in flat.items() if t.whole or re.search("label|class", n)), "")
    scores = next((n for n, t in flat.items() if n != labels and not t.whole), "")
    if not (labels and scores):
        return None
    return _Guess("detection", f"format: boxes_scores, boxes: {boxes}, scores: {scores}, labels: {labels}")


def _masks(outputs: Mapping[str, _Tensor]) -> int:
    """Return the number of coefficients of masks in each row, where an output beside the rows has their prototypes."""
    rows = any(len(tensor.shape) == 3 for tensor in outputs.values())
    return next((t.shape[1] for t in outputs.values() if rows and len(t.shape) == 4), 0)


def _of_shape(shape: tuple[int, ...], whole: bool, size: tuple[int, int], masks: int) -> _Guess | None:
    """Guess by one output; None where it is none of a task."""
    if len(shape) == 4 and shape[:2] == (1, 1) and shape[3] == 7:
        return _Guess("detection", "format: rows, columns: [batch, label, score, box], coordinates: normalised")
    if len(shape) == 4 and not masks:
        last = 0 < shape[3] < shape[1]
        channels, layout = (shape[3], ", layout: NHWC") if last else (shape[1], "")
        if whole:
            return _Guess("segmentation", f"values: class_ids{layout}")
        if channels == 1:
            return _Guess("segmentation", f"values: binary{layout}", 2)
        return _Guess("segmentation", f"values: logits{layout}", channels, "segmenter" if channels == 21 else "")
    if len(shape) in (2, 3) and whole and shape[-1] != 1:
        return _Guess("segmentation", "values: class_ids")
    if len(shape) in (2, 3) and shape[-1] == 6:
        return _Guess("detection", "format: yolov10")
    if len(shape) == 2 and shape[-1] == 7:
        return _Guess("detection", "format: rows, columns: [batch, box, label, score]")
    if len(shape) == 2:
        return _Guess("classification", "activation: softmax", shape[1])
    if len(shape) == 3 and shape[1] and shape[2]:
        return _of_rows(shape, size, masks)
    return None


def _of_rows(shape: tuple[int, ...], size: tuple[int, int], masks: int) -> _Guess:
    rest = f", {masks}" if masks else ""
    if shape[1] < shape[2]:
        classes = shape[1] - 4 - masks
        columns = f", columns: [box, classes{rest}]" if rest else ""
        return _Guess("detection", f"format: yolov8{columns}", classes, "yolov8" if classes == 80 and not rest else "")
    cells = sum((size[0] // stride) * (size[1] // stride) for stride in (8, 16, 32))
    if shape[1] == cells and not masks:
        return _Guess("detection", "format: yolox", shape[2] - 5, "yolox" if shape[2] == 85 else "")
    if shape[1] <= _MANY_QUERIES and not masks:
        return _Guess("detection", "format: yolov8, coordinates: normalised", shape[2] - 4)
    columns = f", columns: [box, objectness, classes{rest}]" if rest else ""
    return _Guess("detection", f"format: yolov5{columns}", shape[2] - 5 - masks)
