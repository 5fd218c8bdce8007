"""Confusion matrix and what follows from it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numba.core import types
from numpy.typing import NDArray

from perception.common.jit import kernel

_U8_IN = types.Array(types.uint8, 1, "C", readonly=True)
_BOOL_IN = types.Array(types.boolean, 1, "C", readonly=True)
_I64_2D = types.Array(types.int64, 2, "C")

NO_CLASS = 255
"""Stands for every id that is no class: there are at most 255 classes."""


class ConfusionMatrix:
    """Counts of (true class, predicted class) over pixels.

    Args:
        classes: number of classes C, at most 255.
        ignore: ids below C whose pixels count for nothing, if there are such. Ids from C on never count.

    Attributes:
        counts: int64 ``[C, C]``, rows are the truth.
        ignored: bool ``[C]``.
    """

    def __init__(self, classes: int, ignore: Collection[int] = ()) -> None:
        if not 1 <= classes <= NO_CLASS:
            raise ValueError(f"a confusion matrix must have 1 to {NO_CLASS} classes, not {classes}")
        self.counts = np.zeros((classes, classes), np.int64)
        self.ignored = np.isin(np.arange(classes), list(ignore))
        self._counted = np.zeros(256, np.bool_)
        self._counted[:classes] = ~self.ignored

    def add(self, predicted: NDArray[np.integer], truth: NDArray[np.integer]) -> None:
        """Count one picture; pixels whose true id is not a class, or is ignored, are skipped.

        Args:
            predicted: class ids, any shape; below ``C`` wherever the truth counts.
            truth: class ids of the same shape.

        Raises:
            ValueError: the shapes differ, or a predicted id is not a class. Nothing is counted then.
        """
        if predicted.shape != truth.shape:
            raise ValueError(f"predicted {predicted.shape} and truth {truth.shape} differ in shape")
        counts = np.zeros_like(self.counts)
        wrong = _count(_as_bytes(predicted), _as_bytes(truth), self._counted, counts)
        if wrong:
            raise ValueError(f"{wrong} predicted ids are not below {len(self.counts)}, the number of classes")
        self.counts += counts

    def iou(self) -> NDArray[np.float64]:
        """Intersection over union ``[C]``; NaN for a class neither present nor predicted, and for an ignored one."""
        hits = np.diag(self.counts)
        union = self.counts.sum(0) + self.counts.sum(1) - hits
        return np.where((union > 0) & ~self.ignored, hits / np.maximum(union, 1), np.nan)

    def mean_iou(self) -> float:
        """Mean of ``iou`` over the classes present or predicted; 0 if there are none."""
        iou = self.iou()
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else 0.0

    def pixel_accuracy(self) -> float:
        """Share of counted pixels with the right class."""
        return float(np.diag(self.counts).sum() / max(self.counts.sum(), 1))


def _as_bytes(ids: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Ids as contiguous uint8 ``[n]``; what does not fit becomes `NO_CLASS`."""
    if ids.dtype != np.uint8:
        ids = np.where((ids < 0) | (ids > NO_CLASS), NO_CLASS, ids).astype(np.uint8)
    return np.ascontiguousarray(ids).reshape(-1)


@kernel(types.int64(_U8_IN, _U8_IN, _BOOL_IN, _I64_2D))
def _count(predicted, truth, counted, counts):  # type: ignore[no-untyped-def]
    """Add to ``counts``; returns how many counted pixels have a predicted id that is not a class."""
    classes = len(counts)
    wrong = 0
    start = 0
    n = len(truth)
    # Neighbours mostly agree: one addition for each run of equal pairs, not one after the other into the same cell.
    while start < n:
        p, t = predicted[start], truth[start]
        end = start + 1
        while end < n and predicted[end] == p and truth[end] == t:
            end += 1
        if counted[t]:
            if p < classes:
                counts[t, p] += end - start
            else:
                wrong += end - start
        start = end
    return wrong
