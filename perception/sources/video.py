"""Video files, and container streams from a pipe: everything that comes is given, in order, nothing dropped.

Time. ``Frame.time`` is in seconds from the beginning of the container: its time stamp times ``time_base``, less the
container's start time where that is above zero (MPEG-TS and recordings of broadcasts begin anywhere), or the video's
own where that is below (a clock that wraps). A video track that begins after the audio therefore begins after 0.
``Frame.pts`` is the stamp as stored, except that missing ones
are filled in and ones that run backwards are moved on; ``pts * time_base - time`` is the container's start.
"""

from __future__ import annotations

import os
import re
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import av
import av.error

from perception.common.bounds import Bounds
from perception.errors import SourceError
from perception.sources.base import Selection, Source, log
from perception.sources.container import StillPictureError, local_formats, open_container
from perception.sources.decode import Decoder
from perception.sources.heif import is_heif
from perception.sources.packets import PacketRing
from perception.sources.presentation import Presenter
from perception.sources.uri import redact
from perception.types import Frame, SourceInfo

_SLACK = 1e-6  # seconds: time stamps are whole units, what the user types is not
_CUT_SHORT_S = 1.0  # so much less than the container declares is no matter of rounding
_NEAR = 1.0  # seconds: so near to the beginning, decoding is quicker than jumping


