"""The latest packets of a source as they came, compressed, so that what was a while ago can still be written to a file.

    ring = PacketRing(seconds=5, max_bytes=64 << 20)
    source = open_source("rtsp://cam1.local/stream", packets=ring)
    for frame in source:
        moment = ring.reach(frame.arrived)      # and what is not needed for later ones is forgotten

Packets are kept from a key frame on, in the order of decoding, in stretches: each is one connection, or what lies
between two times at which the source's clock was set back.
"""

from __future__ import annotations

import io
import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import Any, NamedTuple

import av

from perception.common.timestamps import ArrivalTimeline

MP4_VIDEO = ("h264", "hevc", "av1", "mpeg4")
MP4_SOUND = ("aac", "mp3", "ac3", "eac3", "opus", "flac")
"""Codecs that players find in MP4; all else is for Matroska, which takes nearly anything."""

_MOST_FRAMES = 4096
_MOST_REORDERED = 100
_LIVE_BASE = Fraction(1, 90_000)
_MOST_DELAY_S = 2.0  # from decoding to showing
_SAME_S = 0.0005


@dataclass(frozen=True, slots=True)
class Packet:
    """A compressed picture, or some of the sound.

    Attributes:
        number: of the packet in its stretch; each is one more than the last.
        time: seconds at which it is shown, by ``pts``.
        stamp: these seconds as the container has them; NaN where it does not say. Of a live source they may be wrong.
        pts, dts, duration: in units of ``time_base``.
        time_base: seconds.
        key: decoding can begin here.
        sound: it is sound.
        data: what the codec made.
    """

    number: int
    time: float
    stamp: float
    pts: int
    dts: int
    duration: int
    time_base: Fraction
    key: bool
    sound: bool
    data: bytes


class Tracks:
    """The properties of a container's tracks that a file with their packets needs; they outlive the container.

    Args:
        video: of the container that is read.
        sound: likewise, or None.

    Attributes:
        format: FFmpeg's name of the container format that takes them.
        suffix: of files of that format.

    Raises:
        ValueError: no file can have them.
        av.error.FFmpegError: likewise.
    """

    def __init__(self, video: Any, sound: Any = None) -> None:
        common = video.codec_context.name in MP4_VIDEO and (sound is None or sound.codec_context.name in MP4_SOUND)
        self.format = "mp4" if common else "matroska"
        self.suffix = ".mp4" if common else ".mkv"
        # A container that is never written holds copies of what the other one says, which is closed with its source.
        self._holder = av.open(io.BytesIO(), "w", format=self.format)
        self._video = self._holder.add_stream_from_template(video, opaque=True)
        self._sound = None if sound is None else self._holder.add_stream_from_template(sound, opaque=True)

    def add_to(self, container: Any) -> tuple[Any, Any]:
        """Add the tracks to a container that is to be written: video, and sound or None."""
        video = container.add_stream_from_template(self._video, opaque=True)
        if self.format == "mp4" and self._video.codec_context.name == "hevc":
            video.codec_tag = "hvc1"  # others than FFmpeg do not play it otherwise
        sound = None if self._sound is None else container.add_stream_from_template(self._sound, opaque=True)
        return video, sound


class Stretch:
    """Packets without a break, of which the oldest are forgotten. Only `PacketRing` and its feeds change it.

    Attributes:
        tracks: what they are of.
        ended: there will be no more.
    """

    def __init__(self, tracks: Tracks) -> None:
        self.tracks = tracks
        self.ended = False
        self.reached: float | None = None
        self.packets: deque[Packet] = deque()
        self.keys: deque[tuple[int, float]] = deque()
        self.frames: deque[tuple[float, float]] = deque(maxlen=_MOST_FRAMES)
        self.bytes = 0
        self.count = 0

    def append(self, packet: Packet) -> None:
        self.packets.append(packet)
        self.count += 1
        self.bytes += len(packet.data)
        if packet.key and not packet.sound:
            self.keys.append((packet.number, packet.time))

    def forget_first(self) -> None:
        """Forget what lies before the second key frame, all if there is none."""
        self.keys.popleft()
        until = self.keys[0][0] if self.keys else self.count
        while self.packets and self.packets[0].number < until:
            self.bytes -= len(self.packets.popleft().data)


