"""Copying the sound of a source file into the annotated video."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.common.timestamps import clock_may_jump
from perception.sinks.one_clock import HELD_PACKETS, on_one_clock

if TYPE_CHECKING:
    from av.container import OutputContainer

log = logging.getLogger("perception")

# What players play, not all that the muxers take; None is everything.
COPIED: dict[str, frozenset[str] | None] = {
    "mp4": frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"}),
    "mov": frozenset({"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le"}),
    "webm": frozenset({"opus", "vorbis"}),
    "matroska": None,
}
_OVERLAP_S = Fraction(1, 1000)
_LAYOUTS = {"mono", "stereo"}


class AudioTrack:
    """Reads the sound of a file in step with the video that is written, and muxes it.

    The file's video packets are read along (and thrown away): where the last of them lies tells whether the video was
    read to its end, in which case the sound is carried to its end as well, or was cut.

    Args:
        path: a file that has been opened as a source already.

    Attributes:
        start: time of the file's first packet, in seconds.
        joins: whether the clock of such a container may jump.
        stream: the sound that is carried, the container's default; None where there is none.
    """

    def __init__(self, path: str) -> None:
        import av

        self._path = path
        # Without the scheme FFmpeg would take "at-10:30.mp4" for the protocol "at-10".
        self._input = av.open(f"file:{Path(path).absolute()}", metadata_errors="ignore")
        self.start = Fraction(self._input.start_time or 0, av.time_base)
        self.joins = clock_may_jump(self._input.format.name, self._input.format.flags)
        self.stream: Any = self._input.streams.best("audio") if self._input.streams.audio else None
        self._output: OutputContainer | None = None
        self._to: Any = None
        self._copies = False
        self._filter: Any = None
        self._origin = Fraction(0)
        self._packets: Iterator[Any] = iter(())
        self._next: Any = None
        self._encoded_to = Fraction(-1)
        self._latest_video: Fraction | None = None

    def attach(self, output: OutputContainer, container: str) -> None:
        """Add an audio stream to ``output``: a copy where the container takes it, else AAC or Opus."""
        import av

        assert self.stream is not None
        codec = self.stream.codec_context.name
        allowed = COPIED[container]
        self._output = output
        self._copies = allowed is None or _codec_id(codec) in allowed
        if self._copies:
            try:
                self._to = output.add_stream_from_template(self.stream)
                self._filter = unframed(self.stream)
                return
            except ValueError:
                self._copies = False
        name = "libopus" if container == "webm" else "aac"
        rate = self.stream.codec_context.sample_rate
        rates = av.Codec(name, "w").audio_rates or [rate]
        self._to = output.add_stream(name, rate=min(rates, key=lambda taken: (abs(taken - rate), -taken)))
        layout = self.stream.codec_context.layout.name
        self._to.codec_context.layout = layout if layout in _LAYOUTS else "stereo"
        self._to.codec_context.bit_rate = 64000 * self._to.codec_context.layout.nb_channels
        log.info(
            "%s: the sound is %s, which %s does not support; it is converted to %s", self._path, codec, container, name
        )

    def begin(self, origin: Fraction, cut: bool) -> None:
        """Start reading.

        Args:
            origin: the source time that is 0 in the output, in seconds.
            cut: throw away what comes before ``origin``.
        """
        assert self.stream is not None
        self._origin = origin
        if cut:
            self._input.seek(max(0, int((origin - 1) * 1_000_000)))
        video = [s for s in self._input.streams.video if not s.disposition & 1024][:1]  # 1024: a cover picture
        rates = [rate for s in video for rate in (s.average_rate, s.guessed_rate) if rate]
        packets = on_one_clock(
            self._input.demux(self.stream, *video), 1 / rates[0] if rates else Fraction(1, 25), self.joins
        )
        self._packets = self._audio_of(packets, origin if cut else None)
        self._advance()

    def _audio_of(self, packets: Iterator[Any], first: Fraction | None) -> Iterator[Any]:
        """Yield the sound from ``first`` on, in times that only grow, as those of the frames do."""
        latest = None
        for packet in packets:
            time = packet.pts * packet.time_base
            if packet.stream.type == "video":
                if not packet.is_discard and (self._latest_video is None or time > self._latest_video):
                    self._latest_video = time
            elif (first is None or time >= first) and (latest is None or time > latest):
                latest = time
                yield packet

    def _advance(self) -> None:
        import av

        try:
            self._next = next(self._packets, None)
        except av.FFmpegError as error:
            log.warning("%s: the sound cannot be read any further: %s", self._path, error.strerror)
            self._next = None

    def write_until(self, time: Fraction) -> None:
        """Mux the sound that begins before ``time``, in seconds of the source."""
        while self._next is not None and self._next.pts * self._next.time_base < time:
            self._mux(self._next)
            self._advance()

    def finish(self, last: Fraction, end: Fraction, every: int, cut: bool) -> None:
        """Mux the rest: all of it where the video was read to its end, else up to ``end``.

        Args:
            last: source time of the last frame written.
            end: source time at which it stops being shown.
            every: only each ``every``-th frame was read.
            cut: the video is known to end early.
        """
        self.write_until(end)
        # A file read to its end has no video packet after the last frame, except those that ``every`` skipped.
        beyond = last + (end - last) * Fraction(2 * every - 1, 2 * every)
        held: list[Any] = []
        while not cut and self._next is not None and len(held) < HELD_PACKETS:
            cut = self._latest_video is not None and self._latest_video > beyond
            held.append(self._next)
            self._advance()
        cut = cut or (self._latest_video is not None and self._latest_video > beyond)
        if not cut:
            for packet in held:
                self._mux(packet)
            while self._next is not None:
                self._mux(self._next)
                self._advance()
        self._flush()

    def _mux(self, packet: Any) -> None:
        assert self._output is not None and self.stream is not None
        if self._copies:
            base = packet.time_base
            shift = round(self._origin / base)
            packet.pts -= shift
            packet.dts = packet.pts if packet.dts is None else packet.dts - shift
            for whole in self._whole(packet):
                whole.stream, whole.time_base = self._to, base
                self._output.mux(whole)
            return
        import av

        try:
            frames = self.stream.decode(packet)
        except av.FFmpegError:
            return  # a damaged packet: a gap in the sound, as when it is played
        for frame in frames:
            if frame.pts is not None:
                frame.pts -= round(self._origin / frame.time_base)
                begins = frame.pts * frame.time_base
                if begins < self._encoded_to - _OVERLAP_S:
                    continue  # the sound of the stretch before was longer than its video: the encoder takes no overlap
                self._encoded_to = begins + Fraction(frame.samples, frame.sample_rate)
            self._output.mux(self._to.encode(frame))

    def _whole(self, packet: Any) -> list[Any]:
        """Return the packet as the container needs it; None if it is damaged, which leaves a gap in the sound."""
        import av

        if self._filter is None:
            return [packet]
        try:
            return list(self._filter.filter(packet))
        except av.FFmpegError:
            return []

    def _flush(self) -> None:
        if not self._copies and self._output is not None:
            self._output.mux(self._to.encode(None))

    def close(self) -> None:
        """Close the file that is read."""
        self._packets = iter(())
        self._next = None
        self._input.close()


def unframed(stream: Any) -> Any:
    """Return a filter that replaces the headers in each AAC packet, as broadcasts carry them, by a single one, or None.

    Args:
        stream: of sound, in the container that is read.
    """
    from av.bitstream import BitStreamFilterContext

    if stream.codec_context.name != "aac" or stream.codec_context.extradata:
        return None
    return BitStreamFilterContext("aac_adtstoasc", stream)


def _codec_id(name: str) -> str:
    """Return the codec's name, where FFmpeg names the decoder after its library or number format."""
    return {"libopus": "opus", "libvorbis": "vorbis", "mp3float": "mp3", "libmp3lame": "mp3"}.get(name, name)
