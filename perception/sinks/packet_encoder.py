"""One encoder for what is watched while it is made, whatever number of targets gets its packets."""

from __future__ import annotations

import io
from contextlib import suppress
from fractions import Fraction

import av

from perception.picture.encoder_frames import FrameMaker
from perception.publishing.process import TIMESCALE, EncodedPacket
from perception.sinks.codecs import Encoder
from perception.types import Picture

KEYFRAME_S = 2.0
"""Seconds from one key frame to the next: what a player that comes in the middle waits for, at most."""


class PacketEncoder:
    """Encodes pictures one by one, with no frame of delay.

    Args:
        encoder: which, and its settings.
        first: the first picture; it fixes size, colour matrix and range.
        fps: about how many frames come a second, for the encoder's rate control.

    Attributes:
        head: describes the packets, see `perception.publishing.process.ask`.
    """

    def __init__(self, encoder: Encoder, first: Picture, fps: Fraction) -> None:
        self._maker = FrameMaker(first)
        self._step = round(TIMESCALE / fps)
        self._last: int | None = None
        self._key_at = 0
        file = io.BytesIO()
        self._output = av.open(file, "w", format="nut", container_options={"flush_packets": "1"})
        stream = encoder.add_to(
            self._output,
            size_wh=(self._maker.width, self._maker.height),
            fps=fps,
            time_base=Fraction(1, TIMESCALE),
            keyframe_interval=max(1, 10 * round(fps * KEYFRAME_S)),  # it is the clock that decides, see `encode`
            immediate=True,
        )
        context = stream.codec_context
        # Slices of one frame, of which small pictures have too few: more cores would only wait for each other.
        if not encoder.threads:
            context.thread_count = 1 if self._maker.width * self._maker.height <= 1920 * 1088 else 4
        context.color_range = 2 if self._maker.full_range else 1
        context.colorspace = 1 if self._maker.matrix == "bt709" else 6
        self._output.start_encoding()
        described = av.Packet(bytes(8))  # without one the file cannot be read
        described.stream, described.pts, described.dts, described.time_base = stream, 0, 0, Fraction(1, TIMESCALE)
        self._output.mux_one(described)
        self._context = context
        self.head = file.getvalue()

    def encode(self, picture: Picture, seconds: float, key: bool = False) -> list[EncodedPacket]:
        """Encode a picture that is shown at ``seconds``.

        It becomes a key frame where the last one is `KEYFRAME_S` away, whatever the frame rate, or ``key`` asks for it.
        """
        frame = self._maker.frame(picture)
        pts = round(seconds * TIMESCALE)
        if self._last is None:
            key = True
        else:
            pts = max(pts, self._last + 1)
            self._step = min(pts - self._last, 10 * TIMESCALE)
            key = key or pts - self._key_at >= KEYFRAME_S * TIMESCALE
        self._last = pts
        frame.pts, frame.time_base = pts, Fraction(1, TIMESCALE)
        if key:
            self._key_at = pts
            frame.pict_type = av.video.frame.PictureType.I
        return [
            EncodedPacket(bytes(packet), pts if packet.pts is None else packet.pts, self._step, packet.is_keyframe)
            for packet in self._context.encode(frame)
        ]

    def close(self) -> None:
        """Give the encoder back."""
        # There is none inside; without this the codec complains that it was not asked.
        with suppress(av.FFmpegError):
            self._context.encode(None)
        with suppress(av.FFmpegError):
            self._output.close()