class VideoSource(Source):
    """Frames of an open container, decoded when they are asked for.

    The first frame is decoded at once: what cannot be decoded fails here and not later.

    Args:
        container: what to read; closed with the source.
        uri: what it is called.
        kind: for ``info``.
        selection: which frames.
        threads, deinterlace: see ``Decoder``.
        seekable: ``start`` may jump; otherwise what lies before it is decoded and thrown away.
        path: the local file, if it is one.
        first_timeout: seconds to wait for the first frame; None: until the data ends.
        bounds: what it is held to.
        packets: is given them as they are read.

    Raises:
        SourceError: there is nothing to decode, or nothing from ``start`` on.
    """

    _decoded = False  # whether a frame could be

    def __init__(
        self,
        container: av.container.InputContainer,
        uri: str,
        kind: Literal["file", "stdin", "stream"],
        selection: Selection,
        *,
        threads: int = 0,
        deinterlace: bool = True,
        seekable: bool = True,
        path: Path | None = None,
        first_timeout: float | None = None,
        bounds: Bounds | None = None,
        packets: PacketRing | None = None,
    ) -> None:
        super().__init__()
        self._bounds = bounds = bounds or Bounds()
        self._select = selection
        self._decoder = decoder = Decoder(
            container, uri, threads=threads, deinterlace=deinterlace, network=kind == "stream", bounds=bounds,
            packets=packets,
        )  # fmt: skip
        self._present = Presenter(decoder.where, bounds)
        try:
            self._pictures, first = self._begin(seekable, first_timeout)
            planes, image = self._present(first, decoder.sample_aspect_ratio)
        except BaseException:
            decoder.close()
            raise
        self._first: av.VideoFrame | None = first
        stream = decoder.stream
        total = _shown(stream) or None
        exact = total is not None
        if total is None and decoder.fps is not None:
            if stream.duration is not None:
                length = float(stream.duration * decoder.time_base)
            else:
                length = (container.duration or 0) / 1e6
            total = round(length * decoder.fps) or None
        # A length in seconds tells no number of frames: their rate may vary.
        self._total = total if total and exact and selection.whole else 0
        self._declared = _declared_end(stream) if selection.whole else 0.0
        probe = Frame(image, planes=planes)
        self.info = SourceInfo(
            uri=redact(uri),
            kind=kind,
            width=probe.width,
            height=probe.height,
            fps=decoder.fps,
            time_base=decoder.time_base,
            frame_count=selection.count(total, decoder.fps),
            exact_count=exact and selection.whole,
            path=None if path is None else str(path),
            start=selection.start,
            duration=selection.duration,
            every=selection.every,
        )

    def _begin(self, seekable: bool, first_timeout: float | None) -> tuple[Iterator[av.VideoFrame], av.VideoFrame]:
        """Return the frames that follow, and the first one that is wanted."""
        decoder, start = self._decoder, self._select.start
        frames = decoder.frames()
        decoder.deadline = None if first_timeout is None else time.monotonic() + first_timeout
        first = next(frames, None)
        decoder.deadline = None
        self._decoded = first is not None
        if first is None:
            reason = (
                f"nothing in it can be decoded ({decoder.corrupt} damaged packets)"
                if decoder.corrupt
                else "there is a video stream, but no frame in it"
            )
            raise SourceError(reason, decoder.where)
        decoder.begin(first)
        if decoder.seconds(first) >= start - _SLACK:
            return frames, first
        begin = decoder.seconds(first)
        # Containers may land late (an index with gaps, MPEG-TS between keyframes): then begin further back.
        jumps = (start, start - 10, start - 60, begin) if seekable and decoder.stamped else ()
        for target in jumps if start - begin > _NEAR else ():
            target = max(target, begin)
            try:
                # MPEG-TS finds its first keyframe only when asked for something well before it.
                decoder.seek(target if target > begin else begin - 10)
            except av.error.FFmpegError:
                break
            frames = decoder.frames()
            landed = next(frames, None)
            if landed is not None and (decoder.seconds(landed) <= start + _SLACK or target <= begin):
                first = landed
                break
        found: av.VideoFrame | None = first
        while found is not None and decoder.seconds(found) < start - _SLACK:
            self._bounds.check(decoder.where)
            found = next(frames, None)
        if found is None:
            raise SourceError(f"it ends before second {start:g}, where it should begin", decoder.where)
        return frames, found

    def _read(self) -> Iterator[Frame]:
        decoder, select_ = self._decoder, self._select
        decoded = 0
        given = 0
        last_time = lasts = 0.0
        picture, self._first = self._first, None
        while picture is not None and not self._closing:
            seconds = decoder.seconds(picture)
            if seconds >= select_.end - _SLACK:
                return
            self.corrupt = decoder.corrupt
            last_time, lasts = seconds, decoder.duration(picture) or 0.0
            decoded += 1
            if (decoded - 1) % select_.every == 0:
                planes, image = self._present(picture, decoder.sample_aspect_ratio)
                yield Frame(
                    image,
                    index=decoded - 1,
                    time=seconds,
                    source=self.info.uri,
                    pts=picture.pts,
                    time_base=decoder.time_base,
                    planes=planes,
                    arrived=time.monotonic(),
                    duration=decoder.duration(picture),
                )
                given += 1
                if given == select_.max_frames:
                    return
            picture = next(self._pictures, None)
        self.corrupt = decoder.corrupt
        if not self._closing:
            self._report_missing_end(decoded, last_time, lasts)

    def _report_missing_end(self, decoded: int, last_time: float, lasts: float) -> None:
        # Some muxers count from the first frame, some from 0.
        end = last_time + lasts + self._decoder.origin
        if decoded < self._total:
            log.warning(
                "%s: %d of %d frames could be read, the last at %.2f s; the rest is missing or damaged",
                self.info.uri,
                decoded,
                self._total,
                last_time,
            )
        elif end < self._declared - _CUT_SHORT_S:
            log.warning(
                "%s: it ends at %.2f s and should last %.2f s; the rest is missing or damaged",
                self.info.uri,
                end,
                self._declared,
            )
        elif self.corrupt:
            log.warning("%s: %d damaged packets", self.info.uri, self.corrupt)

    def _release(self) -> None:
        self._pictures = iter(())
        self._first = None
        self._decoder.close()


def _shown(stream: av.VideoStream) -> int:
    """Return the number of frames that the container says are shown; 0 where it does not say.

    MP4 and MOV count all that is stored: those that a cut on a phone has left out (an edit list, ISO/IEC 14496-12,
    8.6.6) are there but not in the index, or marked as not shown. AVI counts times for which there may be no frame.
    """
    if stream.frames and len(stream.index_entries):
        if "mov" in stream.container.format.name:
            return sum(not entry.is_discard for entry in stream.index_entries)
        if stream.container.format.name == "avi":
            return sum(entry.size > 0 for entry in stream.index_entries)
    return stream.frames


def _declared_end(stream: av.VideoStream) -> float:
    """Return the seconds at which a Matroska or WebM file says that its video ends; 0 where it does not say."""
    container: Any = stream.container
    if "matroska" not in container.format.name:
        return 0.0
    told = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if told:
        return 3600 * int(told[1]) + 60 * int(told[2]) + float(told[3])
    # The file's own length is that of its longest stream.
    return (container.duration or 0) / 1e6 if len(container.streams) == 1 else 0.0


