"""Predictions as plain data, for JSON Lines and other JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from perception.card import ModelCard
from perception.sinks.names import ClassNames
from perception.types import ClassMap, Detections, Prediction


class Recorder:
    """Makes an object of a prediction that ``json`` can write.

    Each has ``index``, ``time`` (seconds), ``source``, ``size`` (``[width, height]``) and ``timings`` (milliseconds),
    ``propagated`` where the network has not seen the frame (see `perception.propagation`), and what the model
    gives: ``detections``, a list of ``box`` (xyxy, pixels), ``score``, ``class``, ``class_id`` and, if tracked,
    ``track_id``; ``shares``, the part of the frame's pixels of each class that has any; ``labels``, a list of
    ``class``, ``class_id`` and ``probability``; where rules ran ``rules``, what each of them says by name, and
    ``events``, what they noticed (see `perception.events.event.Event`); and, on request, ``masks``, a COCO RLE of each
    class present that is not ignored. Pixels without a class are called ``unknown`` in both.

    Args:
        card: the model's card, for class names; None: numbers.
        masks: put the masks in, too.
        timings: put the timings in; without them, the same frames have the same objects.
    """

    def __init__(self, card: ModelCard | None, *, masks: bool = False, timings: bool = True) -> None:
        self._names = ClassNames(card)
        self._with_timings = timings
        self._with_masks = masks

    def __call__(self, prediction: Prediction) -> dict[str, Any]:
        """Return the object for a prediction."""
        frame = prediction.frame
        record: dict[str, Any] = {
            "index": frame.index,
            "time": round(frame.time, 6),
            "source": frame.source,
            "size": [frame.width, frame.height],
        }
        if prediction.propagated:
            record["propagated"] = True
        if prediction.detections is not None:
            record["detections"] = self._detections(prediction.detections)
        if prediction.class_map is not None:
            record["shares"] = self._shares(prediction.class_map)
            if self._with_masks:
                record["masks"] = self._masks(prediction.class_map)
        if prediction.labels is not None:
            record["labels"] = [
                {"class": self._names.image_class(i), "class_id": int(i), "probability": round(float(p), 4)}
                for i, p in prediction.labels
            ]
        if prediction.readings is not None:
            record["rules"] = {reading.name: dict(reading.numbers) for reading in prediction.readings}
        if prediction.readings is not None or prediction.events:
            record["events"] = [event.to_dict() for event in prediction.events]
        if self._with_timings:
            record["timings"] = {stage: round(float(ms), 3) for stage, ms in prediction.timings.items()}
        return record

    def _detections(self, found: Detections) -> list[dict[str, Any]]:
        # Rounded as float64: 0.1 as float32 would be printed with all the digits of its error.
        boxes = np.round(found.boxes.astype(np.float64), 2).tolist()
        scores = np.round(found.scores.astype(np.float64), 4).tolist()
        ids = found.class_ids.tolist()
        rows: list[dict[str, Any]] = [
            {"box": box, "score": score, "class": self._names.detection(i), "class_id": i}
            for box, score, i in zip(boxes, scores, ids, strict=True)
        ]
        if found.track_ids is not None:
            for row, track in zip(rows, found.track_ids.tolist(), strict=True):
                row["track_id"] = track
        return rows

    def _shares(self, class_map: ClassMap) -> dict[str, float]:
        shares = np.round(class_map.shares.astype(np.float64), 6).tolist()
        return {self._names.segment(i): share for i, share in enumerate(shares) if share > 0}

    def _masks(self, class_map: ClassMap) -> dict[str, Any]:
        from perception.sinks.rle import encode_classes

        left_out = {*class_map.ignored} - {class_map.unknown}
        found = encode_classes(class_map.mask)
        return {self._names.segment(i): rle for i, rle in found.items() if i not in left_out}
