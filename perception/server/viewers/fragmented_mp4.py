"""H.264 in fragmented MP4 over a WebSocket, for Media Source Extensions: one encoder for all viewers of equal options.

``WS /v1/streams/{id}/video?OPTIONS``. The server sends

1. text ``{"type": "video", "mime": "video/mp4; codecs=avc1.64001f", "width": 1280, "height": 720}``: make a
   SourceBuffer of that type, or where one is there already, start anew with ``changeType``;
2. binary: the initialisation segment, then media segments of one frame each, the first of which is a key frame;
3. text ``{"type": "status", ...}`` about once a second, before 1 too: see `perception.server.routes.streams`.

1 and 2 come again where picture size or options change. Times of the segments run on from where they were, but do not
start at 0: after the first one set ``video.currentTime = sourceBuffer.buffered.start(0)``, and seek to the end where
playing falls back by more than a second. A viewer who takes too long loses whole groups of frames and goes on with the
next key frame.

Where there is nothing to see, text ``{"type": "error", "error": "one line"}`` says why, and the socket is closed: with
code 1013 where it may be tried again, after ``retry_after_s`` seconds, else with 1008. It is closed with 1001 when the
stream has ended.

The client may send text ``{"options": {...}}`` at any time to change its options, see `perception.server.options`.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from fastapi import WebSocket, WebSocketDisconnect
from pydantic import ValidationError

from perception.card import ModelCard
from perception.common.strict import faults_in
from perception.errors import PerceptionError, UsageError
from perception.picture.encoder_frames import FrameMaker
from perception.picture.planes import size_of
from perception.server.options import Options
from perception.server.problems import Busy
from perception.server.streams.stream import Stream
from perception.server.viewers.broadcast import Broadcast, Viewer, ViewerSink
from perception.types import Picture, Prediction, SourceInfo

log = logging.getLogger("perception")

TIMESCALE = 90_000
KEYFRAME_S = 2.0
"""A key frame at least so often: what a viewer who fell behind has to wait for, if none is asked for."""

MAX_BEHIND = 30
"""Frames that may wait for a viewer; one who is further behind goes on with the next key frame."""

_ENCODER = {"preset": "superfast", "tune": "zerolatency", "crf": "24", "forced-idr": "1"}
_START_CODE = b"\x00\x00\x01"
_KEY, _OTHER = 0x02000000, 0x01010000
_TRY_AGAIN, _POLICY, _GONE = 1013, 1008, 1001


@dataclass(frozen=True, eq=False)
class Head:
    """Initialisation of a player, before the first segment.

    Attributes:
        data: the initialisation segment, ``ftyp`` and ``moov``.
        mime: type with the codec's exact profile, as `MediaSource.isTypeSupported` takes it.
        width, height: of the pictures in pixels.
    """

    data: bytes
    mime: str
    width: int
    height: int

    def message(self) -> str:
        """The text that announces it."""
        return json.dumps({"type": "video", "mime": self.mime, "width": self.width, "height": self.height})


@dataclass(frozen=True, eq=False)
class Segment:
    """One frame: ``moof`` and ``mdat``.

    Attributes:
        data: the bytes.
        key: whether decoding can begin with it.
        head: what it belongs to.
    """

    data: bytes
    key: bool
    head: Head


class SegmentEncoder:
    """Encodes pictures of one size as H.264, each as a media segment of its own, with no frame of delay.

    The segments are put together here, because a muxer writes a fragment only when the next frame begins.
    Boxes are those of ISO/IEC 14496-12.

    Args:
        first: the first picture; it fixes size, colour matrix and range.
        fps: about how many frames come a second, for the encoder's rate control.
    """

    def __init__(self, first: Picture, fps: float = 30.0) -> None:
        self._maker = FrameMaker(first)
        self._size = size_of(first)
        self._number = 0
        self._last: int | None = None
        self._step = round(TIMESCALE / fps)
        file = io.BytesIO()
        # Only the header is written by it; delay_moov would wait for a frame.
        self._output = av.open(file, "w", format="mp4", options={"movflags": "empty_moov+default_base_moof"})
        stream: Any = self._output.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options=_ENCODER)
        stream.width, stream.height, stream.pix_fmt = self._maker.width, self._maker.height, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, TIMESCALE)
        context = stream.codec_context
        context.gop_size = max(1, round(fps * KEYFRAME_S))
        context.max_b_frames = 0
        # Slices of one frame, of which small pictures have too few: more cores would only wait for each other.
        context.thread_count = 1 if self._maker.width * self._maker.height <= 1920 * 1088 else 4
        context.color_range = 2 if self._maker.full_range else 1
        context.colorspace = 1 if self._maker.matrix == "bt709" else 6
        self._output.start_encoding()
        if stream.time_base != Fraction(1, TIMESCALE):
            raise PerceptionError(f"the muxer chose a time base of {stream.time_base}")
        self._context = context
        data = file.getvalue()
        profile = data[data.index(b"avcC") + 5 :][:3].hex()
        self.head = Head(data, f"video/mp4; codecs=avc1.{profile}", self._maker.width, self._maker.height)

    def fits(self, picture: Picture) -> bool:
        """True if a picture has the size of the first one."""
        return size_of(picture) == self._size

    def encode(self, picture: Picture, seconds: float, key: bool = False) -> list[Segment]:
        """Encode a picture that is shown at ``seconds``; begin anew with a key frame if ``key`` says so."""
        frame = self._maker.frame(picture)
        pts = round(seconds * TIMESCALE)
        if self._last is not None:
            pts = max(pts, self._last + 1)
            self._step = min(pts - self._last, 10 * TIMESCALE)
        self._last = pts
        frame.pts, frame.time_base = pts, Fraction(1, TIMESCALE)
        if key:
            frame.pict_type = av.video.frame.PictureType.I
        return [self._segment(packet) for packet in self._context.encode(frame)]

    def close(self) -> None:
        """Give the encoder back."""
        # Frames inside are let go; without this the codec complains that it was not asked for them.
        with suppress(av.FFmpegError):
            self._context.encode(None)
        with suppress(av.FFmpegError):
            self._output.close()

    def _segment(self, packet: av.Packet) -> Segment:
        data = length_prefixed(bytes(packet))
        self._number += 1
        run = struct.pack(">IIIIII", 0x000701, 1, 0, self._step, len(data), _KEY if packet.is_keyframe else _OTHER)
        traf = _box(b"tfhd", struct.pack(">II", 0x020000, 1)) + _box(b"tfdt", struct.pack(">IQ", 1 << 24, packet.pts))
        head = _box(b"mfhd", struct.pack(">II", 0, self._number))
        size = 8 + len(head) + 8 + len(traf) + 8 + len(run)
        run = run[:8] + struct.pack(">I", size + 8) + run[12:]  # where the data is, from the beginning of moof
        moof = _box(b"moof", head + _box(b"traf", traf + _box(b"trun", run)))
        return Segment(moof + _box(b"mdat", data), bool(packet.is_keyframe), self.head)


def length_prefixed(data: bytes) -> bytes:
    """H.264 with start codes (Annex B of ITU-T H.264) as MP4 stores it: each unit behind its length, 4 bytes."""
    # A unit never ends with a zero byte: one before a start code is the code's own fourth byte.
    units = [unit.rstrip(b"\x00") for unit in data.split(_START_CODE)[1:]]
    return b"".join(len(unit).to_bytes(4, "big") + unit for unit in units)


class SegmentViewer(Viewer[Segment]):
    """A viewer who can begin, or go on after a loss, only with a key frame."""

    def __init__(self, broadcast: Broadcast[Segment]) -> None:
        super().__init__(broadcast)
        self._waits_for_key = True

    def offer(self, piece: Segment) -> None:
        if len(self._pieces) >= MAX_BEHIND:
            self.missed += len(self._pieces)
            self._pieces.clear()
            self._waits_for_key = True
        if self._waits_for_key and not piece.key:
            self.missed += 1
            return
        self._waits_for_key = False
        self._pieces.append(piece)
        self._changed.set()


class FragmentedMp4Sink(ViewerSink[Segment]):
    """Gives the media segments of one encoder, which begins anew where the pictures get another size."""

    viewer = SegmentViewer

    def __init__(self, give: Callable[[list[Segment]], None]) -> None:
        super().__init__(give)
        self._encoder: SegmentEncoder | None = None
        self._fps = 30.0
        self._wants_key = False

    def greet(self) -> None:
        """Begin the next frame with a key frame: who comes in the middle need not wait."""
        self._wants_key = True

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        """Take the frame rate, for the encoder's rate control."""
        self._fps = 30.0 if info.fps is None else float(info.fps)

    def write(self, prediction: Prediction) -> None:
        """Encode the annotated picture of a frame."""
        picture = prediction.picture
        assert picture is not None
        if self._encoder is not None and not self._encoder.fits(picture):
            self.close()
        if self._encoder is None:
            self._encoder = SegmentEncoder(picture, self._fps)
        key, self._wants_key = self._wants_key, False
        self._give(self._encoder.encode(picture, prediction.frame.time, key))

    def close(self) -> None:
        """Give the encoder back."""
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


