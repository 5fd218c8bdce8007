"""The base of sinks that make one picture of everything that a source has shown."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.card import ModelCard
from perception.errors import UsageError
from perception.sinks.base import Sink
from perception.sinks.files import PartFile, check_not_source, sink_errors
from perception.sinks.picture import QUALITY, encode_picture
from perception.types import U8, Detections, Prediction, SourceInfo

LONGEST = 1920
"""Pixels of the longer side of the picture at most."""
GAP_S = 2.0
"""What was not seen for longer is not joined to where it was; a clock that goes ahead further has jumped."""


class OverviewSink(Sink):
    """Draws over the first frame; the picture is written when the source has ended.

    Args:
        path: the file; its ending is the format.
        overwrite: replace a file that is there.

    Raises:
        UsageError: the file is there and ``overwrite`` is False.
        SinkError: its folder is not writable.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        self._file = PartFile(path, overwrite)
        self.where = str(path)
        self._card: ModelCard | None = None
        self._backdrop: U8 | None = None
        self._scale = 1.0
        self._last: float | None = None

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        check_not_source(self._file.path, info.path)
        if card is not None and card.detection is None:
            raise UsageError(f"this picture shows where boxes were; {card.name} makes none", self.where)
        self._card = card

    def write(self, prediction: Prediction) -> None:
        frame = prediction.frame
        if self._backdrop is None:
            import cv2

            self._scale = min(1.0, LONGEST / max(frame.width, frame.height))
            size = max(round(frame.width * self._scale), 1), max(round(frame.height * self._scale), 1)
            self._backdrop = np.asarray(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), np.uint8)
            self._begin(self._backdrop)
        gone = 0.0 if self._last is None else frame.time - self._last
        self._last = frame.time
        found = prediction.detections
        if found is not None:
            height, width = self._backdrop.shape[:2]
            # parts of the frame, so that one that changes its size stays in its place
            boxes = found.boxes.astype(np.float64) * np.tile([width / frame.width, height / frame.height], 2)
            feet = np.stack([0.5 * (boxes[:, 0] + boxes[:, 2]), boxes[:, 3]], axis=1)
            self._add(found, feet, frame.time, gone if 0 < gone < GAP_S else 0.0)

    def close(self) -> None:
        if self._backdrop is None:
            return
        data = encode_picture(self._finished(self._backdrop), self._file.path.suffix, QUALITY, self.where)
        self._backdrop = None
        with self._file.open() as stream, sink_errors(self.where):
            stream.write(data)
        self._file.publish()

    @abstractmethod
    def _begin(self, backdrop: U8) -> None:
        """Take the first frame, at the picture's size."""

    @abstractmethod
    def _add(self, found: Detections, feet: NDArray[np.float64], time: float, seconds: float) -> None:
        """Take the boxes of a frame.

        Args:
            found: the boxes, in the frame's pixels.
            feet: float64 ``[N, 2]``: their bottom centres in the picture's pixels.
            time, seconds: of the frame, and since the last one; 0 where that is not known.
        """

    @abstractmethod
    def _finished(self, backdrop: U8) -> U8:
        """Return the picture."""
