"""Average precision of detections on pictures of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perception.evaluation.precision import Truth, coco_precision
from perception.training.data.boxes import BoxLabels
from perception.types import Detections


@dataclass(frozen=True)
class AveragePrecision:
    """Average precision as COCO defines it.

    Attributes:
        map: mean over IoU thresholds 0.5 to 0.95 and over the classes that occur.
        map50: mean at IoU 0.5.
        ap: for each class ``[C]``, over the thresholds; NaN for a class that never occurs.
        ap50: for each class ``[C]``, at IoU 0.5.
    """

    map: float
    map50: float
    ap: NDArray[np.float64]
    ap50: NDArray[np.float64]


def average_precision(found: Sequence[Detections], truth: Sequence[BoxLabels], classes: int) -> AveragePrecision:
    """Compute the precision of what was found on some pictures, as COCO defines it.

    Args:
        found: detections of each picture, in pixels of the picture.
        truth: what is there; ignored regions count neither way, for any class.
        classes: number of classes C; ids are below it.
    """
    ids = np.concatenate([labels.class_ids for labels in truth])
    present = np.unique(ids[ids >= 0])
    if not len(present):
        nothing = np.full(classes, np.nan)
        return AveragePrecision(0.0, 0.0, nothing, nothing)
    precision, _ = coco_precision([_truth(labels, classes) for labels in truth], found, classes)
    precision = np.where(np.isin(np.arange(classes), present), precision, np.nan)
    ap, ap50 = precision.mean((0, 1)), precision[0].mean(0)
    return AveragePrecision(float(ap[present].mean()), float(ap50[present].mean()), ap, ap50)


def _truth(labels: BoxLabels, classes: int) -> Truth:
    """COCO's crowds belong to a class: an ignored region becomes one of each."""
    crowd = labels.class_ids < 0
    boxes = np.concatenate((labels.boxes[~crowd], np.repeat(labels.boxes[crowd], classes, 0)))
    ids = np.concatenate((labels.class_ids[~crowd], np.tile(np.arange(classes), int(crowd.sum()))))
    wide = boxes.astype(np.float64)
    return boxes, ids, np.arange(len(boxes)) >= int((~crowd).sum()), (wide[:, 2:] - wide[:, :2]).prod(1)
