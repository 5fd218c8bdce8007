"""Average precision of detections, through a COCO evaluator."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.training.boxes import BoxLabels
from perception.types import Detections

MAX_DETECTIONS = 100  # per picture and class, as COCO counts


@dataclass(frozen=True)
class AveragePrecision:
    """Attributes:
    map: mean over IoU thresholds 0.5 to 0.95 and over the classes that occur.
    map50: mean at IoU 0.5.
    ap: for each class ``[C]``, over the thresholds; NaN for a class that never occurs.
    ap50: for each class ``[C]``, at IoU 0.5.
    """

    map: float
    map50: float
    ap: NDArray[np.float64]
    ap50: NDArray[np.float64]


def average_precision(
    found: Sequence[Detections], truth: Sequence[BoxLabels], sizes: Sequence[tuple[int, int]], classes: int
) -> AveragePrecision:
    """Precision of what was found on some pictures.

    Args:
        found: detections of each picture, in pixels of the picture.
        truth: what is there; ignored regions count neither way, for any class.
        sizes: ``(width, height)`` of each picture.
        classes: number of classes C; ids are below it.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, (labels, detections) in enumerate(zip(truth, found, strict=True), 1):
        xywh = _xywh(labels.boxes)
        for box, class_id in zip(xywh, labels.class_ids.tolist(), strict=True):
            for category in [class_id] if class_id >= 0 else range(classes):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image,
                        "category_id": category + 1,
                        "bbox": box,
                        "area": box[2] * box[3],
                        "iscrowd": int(class_id < 0),
                    }
                )
        scores, ids = detections.scores.tolist(), detections.class_ids.tolist()
        for box, score, class_id in zip(_xywh(detections.boxes), scores, ids, strict=True):
            results.append({"image_id": image, "category_id": class_id + 1, "bbox": box, "score": score})
    nothing = np.full(classes, np.nan)
    ids_present = np.concatenate([labels.class_ids for labels in truth])
    present = np.unique(ids_present[ids_present >= 0])
    if not len(present):
        return AveragePrecision(0.0, 0.0, nothing, nothing)
    if not results:
        none = nothing.copy()
        none[present] = 0.0
        return AveragePrecision(0.0, 0.0, none, none)
    data = {
        "info": {},
        "images": [{"id": i, "width": w, "height": h} for i, (w, h) in enumerate(sizes, 1)],
        "categories": [{"id": c + 1, "name": str(c)} for c in range(classes)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(data)
        evaluator = COCOeval_faster(coco, coco.loadRes(results), "bbox", print_function=_silent)
        evaluator.params.maxDets = [1, 10, MAX_DETECTIONS]
        evaluator.evaluate()
        evaluator.accumulate()
    # [threshold, recall, class, area, detections]; -1 where a class does not occur
    precision = evaluator.eval["precision"][:, :, :, 0, -1]
    precision = np.where(precision < 0, np.nan, precision)
    ap, ap50 = nothing.copy(), nothing.copy()
    ap[present] = precision[:, :, present].mean((0, 1))
    ap50[present] = precision[0][:, present].mean(0)
    return AveragePrecision(float(ap[present].mean()), float(ap50[present].mean()), ap, ap50)


def _xywh(boxes: NDArray[np.float32]) -> list[list[float]]:
    rows: list[list[float]] = np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), 1).astype(float).tolist()
    return rows


def _silent(*_: object) -> None:
    """The evaluator's progress goes nowhere."""
