"""MOT text: a row for each box, with its identity."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from perception.card import ModelCard
from perception.errors import SinkError, UsageError
from perception.sinks.base import Sink
from perception.sinks.files import LineFile, check_not_source
from perception.tracking.mot_text import mot_lines
from perception.types import Prediction, SourceInfo


class MotSink(Sink):
    """Writes ``frame,id,left,top,width,height,score,class,-1,-1``, see `perception.tracking.mot_text`.

    Frames are counted from 1: the source's index and one more. Identities are those of a tracker; without one, -1.

    Args:
        path: the file, or ``-`` for standard output.
        overwrite: replace a file that is there.

    Raises:
        UsageError: the file is there and ``overwrite`` is False.
        SinkError: its folder is not there or not writable.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        self._file = LineFile(path, overwrite)
        self.where = self._file.where

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        if card is not None and card.detection is None:
            raise UsageError(f"MOT text has boxes; {card.name} makes none", self.where)
        if self._file.path is not None:
            check_not_source(self._file.path, info.path)
        self._file.open()

    def write(self, prediction: Prediction) -> None:
        found = prediction.detections
        if found is not None and len(found):
            ids = np.full(len(found), -1, np.int64) if found.track_ids is None else found.track_ids
            lines = mot_lines(prediction.frame.index + 1, ids, found.boxes, found.scores, found.class_ids)
            self._file.write(lines.encode())

    def close(self) -> None:
        self._file.close()

    def abort(self) -> None:
        with suppress(SinkError):
            self._file.close()
