"""Predictions as rows, for the formats that are tables."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import numpy as np

from perception.card import ModelCard
from perception.sinks.files import utf8
from perception.sinks.names import ClassNames
from perception.types import Prediction

ColumnType = Literal["int64", "int32", "float64", "float32", "string"]

FRAME: dict[str, ColumnType] = {"source": "string", "index": "int64", "time": "float64"}
_CLASS: dict[str, ColumnType] = {"class_id": "int32", "class": "string"}


class Rows(Protocol):
    """What predictions become in a table: the type of each column by its name, in order, and the rows of a frame."""

    columns: dict[str, ColumnType]

    def rows(self, prediction: Prediction) -> list[tuple[Any, ...]]: ...


class Table:
    """The rows that a model's predictions make, by the first of its tasks:

    - detection: a row a box, with ``x1, y1, x2, y2`` (pixels), ``score``, ``class_id``, ``class``, ``track_id``;
    - segmentation: a row for each frame and class that has pixels, with ``class_id``, ``class``, ``share``;
    - classification: a row for each frame and label, with ``class_id``, ``class``, ``probability``.

    Each row begins with ``source``, ``index`` and ``time`` (seconds) of its frame. Without a card, rows are boxes.

    Attributes:
        columns: type of each column, in order.
    """

    def __init__(self, card: ModelCard | None) -> None:
        self._names = ClassNames(card)
        task = card.tasks if card else ["detection"]
        if "detection" in task:
            self._task = "detection"
            own: dict[str, ColumnType] = {"x1": "float32", "y1": "float32", "x2": "float32", "y2": "float32"}
            own |= {"score": "float32", **_CLASS, "track_id": "int64"}
        elif "segmentation" in task:
            self._task = "segmentation"
            own = {**_CLASS, "share": "float32"}
        else:
            self._task = "classification"
            own = {**_CLASS, "probability": "float32"}
        self.columns: dict[str, ColumnType] = {**FRAME, **own}

    def rows(self, prediction: Prediction) -> list[tuple[Any, ...]]:
        """Return the rows of one frame, each with a value (or None) for each column."""
        frame = prediction.frame
        head = (utf8(frame.source).decode(), frame.index, round(frame.time, 6))
        if self._task == "detection":
            return [(*head, *row) for row in self._boxes(prediction)]
        if self._task == "segmentation":
            if prediction.class_map is None:
                return []
            shares = np.round(prediction.class_map.shares.astype(np.float64), 6).tolist()
            return [(*head, i, self._names.segment(i), share) for i, share in enumerate(shares) if share > 0]
        return [(*head, i, self._names.image_class(i), round(float(p), 4)) for i, p in prediction.labels or []]

    def _boxes(self, prediction: Prediction) -> list[tuple[Any, ...]]:
        found = prediction.detections
        if found is None or not len(found):
            return []
        boxes = np.round(found.boxes.astype(np.float64), 2).tolist()
        scores = np.round(found.scores.astype(np.float64), 4).tolist()
        ids = found.class_ids.tolist()
        tracks = [None] * len(ids) if found.track_ids is None else found.track_ids.tolist()
        return [
            (*box, score, i, self._names.detection(i), track)
            for box, score, i, track in zip(boxes, scores, ids, tracks, strict=True)
        ]
