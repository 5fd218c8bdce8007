"""Boxes of one picture against the truth: which are right, wrong and missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.drawing.canvas import BgrCanvas
from perception.drawing.text import label_patch, text_height
from perception.evaluation.classes import ClassMatch
from perception.evaluation.coco import BoxedImage, CocoFile
from perception.types import F32, U8, Detections

OVERLAP = 0.5
"""Least IoU of a box that finds an object."""

IGNORED = -1
"""Stands for the class of boxes that count for nothing, whatever is found there."""

_WRONG, _GRAY = (40, 40, 230), (128, 128, 128)  # BGR


@dataclass(frozen=True)
class BoxTruth:
    """Pictures with boxes, and what their classes are to a model.

    Attributes:
        file: the pictures.
        match: the classes that are evaluated.
        in_truth: evaluated class by category id, or `IGNORED`; boxes of other categories are left out.
        min_score: boxes that a detector made with a lower score are ignored.
    """

    file: CocoFile
    match: ClassMatch
    in_truth: Mapping[int, int]
    min_score: float = 0.0

    def of(self, image: BoxedImage) -> BoxedImage:
        """Return a picture with evaluated classes as category ids; what is ignored is a crowd."""
        keep = np.array([i in self.in_truth for i in image.category_ids.tolist()], np.bool_)
        ids = np.array([self.in_truth[i] for i in image.category_ids[keep].tolist()], np.int64)
        ids[image.scores[keep] < self.min_score] = IGNORED
        return BoxedImage(
            image.id, image.path, image.width, image.height, image.boxes[keep], ids,
            image.crowd[keep] | (ids == IGNORED), image.areas[keep], image.scores[keep],
        )  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """One picture.

    Attributes:
        confusion: int64 ``[K + 1, K + 1]``: rows are the truth, the last is "nothing there"; columns are what was
            found, the last is "missed".
        found: bool ``[M]``: objects that have a box of their class; crowds count as found.
        right: bool ``[N]``: boxes on an object of their class, or in a crowd.
    """

    confusion: NDArray[np.int64]
    found: NDArray[np.bool_]
    right: NDArray[np.bool_]

    @property
    def missed(self) -> int:
        """Objects without a box of their class."""
        return int((~self.found).sum())

    @property
    def wrong(self) -> int:
        """Boxes without an object of their class."""
        return int((~self.right).sum())

    @property
    def mistakes(self) -> int:
        """Both together."""
        return self.missed + self.wrong


def compare(truth: BoxedImage, predicted: Detections, classes: int) -> Comparison:
    """Pair boxes with objects, the best score first: each takes the object that it overlaps most and nobody has taken.

    Objects of its own class come first; an object of another class is taken only if there is none. A box that is
    left over and lies in a crowd of its class is neither right nor wrong: it is not counted.

    Args:
        truth: ``category_ids`` are below ``classes``, or `IGNORED`.
        predicted: of the same picture, class ids below ``classes``.
        classes: number of classes K.
    """
    confusion = np.zeros((classes + 1, classes + 1), np.int64)
    objects = np.flatnonzero(~truth.crowd)
    crowds = np.flatnonzero(truth.crowd)
    overlaps = box_iou(predicted.boxes, truth.boxes[objects])
    inside = share_inside(predicted.boxes, truth.boxes[crowds])
    taken = np.full(len(truth.boxes), -1)
    right = np.zeros(len(predicted), np.bool_)
    same = (predicted.class_ids[:, None] == truth.category_ids[None, :]) | (truth.category_ids == IGNORED)
    for own in (True, False):
        for n in np.argsort(-predicted.scores, kind="stable").tolist():
            if right[n] or (not own and (taken == n).any()):
                continue
            free = (overlaps[n] >= OVERLAP) & (taken[objects] < 0) & (same[n, objects] == own)
            if free.any():
                taken[objects[np.where(free, overlaps[n], -1).argmax()]] = n
                right[n] = own
    for m in objects.tolist():
        confusion[truth.category_ids[m], classes if taken[m] < 0 else predicted.class_ids[taken[m]]] += 1
    for n in range(len(predicted)):
        if (taken == n).any():
            continue
        if (inside[n, same[n, crowds]] >= OVERLAP).any():
            right[n] = True
        else:
            confusion[classes, predicted.class_ids[n]] += 1
    own_box = taken >= 0
    own_box[own_box] = predicted.class_ids[taken[own_box]] == truth.category_ids[own_box]
    return Comparison(confusion, own_box | truth.crowd, right)


def box_iou(a: F32, b: F32) -> NDArray[np.float64]:
    """Intersection over union ``[N, M]`` of boxes ``[N, 4]`` and ``[M, 4]`` xyxy."""
    common = _intersection(a, b)
    union = _area(a)[:, None] + _area(b)[None, :] - common
    return common / np.maximum(union, 1e-12)


def share_inside(a: F32, b: F32) -> NDArray[np.float64]:
    """Part of each box ``[N, 4]`` that is inside each of ``[M, 4]``, ``[N, M]``."""
    return _intersection(a, b) / np.maximum(_area(a)[:, None], 1e-12)


def _intersection(a: F32, b: F32) -> NDArray[np.float64]:
    low = np.maximum(a[:, None, :2], b[None, :, :2]).astype(np.float64)
    high = np.minimum(a[:, None, 2:], b[None, :, 2:]).astype(np.float64)
    return np.asarray((high - low).clip(0).prod(2))


def _area(boxes: F32) -> NDArray[np.float64]:
    return np.asarray((boxes[:, 2:].astype(np.float64) - boxes[:, :2]).prod(1))


def draw_comparison(
    picture: U8,
    truth: BoxedImage,
    predicted: Detections,
    comparison: Comparison,
    names: Sequence[str],
    colors: Sequence[tuple[int, int, int]],
) -> tuple[U8, U8]:
    """Draw the true boxes, and the predicted ones, each on a copy; what is missed or wrong is dashed and red.

    Args:
        picture: uint8 ``[H, W, 3]`` BGR; only read.
        truth, predicted, comparison: see `compare`.
        names, colors: of the classes; RGB.
    """
    bgr = [color[::-1] for color in colors]
    left, right = (BgrCanvas(picture.copy()) for _ in range(2))
    for m, box in enumerate(truth.boxes):
        k = int(truth.category_ids[m])
        if k == IGNORED:
            _draw(left, box, "not counted", _GRAY, True)
            continue
        text = f"{names[k]} (crowd)" if truth.crowd[m] else names[k]
        _draw(left, box, text, bgr[k], bool(comparison.found[m]))
    for n in reversed(range(len(predicted))):  # the best is drawn last, over the others
        k = int(predicted.class_ids[n])
        text = f"{names[k]} {predicted.scores[n]:.0%}"
        _draw(right, predicted.boxes[n], text, bgr[k], bool(comparison.right[n]))
    return left.image, right.image


def _draw(canvas: BgrCanvas, box: F32, text: str, color: tuple[int, int, int], good: bool) -> None:
    x0, y0, x1, y1 = np.rint(box).astype(int).tolist()
    if good:
        cv2.rectangle(canvas.image, (x0, y0), (x1 - 1, y1 - 1), color, 2)
    else:
        for x in range(x0, x1, 12):
            for y in (y0, y1 - 2):
                canvas.fill(x, y, min(x + 7, x1), y + 2, _WRONG)
        for y in range(y0, y1, 12):
            for x in (x0, x1 - 2):
                canvas.fill(x, y, x + 2, min(y + 7, y1), _WRONG)
    patch = label_patch(text, color if good else _WRONG, text_height(canvas.width, canvas.height), canvas.width)
    y = y0 - patch.height if y0 >= patch.height else y0
    canvas.paste(patch, min(max(x0, 0), max(canvas.width - patch.width, 0)), y)