class Moment(NamedTuple):
    """Where a frame lies among the packets.

    Attributes:
        stretch: of its packet.
        time: seconds, in the clock of `Packet.time`.
    """

    stretch: Stretch
    time: float


class PacketRing:
    """The latest packets of a source, over all its connections. Safe to use from any thread.

    Args:
        seconds: so much is kept before the frame that was given to `reach` last, from a key frame on.
        max_bytes: most that the packets of a connection take, whatever else is asked for.
        sound: keep the sound, too.

    Attributes:
        problem: why there may be no packets of a video, in one clause; empty where there is no video.
    """

    def __init__(self, seconds: float, max_bytes: int, sound: bool = False) -> None:
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._sound = sound
        self.problem = ""
        self._lock = threading.Lock()
        self._stretches: deque[Stretch] = deque(maxlen=2)  # events of the last frames may come behind a break

    # For who reads the source.

    def begin(self, container: Any, video: Any, timeline: ArrivalTimeline | None) -> PacketFeed | None:
        """Begin with a connection.

        Args:
            container, video: what is read, and its track.
            timeline: of a live source, new; None: time stamps are believed.

        Returns:
            what takes its packets; None where no file can have them.
        """
        sounds = container.streams.audio if self._sound else ()
        sound = sounds[0] if sounds else None
        self.problem = "there was no key frame before it, or more lies between two than may be kept"
        try:
            tracks = Tracks(video, sound)
        except (ValueError, av.error.FFmpegError):
            self.problem = "no container takes its codec"
            return None
        return PacketFeed(self, tracks, video, sound, timeline)

    # For who writes files.

    def reach(self, arrived: float) -> Moment | None:
        """Find the frame that was taken from the source at ``arrived``; what lies long before it may be forgotten.

        Returns:
            where it is; None where its packets are not there.
        """
        with self._lock:
            for stretch in reversed(self._stretches):
                frames = stretch.frames
                if frames and frames[0][0] <= arrived:
                    while len(frames) > 1 and frames[1][0] <= arrived:
                        frames.popleft()
                    stretch.reached = frames[0][1]
                    return Moment(stretch, stretch.reached)
            return None

    def start(self, moment: Moment) -> int | None:
        """Return the number of the key frame at which to begin; None where the frame itself could not be decoded."""
        with self._lock:
            keys = [key for key in moment.stretch.keys if key[1] <= moment.time]
            early = [number for number, shown in keys if shown <= moment.time - self._seconds]
            return early[-1] if early else keys[0][0] if keys else None

    def behind(self, moment: Moment) -> int:
        """Return the number behind that of the frame's own packet: what comes before is all that it needs."""
        with self._lock:
            for packet in reversed(moment.stretch.packets):
                if not packet.sound and abs(packet.time - moment.time) < _SAME_S:
                    return packet.number + 1
            return moment.stretch.count

    def packets(self, stretch: Stretch, number: int) -> tuple[list[Packet], bool]:
        """Return the packets from ``number`` on that there are, and whether there will be no more.

        Where that one is forgotten already there are none, and there will be none.
        """
        with self._lock:
            held = stretch.packets
            if number >= stretch.count:
                return [], stretch.ended
            if not held or held[0].number > number:
                return [], True
            return [*islice(held, number - held[0].number, None)], stretch.ended

    # For feeds.

    def new_stretch(self, tracks: Tracks) -> Stretch:
        """Begin a stretch."""
        with self._lock:
            stretch = Stretch(tracks)
            self._stretches.append(stretch)
            return stretch

    def end(self, stretch: Stretch) -> None:
        """No more packets will come."""
        with self._lock:
            stretch.ended = True

    def add(self, stretch: Stretch, packet: Packet) -> None:
        """Append a packet, and forget what is too old or too much."""
        with self._lock:
            if not stretch.packets and (packet.sound or not packet.key):
                return
            stretch.append(packet)
            keys = stretch.keys
            if packet.key and stretch.reached is not None:
                oldest = min(packet.time, stretch.reached) - self._seconds
                while len(keys) > 1 and keys[1][1] <= oldest:
                    stretch.forget_first()
            while stretch.bytes > self._max_bytes and keys:
                stretch.forget_first()

    def show(self, stretch: Stretch, stamp: float) -> None:
        """A frame was decoded, whose own time stamp is ``stamp`` seconds."""
        with self._lock:
            pictures = [p for p in islice(reversed(stretch.packets), _MOST_REORDERED) if not p.sound]
            found = next((p for p in pictures if abs(p.stamp - stamp) < _SAME_S), pictures[0] if pictures else None)
            if found is not None:
                stretch.frames.append((time.monotonic(), found.time))


