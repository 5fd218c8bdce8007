"""Video encoders: availability, containers, and their options for quality and speed."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from perception.errors import UsageError
from perception.sinks.nvenc import NVENC, nvenc_fault
from perception.sinks.priority import ordinary_priority

# Name, as in the file's suffix, to FFmpeg's muxer.
CONTAINERS = {"mp4": "mp4", "m4v": "mp4", "mov": "mov", "mkv": "matroska", "webm": "webm"}

# Short names, as people say them, to encoders.
CODECS = {
    "h264": "libx264",
    "avc": "libx264",
    "hevc": "libx265",
    "h265": "libx265",
    "vp8": "libvpx",
    "vp9": "libvpx-vp9",
    "av1": "libsvtav1",
}

AUTO = "auto"
"""A GPU's encoder of H.264 where there is one that works, for files, else the container's usual one."""

_log = logging.getLogger("perception")

_WEBM = ("vp8", "vp9", "av1")

_WITH_NVENC = ("mp4", "mov", "matroska")


@dataclass(frozen=True)
class _Usual:
    """An encoder's usual quality and speed, and its names for them.

    Attributes:
        with_preset: options in place of ``options`` where the preset is the usual one.
        live: options for a live source, with which it holds fewer frames back.
        immediate: options for what is watched while it is made, with which it holds none back.
    """

    crf: float
    preset: str
    preset_option: str = "preset"
    options: dict[str, str] = field(default_factory=dict)
    with_preset: dict[str, str] = field(default_factory=dict)
    live: dict[str, str] = field(default_factory=dict)
    immediate: dict[str, str] = field(default_factory=dict)
    crf_option: str = "crf"


# What an encoder holds back is lost when the process is killed. Of files it may hold some frames, for better
# compression or speed (two between x264's threads make the whole pipeline a tenth faster on two cores; four, its own
# choice, 3% more), but none for nothing: libvpx's 25 frames change no byte here.
# Of live sources it holds two at most, for a slow model may leave but five a second; with none at all, x264's files
# would be half as large again.
# x264's superfast looks ahead at nothing, which doubles its files. With the lookahead of veryfast it takes half of that
# preset's time for the same quality, in files an eighth larger (`perception bench encoders`). More than one B frame in
# a row would save no bits that a fifth of its time is worth.
_USUAL = {
    "libx264": _Usual(
        23,
        "superfast",
        options={"x264-params": "sync-lookahead=2"},
        with_preset={"x264-params": "sync-lookahead=2:mbtree=1:rc-lookahead=10:bframes=1"},
        live={"x264-params": "sync-lookahead=0:mbtree=1:rc-lookahead=1:bframes=0"},
        immediate={"tune": "zerolatency", "forced-idr": "1", "x264-params": "scenecut=0"},
    ),
    "libx265": _Usual(
        28,
        "ultrafast",
        options={"x265-params": "log-level=error"},
        live={"x265-params": "log-level=error:rc-lookahead=1:bframes=0:frame-threads=1"},
        immediate={"tune": "zerolatency", "forced-idr": "1", "x265-params": "log-level=error:scenecut=0"},
    ),
    "libvpx": _Usual(20, "8", "cpu-used", {"deadline": "realtime"}),
    "libvpx-vp9": _Usual(
        34,
        "7",
        "cpu-used",
        # Not 0: the last frame has to be held until it is known for how long it is shown.
        {"deadline": "realtime", "row-mt": "1", "lag-in-frames": "8"},
        live={"lag-in-frames": "0"},
    ),
    "libsvtav1": _Usual(35, "9", live={"svtav1-params": "lookahead=0:pred-struct=1"}),
    # A bit rate of 0 leaves it to the quality alone.
    NVENC: _Usual(
        23,
        "p4",
        crf_option="cq",
        options={"rc": "vbr", "b": "0"},
        live={"delay": "0", "bf": "0"},
        immediate={"delay": "0", "bf": "0", "zerolatency": "1", "forced-idr": "1", "no-scenecut": "1"},
    ),
}


@dataclass(frozen=True)
class Encoder:
    """An encoder and its settings.

    Attributes:
        name: FFmpeg's name.
        options: its options, as FFmpeg takes them.
        threads: how many, 0 lets it choose.
        where: the output, for messages.
        otherwise: what encodes where this one is refused, such as a GPU's that has as many sessions as it takes.
    """

    name: str
    options: dict[str, str]
    threads: int
    where: str
    otherwise: Encoder | None = None

    def usable(self, width: int, height: int) -> Encoder:
        """Open the encoder once and drop it; returns it, or ``otherwise`` with a warning where it is refused.

        Raises:
            UsageError: it does not take this size or these settings.
        """
        try:
            self.check(width, height)
        except UsageError as error:
            if self.otherwise is None:
                raise
            _log.warning("%s; it is encoded on the CPU", error)
            return self.otherwise.usable(width, height)
        return self

    def check(self, width: int, height: int) -> None:
        """Open the encoder once and drop it.

        Raises:
            UsageError: it does not take this size or these settings.
        """
        import av

        context: Any = av.CodecContext.create(self.name, "w")
        context.width, context.height, context.pix_fmt = width, height, "yuv420p"
        context.time_base = Fraction(1, 90000)
        context.framerate = Fraction(30)
        context.options = dict(self.options)
        context.thread_count = 1
        try:
            with ordinary_priority():
                context.open()
        except (OSError, ValueError, RuntimeError) as error:
            said = ", ".join(f"{k} {v}" for k, v in self.options.items())
            why = getattr(error, "strerror", None) or error
            raise UsageError(
                f"the encoder {self.name} does not accept {width}x{height} with {said}: {why}", self.where
            ) from error
        if context.options:  # those that nobody took
            raise UsageError(f"the encoder {self.name} has no option {' and no '.join(context.options)}", self.where)

    def add_to(
        self,
        output: Any,
        size_wh: tuple[int, int],
        fps: Fraction,
        time_base: Fraction,
        keyframe_interval: int,
        live: bool = False,
        immediate: bool = False,
    ) -> Any:
        """Add a video stream with this encoder to an output container.

        Args:
            output: the container.
            size_wh: width and height in pixels, both even.
            fps: about how many frames come a second.
            time_base: of their time stamps.
            keyframe_interval: frames from one key frame to the next, at most.
            live: the source is live: it holds two frames back at most.
            immediate: it holds none back, and a frame that is asked to be a key frame is one to begin with.
        """
        usual = _USUAL.get(self.name)
        more = {} if usual is None else usual.immediate if immediate else usual.live if live else {}
        stream = output.add_stream(
            self.name,
            rate=fps.limit_denominator(1_000_000),
            options={**self.options, **more},
            width=size_wh[0],
            height=size_wh[1],
            time_base=time_base,
        )
        context = stream.codec_context
        context.gop_size = keyframe_interval
        context.thread_count = self.threads
        # Slices cost bits, and 720p has too few rows for them to keep cores busy; but each thread of the other kind
        # holds a frame.
        context.thread_type = "SLICE" if live or immediate else "FRAME"
        return stream


def choose_encoder(
    container: str, codec: str | None, crf: float | None, preset: str | None, threads: int | None, where: str
) -> Encoder:
    """Choose the encoder for a container, with its usual settings where none are given.

    Args:
        container: FFmpeg's muxer, a value of ``CONTAINERS``.
        codec: a key of ``CODECS``, FFmpeg's name of an encoder, ``auto``, or None for the container's usual one.
        crf: constant quality, or None.
        preset: speed, as the encoder calls it, or None.
        threads: at least 1, or None.
        where: the output, for messages.

    Raises:
        UsageError: there is no such encoder here, or it does not go into the container.
    """
    import av

    if codec is not None and codec.lower() == AUTO:
        usual_one = choose_encoder(container, None, crf, preset, threads, where)
        if container not in _WITH_NVENC or nvenc_fault():
            return usual_one
        return replace(choose_encoder(container, NVENC, crf, preset, threads, where), otherwise=usual_one)
    asked = codec or ("vp9" if container == "webm" else "h264")
    name = CODECS.get(asked.lower(), asked)
    try:
        found = av.Codec(name, "w")
    except ValueError:
        have = ", ".join(short for short, full in CODECS.items() if full in av.codecs_available)
        raise UsageError(f"there is no video encoder {asked} here; there are {have}", where) from None
    if found.type != "video":
        raise UsageError(f"{asked} does not encode video; use one of {', '.join(CODECS)}", where)
    if container == "webm" and found.canonical_name not in _WEBM:
        raise UsageError(f"WebM supports {', '.join(_WEBM)}, not {asked}; use .mkv or .mp4 instead", where)
    if threads is not None and threads < 1:
        raise UsageError(f"an encoder needs at least one thread, not {threads}", where)
    if name == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # errors only; it writes its settings to standard error by itself
    usual = _USUAL.get(name)
    options = dict(usual.options) if usual else {}
    if usual and preset in (None, usual.preset):
        options |= usual.with_preset
    if usual or crf is not None:
        options[usual.crf_option if usual else "crf"] = f"{crf if crf is not None else usual.crf:g}"  # type: ignore[union-attr]
    if usual or preset is not None:
        options[usual.preset_option if usual else "preset"] = preset or usual.preset  # type: ignore[union-attr]
    return Encoder(name, options, threads or 0, where)
