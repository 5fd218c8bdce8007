"""Annotated video published over the network, or as HLS into a folder: one encoder for any number of targets.

with PublishSink(["rtsp://localhost:8554/street", "udp://239.0.0.1:1234"]) as sink:
    sink.open(source.info, model.card)
    for prediction in predictions:
        sink.write(prediction)
"""

from __future__ import annotations

import errno
import logging
import shutil
import threading
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

from perception.card import ModelCard
from perception.common.text import counted
from perception.errors import PerceptionError, SinkError, UsageError
from perception.publishing.address import PLAYLIST, SEGMENTS, PublishAddress
from perception.publishing.target import PublishStatus, PublishTarget
from perception.sinks.base import Sink
from perception.sinks.codecs import CODECS, choose_encoder
from perception.sinks.files import PLACE_S, check_folder, make_folder, sink_errors
from perception.sinks.packet_encoder import PacketEncoder
from perception.sinks.real_time import RealTime
from perception.types import Picture, Prediction, SourceInfo

log = logging.getLogger("perception")

STARTING_S = 5.0
"""The first frame of a recording waits so long for the targets, so that they get all of it."""

LEAST_FREE = 4 << 20
"""Bytes that must be free where a recording is written as HLS."""

ENDING_S = 5.0
"""Seconds at the end in which targets may take what is left."""

_TAKEN = ("libx264", "libx265")


class PublishSink(Sink):
    """Encodes annotated pictures without delay and publishes them, see `perception.publishing.address`.

    Each target is connected to again when it is lost. One that is away or slow misses frames, which are counted and
    told, and delays neither the others nor the source. Frames have the source's times; a recording is published in real
    time, unless all there is is HLS, which is then written as fast as it comes and kept whole. There is no sound.

    Args:
        path: an address, or several.
        overwrite: replace the playlist in a folder of HLS.
        codec: ``h264`` (default) or ``hevc``.
        crf: constant quality, lower is better; None takes the codec's usual one.
        preset: speed of the encoder; None takes ``superfast`` or what is like it.
        threads: of the encoder; None lets it choose.
        umask: of the files and the folder of HLS; None: that of this process.

    Raises:
        UsageError: an address or an option is wrong, or not for this FFmpeg; a playlist is there, and ``overwrite`` is
            False.
        SinkError: a folder is not writable.
    """

    wants_picture: ClassVar[bool] = True

    def __init__(
        self,
        path: str | Sequence[str],
        *,
        overwrite: bool = False,
        codec: str | None = None,
        crf: float | None = None,
        preset: str | None = None,
        threads: int | None = None,
        umask: int | None = None,
    ) -> None:
        texts = [path] if isinstance(path, str) else [*path]
        self._addresses = [PublishAddress.read(text) for text in texts]
        self.where = ", ".join(address.shown for address in self._addresses)
        if len({address.url for address in self._addresses}) < len(texts) or not texts:
            raise UsageError("publish to each address once", self.where or None)
        for address in self._addresses:
            _check_folder(address, overwrite)
        self._encoder = choose_encoder("mpegts", codec, crf, preset or "superfast", threads, self.where)
        if self._encoder.name not in _TAKEN:
            names = ", ".join(name for name, encoder in CODECS.items() if encoder in _TAKEN)
            raise UsageError(f"what is published is encoded by {names}, not by {codec}", self.where)
        self._umask = umask
        self._info: SourceInfo | None = None
        self._packets: PacketEncoder | None = None
        self._targets: list[PublishTarget] = []
        self._key = threading.Event()
        self._paced = False
        self._real_time: RealTime | None = None
        self._room: _Room | None = None

    @property
    def status(self) -> list[PublishStatus]:
        """How each target does, in their order; nothing before the first frame."""
        return [target.status for target in self._targets]

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        """Check the encoder; targets are connected to with the first frame."""
        self._encoder.check(max(2, info.width + info.width % 2), max(2, info.height + info.height % 2))
        self._info = info
        self._paced = not info.live and any(address.folder is None for address in self._addresses)

    def write(self, prediction: Prediction) -> None:
        """Encode a frame and give it to all targets; of a recording, when its time has come.

        Raises:
            SinkError: a recording cannot be written as HLS.
        """
        picture = prediction.picture if prediction.picture is not None else prediction.frame.picture
        seconds = prediction.frame.time
        packets = self._packets or self._begin(picture, seconds)
        if self._real_time is not None:
            seconds = self._real_time.wait(seconds)
        key = self._key.is_set()
        self._key.clear()
        if self._room is not None:
            self._room.check()
        for packet in packets.encode(picture, seconds, key):
            for target in self._targets:
                target.put(packet)

    def _begin(self, picture: Picture, seconds: float) -> PacketEncoder:
        assert self._info is not None, "write before open"
        info = self._info
        fps = (info.fps or Fraction(30)) / info.every
        self._packets = PacketEncoder(self._encoder, picture, fps)
        live = info.live or self._paced
        for address in self._addresses:
            _clear_folder(address, self._umask)
            target = PublishTarget(
                address, live, self._packets.head, self._key.set, lossless=not live, umask=self._umask
            )
            self._targets.append(target)
        if not info.live:
            deadline = time.monotonic() + STARTING_S
            for target in self._targets:
                target.wait(max(0.0, deadline - time.monotonic()))
        self._real_time = RealTime(seconds) if self._paced else None
        if not live:
            self._room = _Room([address.folder for address in self._addresses if address.folder is not None])
        return self._packets

    def close(self) -> None:
        """Send what is left.

        Raises:
            SinkError: there is a target that got nothing, or only a part of a recording.
        """
        if self._info is not None and self._packets is None:
            log.warning("%s: there were no frames, so nothing was published", self.where)
        failed: list[PerceptionError] = []
        for address, target in self._end(ENDING_S):
            status = target.status
            if not status.sent:
                why = f": {status.problem}" if status.problem else ""
                failed.append(SinkError(f"nothing was published{why}", address.shown))
            elif status.state == "failed":
                failed.append(SinkError(status.problem, address.shown))
            elif status.dropped:
                all_frames = counted(status.sent + status.dropped, "frame")
                log.warning("%s: %d of %s were not sent", address.shown, status.dropped, all_frames)
        for error in failed[1:]:
            log.warning("%s", error)
        if failed:
            raise failed[0]

    def abort(self) -> None:
        """End at once. A playlist of a recording does not say then that it is complete."""
        for target in self._targets:
            target.kill()
        self._end(0.0)

    def _end(self, seconds: float) -> list[tuple[PublishAddress, PublishTarget]]:
        """End all targets, in that time at most; return them with their addresses."""
        ended = [*zip(self._addresses, self._targets, strict=False)]  # there are none before the first frame
        for target in self._targets:
            target.finish()
        deadline = time.monotonic() + seconds
        for target in self._targets:
            target.close(deadline)
        if self._packets is not None:
            self._packets.close()
        self._info, self._packets, self._targets, self._room = None, None, [], None
        return ended


