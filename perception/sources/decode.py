"""Decoding the video of a container, skipping damaged data.

Used by every source that FFmpeg reads: files, pipes and network streams.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import av.error

from perception.common.bounds import Bounds
from perception.common.timestamps import JUMP_S, ArrivalTimeline, Timeline, believed, clock_may_jump
from perception.errors import SourceError
from perception.sources.base import log
from perception.sources.container import PLAYLISTS, has_clock, local_formats, video_stream
from perception.sources.deinterlace import Deinterlacer
from perception.sources.failover import RecentPackets, on_cpu
from perception.sources.packets import PacketRing
from perception.sources.thinner import Thinner
from perception.sources.uri import redact

_MAX_READ_ERRORS = 100
_GENERATE_STAMPS = 0x0001  # AVFMT_FLAG_GENPTS
_LIVE_TIME_BASE = Fraction(1, 90_000)
_LOST_BYTES = 1024  # between packets of a lone stream lie some 20 bytes
_WAITED_S = 0.002  # what takes longer to read had not come yet
_LARGE_PICTURE = 1920 * 1088
_MAX_THREADS = 4
_MOST_FPS = 1000


class Decoder:
    """Decodes the video of one container: frames in the order shown, each with a time stamp that only grows.

    Broken packets are skipped, counted, and reported once. A missing end is reported and is no error.

    Args:
        container: an open container; the decoder closes it.
        where: what to name in messages.
        threads: codec threads. 0 chooses: one up to Full HD, because more cost up to half as much CPU again and the
            other cores have work to do in a pipeline; beyond that, as many as there are, at most four.
        deinterlace: pass frames that are flagged as interlaced through the BWDIF filter.
        network: a broken connection is an error; a file that cannot be read further merely ends.
        bounds: what its pictures are held to; ones that are far too large count as damaged.
        live: frames come by themselves: time stamps are held to the time of arrival.
        packets: is given them as they are read.
        thinner: of a live source, chooses those that are decoded; None: all.

    Attributes:
        stream: the video stream.
        time_base: seconds per unit of time stamps.
        origin: the container's start in seconds: what is taken off time stamps to get seconds from the beginning.
            Not negative: audio that primes its decoder before 0 does not move the video.
        fps: average frames per second, or None.
        corrupt: packets that are damaged; their frames are missing, or show what the decoder made of them.
        stamped: whether the frames so far brought their own time stamps.
        deadline: ``time.monotonic()`` after which it is an error that packets come and no frame; None: never.
        sample_aspect_ratio: width of a pixel by its height, in the frame that was given last.
    """

    def __init__(
        self,
        container: av.container.InputContainer,
        where: str,
        *,
        threads: int = 0,
        deinterlace: bool = True,
        network: bool = False,
        bounds: Bounds | None = None,
        live: bool = False,
        packets: PacketRing | None = None,
        thinner: Thinner | None = None,
    ) -> None:
        self.container = container
        # PyAV asks FFmpeg to invent missing stamps; for reordered pictures in AVI it invents them out of order.
        container.flags &= ~_GENERATE_STAMPS
        self.where = redact(where)
        self.stream = video_stream(container, where)
        self.time_base: Fraction = self.stream.time_base or Fraction(1, 90000)
        self.origin = max(0.0, (container.start_time or 0) / 1e6)
        fps = self.stream.average_rate or self.stream.guessed_rate
        self.fps = fps if fps and fps <= _MOST_FPS else None  # FFmpeg takes the unit of stamps for a rate
        self.corrupt = 0
        self.stamped = self._own_stamp = True
        self.deadline: float | None = None
        self.sample_aspect_ratio = self.stream.sample_aspect_ratio or Fraction(1)
        self._network = network
        self._bounds = bounds = bounds or Bounds()
        self._deinterlace = deinterlace
        self._step = max(1, round(1 / ((self.fps or 25) * self.time_base)))
        self._joins = clock_may_jump(container.format.name, container.format.flags)
        self._last_pts: int | None = None
        self._last_dts: int | None = None
        self._arrival: ArrivalTimeline | None = None
        # Live playlists bring seconds of frames at once: what comes when says nothing.
        if live and container.format.name not in PLAYLISTS:
            self._arrival = ArrivalTimeline(has_clock(container))
            self.time_base = _LIVE_TIME_BASE
        self._arrived = 0.0
        self._waited = True
        self._packets_read = 0
        self._keyframes_read = 0
        self._abandoned = False
        self._warned = False
        self._codec: Any = self.stream.codec_context
        self._on_gpu = bool(self._codec.is_hwaccel)
        self._recent = RecentPackets()
        self._reopened: av.container.InputContainer | None = None
        if self._on_gpu:
            threads = 1  # they would only hold more of the GPU's surfaces
        elif threads <= 0:
            threads = self._threads()
        if bounds.codec_options:
            self.stream.codec_context.options = bounds.codec_options
        timeline = None if self._arrival is None else ArrivalTimeline(has_clock(container))
        self._feed = None if packets is None else packets.begin(container, self.stream, timeline)
        self._thinner = thinner
        self._packet_times = ArrivalTimeline(has_clock(container))
        self.stream.codec_context.thread_count = threads
        self.stream.thread_type = "AUTO" if threads > 1 else "NONE"

    def abandon(self) -> None:
        """End `frames` at the next packet. Called from another thread than reads them."""
        self._abandoned = True

    def missing(self) -> str:
        """Say why there is no first frame yet."""
        if not self._packets_read:
            return "no data came"
        if not self._keyframes_read:
            return (
                f"{self._packets_read} packets came, but no key frame, which is needed to start; "
                "let the camera send one every second or two (its I-frame or GOP interval)"
            )
        return f"{self._packets_read} packets came, but none of them can be decoded"

    def close(self) -> None:
        """Free the codec and close the container."""
        if self._feed is not None:
            self._feed.end()
        self.container.close()
        if self._reopened is not None:
            self._reopened.close()

    def seconds(self, frame: av.VideoFrame) -> float:
        """Return the seconds from the beginning of the container at which ``frame``, one of ``frames``, is shown."""
        return float((frame.pts or 0) * self.time_base) - self.origin

    def duration(self, frame: av.VideoFrame) -> float | None:
        """Return the seconds for which ``frame`` is shown according to the container; None where it does not say."""
        if not (self.stamped and frame.duration and self.stream.time_base):
            return None
        return float(frame.duration * self.stream.time_base)

    def begin(self, first: av.VideoFrame) -> None:
        """Count seconds from ``first``, the first frame there is, where the container's start is not to be believed."""
        seconds = self.seconds(first)
        # An MPEG-TS clock that wraps soon is counted from below zero: none of that may count as before the beginning.
        # Where clocks may jump, sound and video do not begin far apart: one of the stamps is wrong.
        if seconds < 0 or (self._joins and seconds > JUMP_S):
            self.origin += seconds

    def seek(self, seconds: float) -> None:
        """Go to the last keyframe not after ``seconds`` from the beginning, or near it.

        Raises:
            av.error.FFmpegError: the container cannot seek.
        """
        self.container.seek(int((seconds + self.origin) / self.time_base), stream=self.stream, backward=True)
        if self._feed is not None:
            self._feed.cut()
        self._last_pts = self._last_dts = None
        self._recent = RecentPackets()
        self._codec.flush_buffers()

    def frames(self) -> Iterator[av.VideoFrame]:
        """Decoded frames; ``pts`` in units of ``time_base`` is set on each and strictly increases.

        Raises:
            SourceError: a read timed out, the connection broke, or the source is given up.
        """
        if self._arrival is not None:
            placed: Iterator[tuple[int, tuple[av.VideoFrame, Fraction]]]
            placed = ((self._by_arrival(item[0]), item) for item in self._decoded())
        else:
            timeline = Timeline(self.time_base, self._step, self._joins)
            placed = believed(self._decoded(), lambda item: item[0].pts or 0, timeline)
        whole = Deinterlacer(self.time_base) if self._deinterlace else None
        for pts, (frame, shape) in placed:
            if self._feed is not None:
                self._feed.show(float((frame.pts or 0) * self.time_base))
            frame.pts, frame.time_base = pts, self.time_base
            for shown, self.sample_aspect_ratio in whole.push(frame, shape) if whole else ((frame, shape),):
                yield shown
        for shown, self.sample_aspect_ratio in whole.flush() if whole else ():
            yield shown

    def _decoded(self) -> Iterator[tuple[av.VideoFrame, Fraction]]:
        """Yield frames from the codec, ``pts`` in units of ``time_base`` set on each, and their pixels' shape."""
        shape = self.sample_aspect_ratio
        # What the container says of the pixels' shape holds for all frames; what the codec says may change.
        fixed = shape != (self._codec.sample_aspect_ratio or 1)
        for packet in self._packets():
            self._bounds.check(self.where)  # where all that comes is damaged, these are the only ways out
            if self.deadline is not None and time.monotonic() > self.deadline:
                raise SourceError(
                    f"no picture can be decoded from this stream ({self.corrupt} damaged packets)", self.where
                )
            for frame in self._frames_of(packet):
                self._bounds.check_size(frame.width, frame.height, self.where)  # before several are held, or filtered
                if self._on_gpu:
                    self._recent.shown(frame.pts)
                if self._thinner is not None and frame.interlaced_frame:  # which need those before and behind them
                    self._thinner.possible = False
                frame.pts = self._stamp(frame)
                # The codec knows of a new shape a few frames before it gives the first one of it, which is a key frame.
                if frame.key_frame and not fixed:
                    shape = self._codec.sample_aspect_ratio or Fraction(1)
                yield frame, shape

    def _frames_of(self, packet: Any) -> Iterator[av.VideoFrame]:
        """What comes of a packet, or of None: mostly its frame, and none where it is not decoded now."""
        if self._thinner is None or packet is None:
            yield from self._decode(packet)
            return
        stamp = packet.pts if packet.dts is None else packet.dts
        seconds = None if stamp is None else float(stamp * packet.time_base)
        due = self._thinner.admit(packet, self._packet_times.place(seconds, self._arrived, self._waited), seconds)
        if due.anew:
            self._codec.flush_buffers()
        for number, each in enumerate(due.packets, 1):
            frames = self._decode(each)
            if number == len(due.packets):
                yield from frames
            else:
                deque(frames, 0)  # a newer one is there

    def _decode(self, packet: Any) -> Iterator[av.VideoFrame]:
        """Decode a packet, or None: what is left. Damage is counted; where the GPU is lost, no frame is."""
        if self._on_gpu:
            self._recent.add(packet)
        try:
            decoded = self._codec.decode(packet)
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            if self._on_gpu and isinstance(error, av.error.ExternalError):  # every packet from here on would fail
                log.warning("%s: decoded on the CPU from here on: the GPU failed: %s", self.where, error.strerror)
                yield from self._leave_gpu()
            else:
                self._skip(error.strerror)
            return
        if decoded and self._on_gpu and self._codec.pix_fmt != "cuda":
            # FFmpeg has asked the GPU, which knows the codec but not this profile or size
            self._on_gpu = False
            log.warning("%s: decoded on the CPU: NVDEC does not support this %s", self.where, self._describe())
        yield from decoded

    def _leave_gpu(self) -> Iterator[av.VideoFrame]:
        self._on_gpu = False
        options = self._bounds.codec_options
        limits = {"protocol_whitelist": "file", "format_whitelist": local_formats(), **options}
        self._codec, self._reopened = on_cpu(self.container, self.stream, options, limits)
        self._codec.thread_count = threads = self._threads()
        self._codec.thread_type = "AUTO" if threads > 1 else "NONE"
        for got in self._recent.decoded_by(self._codec):
            if isinstance(got, av.error.FFmpegError):
                self._skip(got.strerror)
            else:
                yield got

    def _threads(self) -> int:
        """How many codec threads suit the video, on the CPU."""
        large = self.stream.width * self.stream.height > _LARGE_PICTURE
        return min(_MAX_THREADS, os.cpu_count() or 1) if large else 1

    def _packets(self) -> Iterator[Any]:
        """Packets, then None to empty the decoder. Goes on behind errors as long as they are not endless."""
        failures = 0
        # Matroska's demuxer goes past what it cannot parse without a word; only a hole between packets tells.
        feed = self._feed
        wanted = [self.stream] if feed is None else feed.streams
        lone = len(self.container.streams) == 1 and "matroska" in self.container.format.name
        read_to = 0
        while True:
            try:
                asked = time.monotonic()
                for packet in self.container.demux(wanted):
                    if feed is not None and packet.stream_index != self.stream.index:
                        if packet.size:
                            feed.add_sound(packet)
                        continue
                    self._arrived = time.monotonic()
                    self._waited = self._arrived - asked > _WAITED_S
                    if self._abandoned:
                        return
                    if packet.size:
                        failures = 0
                        self._packets_read += 1
                        self._keyframes_read += packet.is_keyframe
                        if packet.is_corrupt:
                            self._skip("the container marks it as damaged")
                        elif lone and read_to and packet.pos and packet.pos - read_to > _LOST_BYTES:
                            self._skip("a part of the file cannot be parsed")
                        read_to = packet.pos + packet.size if packet.pos else 0
                        if feed is not None:
                            feed.add(packet, self._arrived, self._waited)
                        yield packet
                    asked = time.monotonic()
                break
            except (av.error.ExitError, av.error.TimeoutError):  # PyAV's own clock or FFmpeg's, whichever is first
                seconds = self.container.read_timeout or 0.0
                raise SourceError(f"no data for {seconds:g} s; gave up", self.where) from None
            except av.error.FFmpegError as error:
                if self._network and error.errno == errno.EIO and not self.container.duration:
                    # All that HTTP without a length can tell of an end.
                    log.warning("%s: the server ended the stream", self.where)
                    break
                if self._network and isinstance(error, OSError):
                    raise SourceError(f"the connection broke: {error.strerror}", self.where) from None
                failures += 1
                self._skip(error.strerror)
                if failures >= _MAX_READ_ERRORS or isinstance(error, OSError):
                    log.warning("%s: reading stopped early: %s", self.where, error.strerror)
                    break
        yield None

    def _describe(self) -> str:
        codec = self._codec
        return f"{codec.name} ({codec.pix_fmt}, {codec.width}x{codec.height})"

    def _skip(self, reason: str | None) -> None:
        """Count a damaged packet; the first one is reported."""
        self.corrupt += 1
        if not self._warned:
            self._warned = True
            log.warning("%s: damaged data is skipped (%s)", self.where, reason)

    def _stamp(self, frame: av.VideoFrame) -> int:
        """Return the stored time stamp of ``frame`` in units of ``time_base``; an estimate if it has none."""
        pts, dts, base = frame.pts, frame.dts, frame.time_base or self.stream.time_base
        if base and base != self.time_base:
            pts, dts = (None if t is None else round(t * base / self.time_base) for t in (pts, dts))
        self._own_stamp = pts is not None
        if pts is None:
            # Decoding times lag behind by a constant, but their distances tell of gaps.
            self.stamped = False
            last = self._last_pts
            passed = dts - self._last_dts if dts is not None and self._last_dts is not None else 0
            pts = self.stream.start_time or 0 if last is None else last + (passed if passed > 0 else self._step)
        self._last_pts, self._last_dts = pts, dts
        return int(pts)

    def _by_arrival(self, frame: av.VideoFrame) -> int:
        assert self._arrival is not None
        # FFmpeg gives an RTSP camera's first frame none; the next ones count from it.
        stamp = float((frame.pts or 0) * self.time_base) if self._own_stamp else None
        return round(self._arrival.place(stamp, self._arrived, self._waited) / self.time_base)
