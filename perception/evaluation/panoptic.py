"""Panoptic quality (Kirillov et al., "Panoptic Segmentation", 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perception.postprocess.panoptic import Panoptic


@dataclass(frozen=True, slots=True)
class Quality:
    """Panoptic quality of a class: ``pq = sq * rq``.

    Attributes:
        matched: segments of prediction and truth whose IoU is above 0.5.
        overlap: sum of their IoU.
        false_positives, false_negatives: segments without a match, of the prediction and of the truth.
    """

    matched: int
    overlap: float
    false_positives: int
    false_negatives: int

    @property
    def sq(self) -> float:
        """Segmentation quality: mean IoU of the matched; 0 where there are none."""
        return self.overlap / self.matched if self.matched else 0.0

    @property
    def rq(self) -> float:
        """Recognition quality: F1 of the segments; NaN where there are none at all."""
        count = self.matched + 0.5 * (self.false_positives + self.false_negatives)
        return self.matched / count if count else float("nan")

    @property
    def pq(self) -> float:
        """Panoptic quality; NaN where the class has no segments at all."""
        return self.sq * self.rq


def panoptic_quality(pairs: Sequence[tuple[Panoptic, Panoptic]], classes: int) -> list[Quality]:
    """Quality of each class over all images.

    Two segments that overlap by more than half match, which at most one pair of each can. Pixels that the truth gives
    no segment count for nothing, and predicted segments that are mostly there are not held against anybody.

    Args:
        pairs: (truth, prediction) of each image.
        classes: number of classes.
    """
    matched = np.zeros(classes, np.int64)
    overlap = np.zeros(classes, np.float64)
    extra, missed = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    for truth, found in pairs:
        count = len(found.segments) + 1
        joint = np.bincount(
            (truth.ids.astype(np.int64) * count + found.ids).ravel(), minlength=(len(truth.segments) + 1) * count
        ).reshape(len(truth.segments) + 1, count)
        taken_truth, taken_found = set(), set()
        for real in truth.segments:
            for guess in found.segments:
                common = int(joint[real.id, guess.id])
                if real.class_id != guess.class_id or not common:
                    continue
                union = real.area + guess.area - common - int(joint[0, guess.id])
                if common / union > 0.5:
                    matched[real.class_id] += 1
                    overlap[real.class_id] += common / union
                    taken_truth.add(real.id)
                    taken_found.add(guess.id)
        for real in truth.segments:
            missed[real.class_id] += real.id not in taken_truth
        for guess in found.segments:
            in_void = joint[0, guess.id] > 0.5 * guess.area
            extra[guess.class_id] += guess.id not in taken_found and not in_void
    columns = (matched.tolist(), overlap.tolist(), extra.tolist(), missed.tolist())
    return [Quality(*row) for row in zip(*columns, strict=True)]