def _check_folder(address: PublishAddress, overwrite: bool) -> None:
    """Check that the folder of HLS, if it is that, can be written, and has no playlist that is not to be replaced."""
    if address.folder is not None:
        playlist = address.folder / PLAYLIST
        if playlist.exists() and not overwrite:
            raise UsageError("the file exists; give another folder, or `overwrite=True` to replace it", playlist)
        check_folder(address.folder, playlist)


def _clear_folder(address: PublishAddress, umask: int | None) -> None:
    """Make the folder of HLS, if it is that, and remove what an earlier run has left there."""
    if address.folder is not None:
        new = not address.folder.exists()
        make_folder(address.folder, address.shown)
        with sink_errors(address.shown):
            if new and umask is not None:
                address.folder.chmod(0o777 & ~umask)
            for old in [address.folder / PLAYLIST, *address.folder.glob(SEGMENTS)]:
                old.unlink(missing_ok=True)


class _Room:
    """Whether there is room for a recording: FFmpeg's segments are cut short on a full disk, and it does not say so."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._looked = 0.0

    def check(self) -> None:
        """Look, unless it was looked not long ago."""
        if time.monotonic() - self._looked >= PLACE_S:
            self._looked = time.monotonic()
            for folder in self._folders:
                with sink_errors(str(folder)):
                    if shutil.disk_usage(folder).free < LEAST_FREE:
                        raise OSError(errno.ENOSPC, "")
