"""Confusion matrix and what follows from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class ConfusionMatrix:
    """Counts of (true class, predicted class) over pixels.

    Attributes:
        counts: int64 ``[C, C]``, rows are the truth.
    """

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, classes), np.int64)

    def add(self, predicted: NDArray[np.integer], truth: NDArray[np.integer]) -> None:
        """Count one picture; pixels whose true id is not a class are skipped.

        Args:
            predicted: class ids, any shape, all below ``C``.
            truth: class ids of the same shape.
        """
        if predicted.shape != truth.shape:
            raise ValueError(f"predicted {predicted.shape} and truth {truth.shape} differ in shape")
        classes = len(self.counts)
        counted = truth < classes
        pairs = truth[counted].astype(np.int64) * classes + predicted[counted]
        self.counts += np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)

    def iou(self) -> NDArray[np.float64]:
        """Intersection over union ``[C]``; NaN for a class neither present nor predicted."""
        hits = np.diag(self.counts)
        union = self.counts.sum(0) + self.counts.sum(1) - hits
        return np.where(union > 0, hits / np.maximum(union, 1), np.nan)

    def mean_iou(self) -> float:
        """Mean of ``iou`` over the classes present or predicted; 0 if there are none."""
        iou = self.iou()
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else 0.0

    def pixel_accuracy(self) -> float:
        """Share of counted pixels with the right class."""
        return float(np.diag(self.counts).sum() / max(self.counts.sum(), 1))
