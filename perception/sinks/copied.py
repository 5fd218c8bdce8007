"""Video and sound of a file, copied packet by packet into another one, in step with what is written beside them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from perception.common.timestamps import clock_may_jump
from perception.errors import SinkError
from perception.sinks.audio import unframed
from perception.sinks.one_clock import on_one_clock
from perception.sources.container import video_stream

_MOST_REORDERED = 32


class CopiedTracks:
    """Reads the video that a source reads and all sound of its file, and muxes them as they are.

    Args:
        path: a file that has been opened as a source already.
        where: the output, for messages.

    Attributes:
        start: time of the file's first packet in seconds, which becomes 0 in the output.
        codec: FFmpeg's name of the video's codec.

    Raises:
        SourceError: it has no video that can be read.
    """

    def __init__(self, path: str, where: str) -> None:
        import av

        self._where = where
        # Without the scheme FFmpeg would take "at-10:30.mp4" for the protocol "at-10".
        self._input = av.open(f"file:{Path(path).absolute()}", metadata_errors="ignore")
        video = video_stream(self._input, path)
        self.start = Fraction(self._input.start_time or 0, av.time_base)
        self.codec = video.codec_context.name
        self._video = video
        self._streams: list[Any] = [video, *self._input.streams.audio]
        self._filters = {stream.index: unframed(stream) for stream in self._input.streams.audio}
        self._outputs: dict[int, Any] = {}
        self._output: Any = None
        self._packets = self._read()
        self._next: Any = None

    def add_to(self, output: Any) -> None:
        """Add the streams to a container, and begin to read.

        Raises:
            SinkError: the container does not take one of them.
        """
        self._output = output
        for stream in self._streams:
            try:
                made = output.add_stream_from_template(stream, opaque=True)
            except ValueError as error:
                raise SinkError(f"cannot be copied: {error}", self._where) from None
            made.metadata.update(stream.metadata)
            made.disposition = stream.disposition
            self._outputs[stream.index] = made
        self._next = next(self._packets, None)

    def _read(self) -> Iterator[Any]:
        packets = (packet for packet in self._input.demux(self._streams) if packet.size)
        step = 1 / Fraction(self._video.average_rate or self._video.guessed_rate or 25)
        if clock_may_jump(self._input.format.name, self._input.format.flags):
            # As the frames are, see `perception.common.timestamps`; elsewhere times are left as they are, too.
            return on_one_clock(packets, step, joins=True)
        return self._with_first_stamps(packets, step)

    def _with_first_stamps(self, packets: Iterator[Any], step: Fraction) -> Iterator[Any]:
        """Yield packets; the first pictures with times of decoding, which Matroska leaves out where it reorders."""
        held: list[Any] = []
        lacking: list[Any] = []
        for packet in packets:
            if packet.stream is self._video:
                if packet.dts is None and packet.pts is not None:
                    lacking.append(packet)
                    if len(lacking) > _MOST_REORDERED:  # they will never come
                        lacking.clear()
                elif packet.dts is not None:
                    for back, earlier in enumerate(reversed(lacking), 1):
                        earlier.dts = packet.dts - max(1, round(back * step / packet.time_base))
                    lacking.clear()
            held.append(packet)
            if not lacking:
                yield from held
                held.clear()
        yield from held

    def copy_until(self, time: Fraction | None) -> None:
        """Mux what is to be decoded before ``time``, in seconds of the source; all that is left, where it is None.

        Raises:
            SinkError: the container of the source does not say when each picture is shown.
        """
        while self._next is not None:
            packet = self._next
            dts = packet.pts if packet.dts is None else packet.dts
            if time is not None and dts is not None and dts * packet.time_base >= time:
                return
            self._mux(packet)
            self._next = next(self._packets, None)

    def _mux(self, packet: Any) -> None:
        stream, base = packet.stream, packet.time_base
        if packet.pts is None:
            if packet.dts is None or (stream is self._video and stream.codec_context.has_b_frames):
                why = "the container of the source does not say when each picture is shown, so it cannot be copied"
                raise SinkError(why, self._where)
            packet.pts = packet.dts
        shift = round(self.start / base)
        packet.pts -= shift
        packet.dts = packet.pts if packet.dts is None else packet.dts - shift
        adts = self._filters.get(stream.index)
        for whole in [packet] if adts is None else adts.filter(packet):
            whole.stream, whole.time_base = self._outputs[stream.index], base
            self._output.mux_one(whole)

    def close(self) -> None:
        """Close the file that is read."""
        self._next = None
        self._packets = iter(())
        self._input.close()
