"""MOT text: a row for each box, with its identity."""

from __future__ import annotations

import numpy as np

from perception.card import ModelCard
from perception.errors import UsageError
from perception.sinks.lines import LineSink
from perception.tracking.mot_text import mot_lines
from perception.types import Prediction, SourceInfo


class MotSink(LineSink):
    """Writes ``frame,id,left,top,width,height,score,class,-1,-1``, see `perception.tracking.mot_text`.

    Frames are counted from 1: the source's index and one more. Identities are those of a tracker; without one, -1.
    """

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        if card is not None and card.detection is None:
            raise UsageError(f"MOT text has boxes; {card.name} makes none", self.where)
        super().open(info, card)

    def write(self, prediction: Prediction) -> None:
        found = prediction.detections
        if found is not None and len(found):
            ids = np.full(len(found), -1, np.int64) if found.track_ids is None else found.track_ids
            lines = mot_lines(prediction.frame.index + 1, ids, found.boxes, found.scores, found.class_ids)
            self._file.write(lines.encode())
