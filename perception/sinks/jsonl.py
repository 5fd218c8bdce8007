"""JSON Lines: one object a frame, whole lines at any moment."""

from __future__ import annotations

import json
from pathlib import Path

from perception.card import ModelCard
from perception.sinks.base import Sink
from perception.sinks.files import LineFile, check_not_source, utf8
from perception.sinks.records import Recorder
from perception.types import Prediction, SourceInfo


class JsonLinesSink(Sink):
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
        self.masks = masks
        self.timings = timings
        self._file = LineFile(path, overwrite)
        self.where = self._file.where
        self._recorder = Recorder(None, masks=masks, timings=timings)

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        if self._file.path is not None:
            check_not_source(self._file.path, info.path)
        self._recorder = Recorder(card, masks=self.masks, timings=self.timings)
        self._file.open()

    def write(self, prediction: Prediction) -> None:
        line = json.dumps(self._recorder(prediction), ensure_ascii=False, separators=(",", ":"))
        self._file.write(utf8(line) + b"\n")

    def close(self) -> None:
        self._file.close()

    def abort(self) -> None:
        # Every line is whole, and a reader sees by the last index how far it goes: there is nothing to mark.
        from contextlib import suppress

        from perception.errors import SinkError

        with suppress(SinkError):
            self._file.close()
