"""JSON Lines: one object a frame, whole lines at any moment."""

from __future__ import annotations

import json
from pathlib import Path

from perception.card import ModelCard
from perception.sinks.files import utf8
from perception.sinks.lines import LineSink
from perception.sinks.records import Recorder
from perception.types import Prediction, SourceInfo


class JsonLinesSink(LineSink):
    """Writes one JSON object a frame, as UTF-8; what it holds: see `perception.sinks.records.Recorder`.

    Args:
        path: the file, or ``-`` for standard output.
        overwrite: replace a file that is there.
        masks: write the masks, too.
        timings: write how long each step took.

    Raises:
        UsageError: the file is there and ``overwrite`` is False.
        SinkError: its folder is not there or not writable.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False, masks: bool = False, timings: bool = True) -> None:
        super().__init__(path, overwrite=overwrite)
        self.masks = masks
        self.timings = timings
        self._recorder = Recorder(None, masks=masks, timings=timings)

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        self._recorder = Recorder(card, masks=self.masks, timings=self.timings)
        super().open(info, card)

    def write(self, prediction: Prediction) -> None:
        line = json.dumps(self._recorder(prediction), ensure_ascii=False, separators=(",", ":"))
        self._file.write(utf8(line) + b"\n")
