"""Going on with another decoder where one has failed in the middle of a video."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av

_MOST_BYTES = 64 << 20
"""Of packets that are kept: ten seconds of a stream of 50 Mbit/s."""


class RecentPackets:
    """The packets from which every frame that was not shown yet can be decoded again.

    They begin at the last key frame that was shown, or at the first packet.
    """

    def __init__(self) -> None:
        self._groups: list[list[Any]] = []  # each begins with a key frame
        self._bytes = 0
        self._last_pts: int | None = None
        self._whole = True

    def add(self, packet: Any) -> None:
        """Keep a packet that is given to the decoder; None, which ends the video, too."""
        if self._whole and (not self._groups or (packet is not None and packet.is_keyframe)):
            self._groups.append([])
        if self._groups:
            self._groups[-1].append(packet)
            self._bytes += 0 if packet is None else packet.size
        if self._bytes > _MOST_BYTES:
            self._give_up()

    def shown(self, pts: int | None) -> None:
        """Note that the frame of a time stamp has come from the decoder."""
        self._last_pts = pts
        if pts is None:  # which frames are new could not be told
            self._give_up()
        while len(self._groups) > 1 and pts is not None and _stamp(self._groups[1][0]) <= pts:
            self._bytes -= sum(packet.size for packet in self._groups.pop(0))

    def decoded_by(self, codec: Any) -> Iterator[Any]:
        """Yield the frames that were not shown yet, from another decoder, and its errors in between."""
        groups, self._groups, last = self._groups, [], self._last_pts
        for packet in (packet for group in groups for packet in group):
            try:
                frames = codec.decode(packet)
            except av.error.EOFError:
                continue
            except av.error.FFmpegError as error:
                yield error
                continue
            yield from (frame for frame in frames if last is None or frame.pts is None or frame.pts > last)

    def _give_up(self) -> None:
        self._groups.clear()
        self._bytes, self._whole = 0, False


def _stamp(packet: Any) -> float:
    return float("inf") if packet.pts is None else float(packet.pts)


def on_cpu(
    container: av.container.InputContainer, stream: Any, options: dict[str, str], limits: dict[str, str]
) -> tuple[Any, av.container.InputContainer | None]:
    """Make a decoder on the CPU for a stream that one on a GPU has decoded.

    Args:
        container, stream: what is decoded.
        options: FFmpeg's options of the decoder.
        limits: FFmpeg's options for opening a local file.

    Returns:
        A codec context, and a container that has to stay open as long as it is used; None where there is none. A local
        file is opened again, so that what it says of colours and rotation holds on.
    """
    if container.name.startswith("file:"):
        try:
            again = av.open(container.name, options=limits)
            return again.streams[stream.index].codec_context, again
        except (av.error.FFmpegError, OSError):
            pass  # it was deleted; it can still be read
    codec = stream.codec_context
    made: Any = av.CodecContext.create(codec.name, "r")
    made.extradata = codec.extradata
    made.width, made.height = codec.width, codec.height
    made.options = options
    return made, None
