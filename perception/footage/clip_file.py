"""A file of packets: what a source sent, put into a container as it came."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import av
import av.error

from perception.sources.packets import Packet, Tracks


class ClipFile:
    """Writes the packets of a stretch, from a key frame on, into MP4 or Matroska. Nothing is encoded.

    The first frame is shown at 0. Frames that are shown before it, though they come behind it, need others that are not
    there, and are left out; so is sound from before.

    Args:
        path: the file; it may have any name.
        tracks: of the packets.
        first: the key frame.

    Attributes:
        bytes: of the packets so far.

    Raises:
        OSError: it cannot be written. So do all methods.
        ValueError: the container cannot have these tracks.
    """

    def __init__(self, path: Path, tracks: Tracks, first: Packet) -> None:
        self.bytes = 0
        self._path = path
        self._first = first
        self._last: dict[bool, int] = {}
        options = {"movflags": "+faststart"} if tracks.format == "mp4" else {}
        self._container = av.open(str(path), "w", format=tracks.format, container_options=options)
        self._video, self._sound = tracks.add_to(self._container)

    def write(self, packets: Sequence[Packet]) -> None:
        """Append packets, in the order in which they came."""
        for packet in packets:
            if packet.time < self._first.time:
                continue
            track = self._sound if packet.sound else self._video
            made = av.Packet(packet.data)
            made.stream = track
            made.time_base = packet.time_base
            begin = round(self._first.pts * self._first.time_base / packet.time_base)
            # Time stamps of sound may come twice, and clocks of a different unit round.
            dts = max(packet.dts - begin, self._last.get(packet.sound, packet.dts - begin - 1) + 1)
            self._last[packet.sound] = dts
            made.pts, made.dts = max(packet.pts - begin, dts), dts
            made.duration = packet.duration
            made.is_keyframe = packet.key
            self._container.mux_one(made)
            self.bytes += len(packet.data)

    def close(self) -> None:
        """Finish the file; it is on the disk then."""
        self._container.close()
        handle = os.open(self._path, os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def abort(self) -> None:
        """Give it up, whatever state it is in."""
        with suppress(OSError, ValueError, av.error.FFmpegError):
            self._container.close()