class VideoSession:
    """One viewer on a WebSocket, until it leaves or the stream ends.

    Args:
        socket: accepted.
        stream: what is watched.
        options: how it is drawn.
    """

    def __init__(self, socket: WebSocket, stream: Stream, options: Options) -> None:
        self._socket = socket
        self._stream = stream
        self._options = options
        self._viewer: Viewer[Segment] = Broadcast.join(stream, options, FragmentedMp4Sink)
        self._head: Head | None = None

    async def run(self) -> None:
        """Send until there is nothing more to send, or nobody to send it to."""
        listening = asyncio.create_task(self._listen())
        sending = asyncio.create_task(self._send())
        try:
            await asyncio.wait((listening, sending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (listening, sending):
                task.cancel()
            results = await asyncio.gather(listening, sending, return_exceptions=True)
            self._viewer.leave()
        for error in results:
            if isinstance(error, Exception) and not isinstance(error, (RuntimeError, WebSocketDisconnect)):
                raise error

    async def _listen(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            try:
                options = _read_message(message.get("text"))
                viewer = Broadcast.join(self._stream, options, FragmentedMp4Sink)
            except PerceptionError as error:
                await self._socket.send_text(json.dumps({"type": "error", "error": str(error)}))
                if not isinstance(error, Busy):
                    await asyncio.sleep(0.2)  # who sends nonsense is answered slowly
                continue
            self._viewer, before = viewer, self._viewer
            before.leave()

    async def _send(self) -> None:
        told = 0.0
        while True:
            viewer = self._viewer
            segment = await viewer.next(0.5)
            if segment is not None:
                if segment.head is not self._head:
                    self._head = segment.head
                    await self._socket.send_text(segment.head.message())
                    await self._socket.send_bytes(segment.head.data)
                await self._socket.send_bytes(segment.data)
            if time.monotonic() - told > 1.0 or (viewer.over and viewer is self._viewer):
                told = time.monotonic()
                status = await asyncio.to_thread(self._stream.status)
                await self._socket.send_text(json.dumps({"type": "status", **status}))
                if viewer.over and viewer is self._viewer:
                    await self._socket.close(_GONE, "the stream has ended")
                    return


def _read_message(text: str | None) -> Options:
    try:
        message = json.loads(text or "")
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict) or set(message) != {"options"}:
        raise UsageError('a message is {"options": {...}}, JSON as text')
    return read_options(message["options"])


def read_options(values: Any) -> Options:
    """Options of a message or a query.

    Raises:
        UsageError: naming all that is wrong.
    """
    try:
        return Options.model_validate(values)
    except ValidationError as error:
        raise UsageError(faults_in(error)[:500]) from None


async def refuse(socket: WebSocket, error: PerceptionError) -> None:
    """Say on an accepted socket why there is nothing to see, and close it."""
    answer: dict[str, Any] = {"type": "error", "error": str(error)}
    if isinstance(error, Busy):
        answer["retry_after_s"] = error.retry_after_s
    with suppress(RuntimeError, WebSocketDisconnect):  # the client has left
        await socket.send_text(json.dumps(answer))
        reason = str(error).encode()[:120].decode(errors="ignore")  # RFC 6455: at most 123 bytes
        await socket.close(_TRY_AGAIN if isinstance(error, Busy) else _POLICY, reason)
