"""Boxes and labels as subtitles over the video itself, which is copied and not encoded."""

from __future__ import annotations

import io
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

from perception.card import ModelCard
from perception.errors import PerceptionError, UsageError
from perception.sinks.ass import AssDrawing
from perception.sinks.base import Sink
from perception.sinks.copied import CopiedTracks
from perception.sinks.files import PLACE_S, PartFile, Place, check_not_source
from perception.sinks.video import VideoErrors
from perception.types import Prediction, SourceInfo

LONGEST_S = 5
"""A line that stays the same is repeated so often, for those who jump into the middle."""

_MS = Fraction(1, 1000)


class SubtitlesSink(Sink):
    """Writes MKV: video and sound of a file, packet by packet as they are, and boxes and labels as a track of ASS.

    Players show that track over the video, and can switch it off. The whole of the video is copied, also where only
    some of its frames were looked at; a box is shown until the next of these.

    Args:
        path: the file, ``.mkv``. It has its name once it is complete.
        overwrite: replace a file that is there.

    Raises:
        UsageError: the file is there and ``overwrite`` is False, or it is no ``.mkv``.
        SinkError: the folder is not there or not writable.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        self.where = str(path)
        if Path(path).suffix.lower() != ".mkv":
            raise UsageError("boxes as subtitles are written into Matroska: give a name that ends in .mkv", path)
        self._part = PartFile(path, overwrite)
        self._reset()

    def _reset(self) -> None:
        self._tracks: CopiedTracks | None = None
        self._drawing: AssDrawing | None = None
        self._output: Any = None
        self._stream: Any = None
        self._place: Place | None = None
        self._lines: list[str] = []
        self._since = 0  # milliseconds, from which on these lines are shown
        self._number = 0
        self._now = 0  # milliseconds, of the last frame
        self._shown_for: float | None = None  # seconds, as its source says
        self._step = Fraction(1, 25)

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        """Open the file that is read once more, and begin to write.

        Raises:
            UsageError: the source is no file, only a part of it is read, or the model has no boxes.
            SinkError: the output cannot be created.
        """
        self._reset()
        if card is not None and card.detection is None:
            raise UsageError(f"subtitles have boxes; {card.name} makes none", self.where)
        if info.kind != "file" or info.path is None:
            raise UsageError("boxes become subtitles of video files only; this source is none", info.uri)
        if info.start > 0 or info.duration is not None:
            raise UsageError("the whole video is copied: leave out `start` and `duration`", self.where)
        check_not_source(self._part.path, info.path)
        assert card is not None
        assert card.detection is not None
        self._drawing = AssDrawing(card.detection, info.width, info.height)
        if info.fps:
            self._step = Fraction(info.every) / info.fps
        import av

        with VideoErrors(self.where):
            self._part.open().close()
            self._tracks = CopiedTracks(info.path, self.where)
            options = {"max_interleave_delta": "500000"}  # microseconds; subtitles are few
            self._output = av.open(f"file:{self._part.part.absolute()}", "w", format="matroska", options=options)
            self._tracks.add_to(self._output)
            with av.open(io.BytesIO(self._drawing.head.encode()), format="ass") as script:
                self._stream = self._output.add_stream_from_template(script.streams.subtitles[0], opaque=True)
            self._stream.time_base = _MS
            self._stream.metadata["title"] = "perception"
            self._stream.disposition = av.stream.Disposition.default
            self._output.start_encoding()
        self._place = Place(self._part.part, self.where)

    def write(self, prediction: Prediction) -> None:
        """Copy up to a frame, and draw its boxes."""
        assert self._tracks is not None, "write before open"
        assert self._drawing is not None
        frame, found = prediction.frame, prediction.detections
        if frame.pts is not None and frame.time_base is not None:
            time = Fraction(frame.pts * frame.time_base)
        else:
            time = Fraction(frame.time).limit_denominator(1_000_000) + self._tracks.start
        lines = [] if found is None or not len(found) else self._drawing.lines(found)
        now = round((time - self._tracks.start) / _MS)
        with VideoErrors(self.where):
            if self._place is not None:
                self._place.check(PLACE_S)
            if lines != self._lines or now - self._since >= LONGEST_S / _MS:
                self._show(now)
                self._lines, self._since = lines, now
            self._tracks.copy_until(time)
        self._now, self._shown_for = now, frame.duration

    def _show(self, until: int) -> None:
        """Write the lines that were shown until now."""
        import av

        for line in self._lines if until > self._since else ():
            packet = av.Packet(f"{self._number},{line}".encode())
            packet.stream, packet.time_base = self._stream, _MS
            packet.pts = packet.dts = self._since
            packet.duration = until - self._since
            self._output.mux_one(packet)
            self._number += 1

    def close(self) -> None:
        """Copy the rest, and give the file its name.

        Raises:
            SinkError: it cannot be written to its end.
        """
        if self._tracks is None or self._output is None:
            return
        try:
            with VideoErrors(self.where):
                self._show(self._now + max(1, round(max(self._shown_for or 0.0, float(self._step)) / _MS)))
                self._tracks.copy_until(None)
                self._output.close()
            self._part.publish()
        except PerceptionError:
            self.abort()
            raise
        self._tracks.close()
        self._reset()

    def abort(self) -> None:
        """Leave what was written beside its name; it can be played."""
        if self._output is not None:
            with suppress(Exception):
                self._output.close()
            self._part.leave()
        if self._tracks is not None:
            self._tracks.close()
        self._reset()