class PacketFeed:
    """Takes the packets of one connection. One thread drives it.

    Args:
        ring: where they go.
        tracks: what they are of.
        video, sound: streams of the container that is read; ``sound`` may be None.
        timeline: of a live source; None: time stamps are believed.

    Attributes:
        streams: the container's streams whose packets are wanted.
    """

    def __init__(
        self, ring: PacketRing, tracks: Tracks, video: Any, sound: Any, timeline: ArrivalTimeline | None
    ) -> None:
        self.streams = [video] if sound is None else [video, sound]
        self._ring = ring
        self._tracks = tracks
        self._video = video
        self._timeline = timeline
        self._last: int | None = None
        self._shift = 0.0
        self._stretch = ring.new_stretch(tracks)

    def add(self, packet: Any, arrived: float, waited: bool) -> None:
        """Take a packet of the video.

        Args:
            packet: with the time stamps of the container.
            arrived, waited: see `perception.common.timestamps.ArrivalTimeline.place`.
        """
        pts, dts, base = packet.pts, packet.dts, packet.time_base
        reordered = self._video.codec_context.has_b_frames
        if not reordered:
            if pts is None and dts is None and packet.duration:  # a lone stream, without any clock
                dts = 0 if self._last is None else self._last + packet.duration
            pts = dts if pts is None else pts
            dts = pts if dts is None else dts
        stamp = math.nan if pts is None else float(pts * base)
        if self._timeline is not None and (not reordered or (pts is not None and dts is not None)):
            decoded = None if dts is None else float(dts * base)
            placed = self._timeline.place(decoded, arrived, waited)
            self._shift = placed - (decoded or 0.0)
            delay = 0.0 if decoded is None else min(max(stamp - decoded, 0.0), _MOST_DELAY_S)
            base = _LIVE_BASE
            dts, pts = round(placed / base), round((placed + delay) / base)
        if pts is None or dts is None:
            # In the order of decoding, and when each is to be shown is not told.
            self._ring.problem = "its container does not say when each picture is shown"
            self.cut()
            return
        if self._last is not None and dts <= self._last:
            self.cut()
        self._last = dts
        self._put(packet, stamp, pts, dts, base, False)

    def add_sound(self, packet: Any) -> None:
        """Take a packet of the sound."""
        pts, base = packet.pts, packet.time_base
        if pts is not None:
            stamp = float(pts * base)
            pts += round(self._shift / base)
            self._put(packet, stamp, pts, pts, base, True)

    def _put(self, packet: Any, stamp: float, pts: int, dts: int, base: Fraction, sound: bool) -> None:
        made = Packet(
            self._stretch.count, float(pts * base), stamp, pts, dts, packet.duration or 0, base,
            packet.is_keyframe and not sound, sound, bytes(packet),
        )  # fmt: skip
        self._ring.add(self._stretch, made)

    def show(self, stamp: float) -> None:
        """A frame was decoded, whose own time stamp is ``stamp`` seconds."""
        self._ring.show(self._stretch, stamp)

    def cut(self) -> None:
        """What comes from here on does not follow what came before."""
        self._ring.end(self._stretch)
        self._stretch = self._ring.new_stretch(self._tracks)
        self._last = None

    def end(self) -> None:
        """The connection is over."""
        self._ring.end(self._stretch)
