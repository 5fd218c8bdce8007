"""The target of an explanation: one number of a model's outputs."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from perception.card import ModelCard
from perception.errors import UsageError
from perception.picture.letterbox import Letterbox


@dataclass(frozen=True)
class Target:
    """The number that is explained.

    Attributes:
        what: of what, in words: ``car at (120, 80)``.
        score: the model's outputs to one number for each image, ``[N]``.
        box: xyxy in input pixels of the detection that is explained, or None.
    """

    what: str
    score: Callable[[Mapping[str, Tensor]], Tensor]
    box: tuple[float, float, float, float] | None = None


def choose_target(
    card: ModelCard,
    outputs: Mapping[str, Tensor],
    letterbox: Letterbox,
    class_name: str | None = None,
    at: tuple[float, float] | None = None,
    task: str | None = None,
) -> Target:
    """Choose the number to explain, of a model's outputs for one image.

    Args:
        card: of the model.
        outputs: of `perception.explain.graph.GraphNetwork`.
        letterbox: how the frame lies in the input.
        class_name: the class; None takes the one that the model is surest of (at the point, if there is one).
        at: a point (x, y) in frame pixels: the pixel whose class, or the object whose box, is explained. None takes
            all pixels that have the class, or its surest box.
        task: ``classification``, ``detection`` or ``segmentation``; None takes the first that the model does (and that
            has the class).

    Raises:
        UsageError: the model does not do that, does not have the class, or finds no pixel or box of it.
    """
    tasks = [name for name in ("classification", "detection", "segmentation") if name in card.tasks]
    if task is not None:
        if task not in tasks:
            raise UsageError(f"{card.name} does not do {task}, only {', '.join(tasks)}")
        tasks = [task]
    named = [t for t in tasks if class_name is None or class_name in getattr(card, t).names]
    if not named:
        known = list(dict.fromkeys(n for t in tasks for n in getattr(card, t).names))
        near = difflib.get_close_matches(str(class_name), known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(known)}"
        raise UsageError(f"{card.name} has no class {class_name!r}; {hint}")
    point = None
    if at is not None:
        if not (0 <= at[0] < letterbox.frame_width and 0 <= at[1] < letterbox.frame_height):
            size = f"{letterbox.frame_width}x{letterbox.frame_height}"
            raise UsageError(f"the point {at[0]:g},{at[1]:g} is outside the picture of {size}")
        x = letterbox.left + at[0] * letterbox.width / letterbox.frame_width
        y = letterbox.top + at[1] * letterbox.height / letterbox.frame_height
        point = (x, y)
    chosen = named[0]
    if chosen == "classification":
        return _class(card, outputs, class_name)
    if chosen == "detection":
        return _box(card, outputs, class_name, point)
    return _pixels(card, outputs, class_name, point, letterbox)


def _class(card: ModelCard, outputs: Mapping[str, Tensor], class_name: str | None) -> Target:
    task = card.classification
    assert task is not None
    name = f"{task.output}/logits" if f"{task.output}/logits" in outputs else task.output
    index = int(outputs[task.output][0].argmax()) if class_name is None else task.names.index(class_name)
    sure = float(outputs[task.output][0, index])
    return Target(f"{task.names[index]} ({sure:.0%})", lambda results: results[name][:, index])


def _box(
    card: ModelCard, outputs: Mapping[str, Tensor], class_name: str | None, point: tuple[float, float] | None
) -> Target:
    task = card.detection
    assert task is not None
    boxes, scores = outputs[task.boxes][0], outputs[task.scores][0]
    wanted = scores if class_name is None else scores[:, [task.names.index(class_name)]]
    if point is not None:
        x, y = point
        inside = (boxes[:, 0] <= x) & (boxes[:, 1] <= y) & (boxes[:, 2] >= x) & (boxes[:, 3] >= y)
        if not inside.any():
            raise UsageError(f"{card.name} has no box around that point")
        wanted = torch.where(inside[:, None], wanted, -1.0)
    place, column = divmod(int(wanted.argmax()), wanted.shape[1])
    index = column if class_name is None else task.names.index(class_name)
    box = tuple(float(v) for v in boxes[place])
    score = float(scores[place, index])
    return Target(
        f"{task.names[index]} box ({score:.2f})",
        lambda results: results[task.scores][:, place, index],
        (box[0], box[1], box[2], box[3]),
    )


def _pixels(
    card: ModelCard,
    outputs: Mapping[str, Tensor],
    class_name: str | None,
    point: tuple[float, float] | None,
    letterbox: Letterbox,
) -> Target:
    task = card.segmentation
    assert task is not None
    logits = outputs[task.output][0]
    height, width = logits.shape[1:]
    class_ids = logits.argmax(0)
    if point is not None:
        row = min(int(point[1] * height / letterbox.input_height), height - 1)
        column = min(int(point[0] * width / letterbox.input_width), width - 1)
        index = int(class_ids[row, column]) if class_name is None else task.names.index(class_name)
        return Target(f"{task.names[index]} at the point", lambda results: results[task.output][:, index, row, column])
    shares = torch.bincount(class_ids.flatten(), minlength=len(task.names))
    index = int(shares.argmax()) if class_name is None else task.names.index(class_name)
    pixels = (class_ids == index).float()
    if not pixels.any():
        raise UsageError(f"{card.name} finds no {task.names[index]} in this picture; give a point: `at=X,Y`")
    share = float(pixels.mean())
    return Target(
        f"{task.names[index]} ({share:.0%} of the pixels)",
        lambda results: (results[task.output][:, index] * pixels).sum((1, 2)) / pixels.sum(),
    )