def open_file(
    path: str | Path,
    selection: Selection,
    *,
    decoding: str = "auto",
    bounds: Bounds | None = None,
    **options: Any,
) -> VideoSource:
    """Open a video file: every container and codec that PyAV's FFmpeg reads.

    Only the file itself is read: playlists and references to other files are refused.

    Args:
        path: the file.
        selection: which frames.
        decoding: where to decode, see ``perception.sources.nvdec``.
        bounds: what it is held to.
        options: of ``VideoSource``.

    Raises:
        SourceError: the file is missing, empty, unreadable, or holds no video.
    """
    path = Path(path)
    try:
        status = path.stat()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise SourceError(reason, path) from None
    except ValueError as error:
        raise SourceError(f"not a file name: {error}", repr(str(path))) from None
    if not path.is_file():
        raise SourceError("neither a file nor a folder; read a pipe with `-`", path)
    if status.st_size == 0:
        raise SourceError("the file is empty", path)
    try:
        with path.open("rb") as file:
            head = file.read(16).lstrip(b"\xef\xbb\xbf \r\n\t")
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}", path) from None
    if head.startswith((b"#EXTM3U", b"ffconcat", b"<MPD", b"<?xml")):
        raise SourceError("this is a playlist, not a video; give the videos that it lists", path)
    if is_heif(head):
        raise StillPictureError("this is a picture (HEIF), not a video; rename it with the extension .heic", path)
    bounds = bounds or Bounds.of_file(status.st_size)
    # Without the scheme FFmpeg would take a name such as "concat:a|b" for a protocol.
    target = f"file:{path.absolute()}"
    limits = {"protocol_whitelist": "file", "format_whitelist": local_formats()}
    container = open_container(target, str(path), limits, decoding=decoding, bounds=bounds)
    return VideoSource(container, str(path), "file", selection, path=path, bounds=bounds, **options)


class _Pipe:
    """A pipe as a file object whose reads end when the source is closed."""

    def __init__(self, stream: Any) -> None:
        self.name = "-"
        self.closing = False
        self.head = b""
        self._stream = stream
        try:
            self._descriptor: int | None = stream.fileno() if os.name == "posix" else None
        except (OSError, ValueError, AttributeError):
            self._descriptor = None

    def read(self, size: int) -> bytes:
        data = self._read_some(size)
        if len(self.head) < 16:
            self.head = (self.head + data)[:16]
        return data

    def _read_some(self, size: int) -> bytes:
        if self._descriptor is None:
            return bytes(self._stream.read(size))
        while not self.closing:
            ready, _, _ = select.select([self._descriptor], [], [], 0.2)
            if ready:
                return os.read(self._descriptor, size)
        return b""


class PipeSource(VideoSource):
    """A container stream from standard input, read as it comes. It cannot seek: ``start`` decodes up to there."""

    def __init__(
        self,
        selection: Selection,
        stream: Any = None,
        *,
        decoding: str = "auto",
        bounds: Bounds | None = None,
        **options: Any,
    ) -> None:
        if stream is None:
            if sys.stdin is None:
                raise SourceError("standard input is closed; pipe a video into it", "-")
            stream = sys.stdin.buffer
        if stream.isatty():
            raise SourceError("standard input is a terminal; pipe a video into it", "-")
        self._pipe = _Pipe(stream)
        try:
            limits = {"protocol_whitelist": "pipe", "format_whitelist": local_formats()}
            container = open_container(self._pipe, "-", limits, decoding=decoding, bounds=bounds)
            super().__init__(container, "-", "stdin", selection, seekable=False, bounds=bounds, **options)
        except SourceError:
            if not self._pipe.head:
                raise SourceError("standard input is empty", "-") from None
            if self._pipe.head[4:8] == b"ftyp" and not self._decoded:
                raise SourceError(
                    "this MP4 has its index at the end and cannot be read from a pipe; "
                    "give the file by its path, or pipe MPEG-TS, Matroska or fragmented MP4",
                    "-",
                ) from None
            raise

    def _interrupt(self) -> None:
        self._pipe.closing = True
