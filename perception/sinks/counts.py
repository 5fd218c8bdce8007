"""How many boxes of each class a frame has, as comma-separated values."""

from __future__ import annotations

from typing import Any

import numpy as np

from perception.card import ModelCard
from perception.errors import UsageError
from perception.sinks.csv import CsvSink
from perception.sinks.files import utf8
from perception.sinks.table import FRAME, ColumnType
from perception.types import Prediction, SourceInfo


class CountTable:
    """A row for each frame, also for one without boxes: ``source``, ``index``, ``time``, ``total``, then each class.

    A class of the same name as one of the first columns gets ``class`` in front: ``class total``.

    Attributes:
        columns: type of each column, in order.
    """

    def __init__(self, classes: list[str]) -> None:
        self.columns: dict[str, ColumnType] = {**FRAME, "total": "int64"}
        self._classes = len(classes)
        self.columns |= {f"class {name}" if name in self.columns else name: "int64" for name in classes}

    def rows(self, prediction: Prediction) -> list[tuple[Any, ...]]:
        """Return the row of one frame."""
        frame, found = prediction.frame, prediction.detections
        ids = np.zeros(0, np.int32) if found is None else found.class_ids
        counts = np.bincount(ids, minlength=self._classes).tolist()
        return [(utf8(frame.source).decode(), frame.index, round(frame.time, 6), len(ids), *counts)]


class CountsSink(CsvSink):
    """Writes a header and the rows of `CountTable`, as `perception.sinks.csv.CsvSink` does."""

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        if card is None or card.detection is None:
            what = "without a card" if card is None else f"{card.name} finds no boxes, so"
            raise UsageError(f"{what} there is nothing to count", self.where)
        super().open(info, card)

    def _rows_of(self, card: ModelCard | None) -> CountTable:
        assert card is not None and card.detection is not None, "open has checked it"
        return CountTable(card.detection.names)
