"""Annotated video: MP4, MOV, MKV or WebM, with the source's timing and sound.

What is on disk can be played at any moment. MP4 and MOV are written in fragments of a quarter of a second; closing adds
an ordinary index behind them and hides the fragments (FFmpeg's ``hybrid_fragmented``), without copying anything.
MKV and WebM are written in clusters as short. After a kill or an error the file plays up to the last of them: what is
lost is less than a second: that, and the frames that the encoder holds back (AV1 holds more of a file).
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from perception.card import ModelCard
from perception.common.timestamps import JUMP_S
from perception.errors import PerceptionError, SinkError, UsageError
from perception.sinks.base import Sink
from perception.sinks.codecs import CONTAINERS, Encoder, choose_encoder
from perception.sinks.files import (
    PLACE_S,
    STDOUT,
    Place,
    check_not_source,
    check_output,
    make_folder,
    name_of,
    open_stdout,
    reason,
)
from perception.sinks.fragments import cut_to_whole_fragments
from perception.sinks.priority import ordinary_priority
from perception.types import Picture, Prediction, SourceInfo

if TYPE_CHECKING:
    import av

    from perception.picture.encoder_frames import FrameMaker
    from perception.sinks.audio import AudioTrack

log = logging.getLogger("perception")

FRAGMENT_S = 0.25
KEYFRAME_S = 10


class VideoSink(Sink):
    """Writes the annotated pictures as a video.

    Frames keep the source's PTS and time base (MKV and WebM store whole milliseconds), so a variable frame rate stays
    as it is. Times count from the start of the source file, or from the first frame after ``start``, or from the
    first frame of a live source. The sound of a file is copied packet for packet where the container takes it, else
    encoded as AAC or Opus; it ends with the video where the video was cut.

    Odd sizes are padded to even ones by repeating the last column or row. Pictures of another size than the first are
    fitted in with black bars. BGR pictures are converted with BT.601, limited range; planes stay as they are; either is
    written into the stream's tags.

    Args:
        path: the file, or ``-`` for standard output (fragmented, and without an index at the end).
        overwrite: replace a file that is there.
        codec: ``h264`` (default), ``hevc``, ``vp9`` (default of WebM), ``av1``, the name of an FFmpeg encoder, or
            ``auto``: the encoder of an NVIDIA GPU where there is one, else the default.
        crf: constant quality, lower is better; None takes the codec's usual one (23 for H.264).
        preset: speed of the encoder, as it calls it; None takes x264's ``superfast``, or what is like it.
        threads: of the encoder; None lets it choose.
        audio: carry the sound along.
        format: ``mp4``, ``mov``, ``mkv`` or ``webm``; None goes by the name.

    Raises:
        UsageError: the file is there and ``overwrite`` is False; codec, container or options do not go together.
        SinkError: the folder is not there or not writable.
    """

    wants_picture: ClassVar[bool] = True

    def __init__(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        codec: str | None = None,
        crf: float | None = None,
        preset: str | None = None,
        threads: int | None = None,
        audio: bool = True,
        format: str | None = None,
    ) -> None:
        self.where = name_of(path)
        self._path = None if str(path) == STDOUT else check_output(path, overwrite)
        suffix = format or (Path(path).suffix[1:].lower() if self._path else "mp4")
        if suffix not in CONTAINERS:
            raise UsageError(f"videos are written as {', '.join(CONTAINERS)}, not as {suffix or 'that'}", self.where)
        self._container = CONTAINERS[suffix]
        self._encoder: Encoder = choose_encoder(self._container, codec, crf, preset, threads, self.where)
        self._wants_audio = audio
        self._reset()

    def _reset(self) -> None:
        self._info: SourceInfo | None = None
        self._output: Any = None
        self._stream: Any = None
        self._maker: FrameMaker | None = None
        self._audio: AudioTrack | None = None
        self._file: Any = None
        self._place: Place | None = None
        self._time_base = Fraction(1, 90000)
        self._origin = Fraction(0)
        self._last: int | None = None
        self._step: int | None = None
        self._shown: float | None = None  # seconds for which the source shows the last frame
        self._durations: dict[int, int] = {}
        self._warned = False
        self._delay: int | None = None  # from a frame's decoding to its showing, of the first frame

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        self._reset()
        if self._path is not None:
            check_not_source(self._path, info.path)
        # Opened once for nothing: a wrong preset is told now and not after the first inference.
        self._encoder = self._encoder.usable(max(2, info.width + info.width % 2), max(2, info.height + info.height % 2))
        self._info = info
        self._time_base = _time_base(info)

    def write(self, prediction: Prediction) -> None:
        assert self._info is not None, "write before open"
        frame = prediction.frame
        picture: Picture | None = prediction.picture
        if picture is None:
            picture = frame.picture
        if frame.pts is not None and frame.time_base is not None:
            time = Fraction(frame.pts * frame.time_base)
        else:
            time = Fraction(frame.time).limit_denominator(1_000_000_000)
        with self._errors():
            if self._output is None:
                self._start(picture, time)
            if self._place is not None:
                self._place.check(PLACE_S)
            assert self._maker is not None
            pts = self._next_pts(round((time - self._origin) / self._time_base))
            if self._audio is not None:
                self._audio.write_until(time)
            encoded = self._maker.frame(picture)
            encoded.pts = pts
            encoded.time_base = self._time_base
            self._shown = frame.duration
            self._mux(self._stream.codec_context.encode(encoded))

    def _next_pts(self, pts: int) -> int:
        """Return the frame's time stamp, later than the one before it, whose duration is known now."""
        if self._last is not None:
            if pts <= self._last:
                if not self._warned:
                    log.warning(
                        "%s: the timestamps of the source do not always increase; such frames follow immediately",
                        self.where,
                    )
                    self._warned = True
                pts = self._last + 1
            self._step = self._durations[self._last] = pts - self._last
        self._last = pts
        return pts

    def _mux(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            # Told to the muxer because it cannot know the last frame's, and writes fragments before it sees the next.
            packet.duration = self._durations.pop(packet.pts or 0, None) or self._nominal
            packet.stream = self._stream
            if self._delay is None and packet.pts is not None and packet.dts is not None:
                self._delay = packet.pts - packet.dts
            self._output.mux(packet)

    def _drain(self) -> None:
        """Mux what the encoder still holds."""
        packets = self._stream.codec_context.encode(None)
        *before, last = packets or [None]
        self._mux(before)
        if last is None:
            return
        if self._container in ("mp4", "mov") and last.pts is not None and last.dts is not None:
            # These store differences of decoding times. So that they add up to the time for which the frames are shown,
            # the frame that is decoded last gets what is missing; and as much that the last fragment, which may hold
            # none but it, ends with the last frame shown: by that the file's length is told.
            delay = last.pts - last.dts if self._delay is None else self._delay
            end = (self._last or 0) + self._nominal
            self._durations[last.pts] = max(end - (last.dts + delay), end - last.pts)
        self._mux([last])

    @property
    def _nominal(self) -> int:
        """The time for which a frame is shown whose successor is not known.

        As the source says; else as long as the one before, or as fps says. Where frames are skipped the source speaks
        of the one that was taken, which stands for those behind it, too.
        """
        assert self._info is not None
        told = 0 if self._shown is None else round(Fraction(self._shown) / self._time_base)
        if told and self._info.every == 1:
            return told
        if self._step is not None:
            return max(told, self._step)
        return max(told, 1, round(self._info.every / (self._info.fps or Fraction(30)) / self._time_base))

    def _start(self, picture: Picture, time: Fraction) -> None:
        """Create the file, as the first frame asks for it."""
        import av

        from perception.picture.encoder_frames import FrameMaker

        assert self._info is not None
        info = self._info
        self._maker = FrameMaker(picture)
        self._open_source(time)
        options = {"flush_packets": "1"}
        if self._container in ("mp4", "mov"):
            kind = "hybrid_fragmented" if self._is_file else "default_base_moof"
            # delay_moov: the header waits for the first fragment, when the start times that it states are known.
            options |= {"movflags": f"{kind}+delay_moov", "frag_duration": f"{FRAGMENT_S * 1e6:.0f}"}
        else:
            options |= {"cluster_time_limit": f"{FRAGMENT_S * 1e3:.0f}"}
        self._output = av.open(self._target(), "w", format=self._container, container_options=options)
        fps = (info.fps or Fraction(30)) / info.every
        self._stream = self._encoder.add_to(
            self._output,
            size_wh=(self._maker.width, self._maker.height),
            fps=fps,
            time_base=self._time_base,
            keyframe_interval=max(1, min(250, round(fps * KEYFRAME_S))),
            live=info.live,
        )
        context = self._stream.codec_context
        context.color_range = 2 if self._maker.full_range else 1
        context.colorspace = 1 if self._maker.matrix == "bt709" else 6
        if self._maker.matrix == "bt709":
            context.color_primaries = context.color_trc = 1
        if self._audio is not None:
            self._audio.attach(self._output, self._container)
            self._audio.begin(self._origin, cut=info.start > 0)
        with ordinary_priority():
            self._output.start_encoding()
        self._place = Place(self._path, self.where) if self._path is not None else None

    @property
    def _is_file(self) -> bool:
        return self._path is not None and (self._path.is_file() or not self._path.exists())

    def _target(self) -> Any:
        """Return what to open for writing: a path, a descriptor, or the interpreter's own stream if it has none."""
        if self._path is not None:
            make_folder(self._path.parent, self.where)
            # Without the scheme FFmpeg would take "at-10:30.mp4" for the protocol "at-10".
            return f"file:{self._path.absolute()}"
        descriptor, stream = open_stdout()
        if descriptor is None:
            return stream
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        return f"pipe:{descriptor}"

    def _open_source(self, first: Fraction) -> None:
        """Find the time that becomes 0 in the output, and the sound."""
        assert self._info is not None
        info = self._info
        self._origin = first
        if info.kind != "file" or info.path is None:
            return
        import av

        from perception.sinks.audio import AudioTrack

        try:
            track = AudioTrack(info.path)
        except (OSError, av.FFmpegError):
            log.warning("%s: cannot be opened a second time; the output has no sound", info.path)
            return
        # Where clocks may jump, sound and video do not begin far apart: one of the stamps is wrong.
        if info.start <= 0 and not (track.joins and first - track.start > JUMP_S):
            self._origin = min(track.start, first)
        if self._wants_audio and track.stream is not None:
            self._audio = track
        else:
            track.close()

    def close(self) -> None:
        if self._info is None:
            return
        if self._output is None:
            self._no_frames()
            return
        try:
            with self._errors():
                self._drain()
                self._finish_audio()
                self._output.close()
            if self._place is not None:
                self._place.check()
        except PerceptionError:
            self.abort()
            raise
        self._release()

    def _finish_audio(self) -> None:
        if self._audio is not None and self._last is not None:
            assert self._info is not None
            last = self._origin + self._last * self._time_base
            end = last + self._nominal * self._time_base
            self._audio.finish(last, end, self._info.every, cut=self._info.duration is not None)

    def _no_frames(self) -> None:
        # A video without frames cannot be played; an old one left in its place would pass for the result.
        if self._path is not None and self._is_file:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
        log.warning("%s: there were no frames, so no video was written", self.where)
        self._reset()

    def abort(self) -> None:
        if self._output is not None:
            with suppress(Exception):
                self._drain()
            with suppress(Exception):
                self._output.close()
            there = self._place is None or self._place.is_there()
            if there and self._container in ("mp4", "mov") and self._path is not None and self._is_file:
                with suppress(OSError):
                    cut_to_whole_fragments(self._path)
            if there:
                log.warning("%s: incomplete, but it can be played", self.where)
        self._release()

    def _release(self) -> None:
        if self._audio is not None:
            self._audio.close()
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        self._reset()

    def _errors(self) -> VideoErrors:
        return VideoErrors(self.where)


class VideoErrors:
    """Turns FFmpeg's errors into ``SinkError``; a generator would cost more than the rest of ``write`` does."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None or isinstance(error, PerceptionError):
            return
        import av

        if isinstance(error, (OSError, av.FFmpegError)):
            raise SinkError(reason(error), self._where) from error


def _time_base(info: SourceInfo) -> Fraction:
    """Seconds per unit of the output's time stamps: the source's, or one in which its frame duration is whole."""
    if info.time_base is not None and info.time_base > 0:
        return info.time_base
    if info.fps is not None and info.fps > 0 and not info.live:
        finer = max(1, -(-10000 // info.fps.numerator))
        return Fraction(1, info.fps.numerator * finer)
    return Fraction(1, 90000)
