"""How far scores of boxes are from the chance that their boxes are right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perception.evaluation.boxes import IGNORED, OVERLAP, box_iou, share_inside
from perception.evaluation.coco import BoxedImage
from perception.types import Detections

BINS = 10
LEAST_SCORE = 0.1
"""Boxes with a lower score are not looked at: there are thousands, nearly all wrong, and nobody sees them."""


def counted_boxes(
    pairs: Sequence[tuple[BoxedImage, Detections]], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Say of each box that was found whether it is right: over an object of its class, each of which counts once.

    Each takes, the best score first, the object of its class that it overlaps most and that nobody has taken. Boxes
    that are left over, in a crowd or an ignored region, are neither right nor wrong and are not among them.

    Args:
        pairs: what is there in each picture and what was found.
        classes: number of classes; ids are below it.

    Returns:
        Scores ``[N]``, and whether the box is right ``[N]``.
    """
    scores: list[float] = []
    right: list[bool] = []
    for truth, found in pairs:
        objects, crowds = np.flatnonzero(~truth.crowd), np.flatnonzero(truth.crowd)
        overlaps = box_iou(found.boxes, truth.boxes)
        inside = share_inside(found.boxes, truth.boxes)
        taken = np.zeros(len(truth.boxes), np.bool_)
        for n in np.argsort(-found.scores, kind="stable").tolist():
            own = objects[truth.category_ids[objects] == found.class_ids[n]]
            free = own[~taken[own] & (overlaps[n, own] >= OVERLAP)]
            if len(free):
                taken[free[overlaps[n, free].argmax()]] = True
            else:
                about = crowds[np.isin(truth.category_ids[crowds], (found.class_ids[n], IGNORED))]
                if (inside[n, about] >= OVERLAP).any():
                    continue
            scores.append(float(found.scores[n]))
            right.append(bool(len(free)))
    return np.array(scores, np.float64), np.array(right, np.bool_)


def calibration_error(
    scores: NDArray[np.float64], right: NDArray[np.bool_], least: float = LEAST_SCORE, bins: int = BINS
) -> float:
    """Expected calibration error (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).

    The scores are put into ``bins`` of equal width; the error is the mean, over boxes, of the distance between the mean
    score of a bin and the share of its boxes that are right.

    Args:
        scores: ``[N]`` in 0..1.
        right: ``[N]``.
        least: lower scores are left out.
        bins: how many.

    Returns:
        The error in 0..1; NaN without a box.
    """
    kept = scores >= least
    scores, right = scores[kept], right[kept]
    if not len(scores):
        return float("nan")
    number = np.minimum((scores * bins).astype(np.int64), bins - 1)
    apart = np.bincount(number, scores, bins) - np.bincount(number, right, bins)
    return float(np.abs(apart).sum() / len(scores))


def error_by_chance(scores: NDArray[np.float64], least: float = LEAST_SCORE, bins: int = BINS) -> float:
    """Return the error that scores without fault are expected to have, for there are so few boxes: a mean of 100 draws.

    Args:
        scores, least, bins: as of `calibration_error`.
    """
    draw = np.random.default_rng(0)
    errors = [calibration_error(scores, draw.random(len(scores)) < scores, least, bins) for _ in range(100)]
    return float(np.mean(errors))
