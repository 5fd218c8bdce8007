"""Sources: where frames come from. ``open_source`` chooses by URI.

| URI | kind |
|---|---|
| ``street.mp4`` | video file |
| ``photo.jpg``, ``frames/``, ``frames/*.png`` | images |
| ``0``, ``/dev/video0`` | camera, live |
| ``csi://0?size=1280x720&fps=30&flip=rotate-180`` | camera on a Jetson's CSI connector, live |
| ``rtsp://``, ``rtmp://``, ``udp://``, ``http(s)://`` | network stream, live unless it is a finite file |
| ``-`` | a video from standard input |
| ``synthetic:?size=640x360&fps=30&frames=300&seed=0`` | a street drawn in code, with exact truth |
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.common.bounds import Bounds
from perception.errors import SourceError, UsageError
from perception.sources.base import Selection, Source

if TYPE_CHECKING:
    from perception.sources.packets import PacketRing  # loads FFmpeg

__all__ = ["Bounds", "Selection", "Source", "open_source"]


def open_source(
    uri: str | os.PathLike[str],
    *,
    start: float = 0.0,
    duration: float | None = None,
    every: int = 1,
    max_frames: int | None = None,
    timeout: float = 10.0,
    threads: int = 0,
    deinterlace: bool = True,
    size_wh: tuple[int, int] | None = None,
    fps: float | None = None,
    transport: str = "tcp",
    decoder: str = "auto",
    confined: bool = False,
    addresses: Sequence[str] = (),
    bounds: Bounds | None = None,
    packets: PacketRing | None = None,
    chosen: Callable[[Path], bool] | None = None,
) -> Source:
    """Open whatever ``uri`` names and decode its first frame.

    Args:
        uri: a file, folder, glob, camera number, URL, ``-`` or ``synthetic:``.
        start: seconds from the beginning at which to start; exact to the frame.
        duration: seconds to read.
        every: read only each ``every``-th frame.
        max_frames: stop after this many frames.
        timeout: seconds to wait for a network stream or a camera: to open, and for each read.
        threads: codec threads; 0 chooses (see ``perception.sources.decode.Decoder``).
        deinterlace: deinterlace frames that are flagged as interlaced.
        size_wh: width and height to ask of a camera.
        fps: frame rate to ask of a camera; the rate of a folder of images; how often to read an address that gives a
            picture and not a stream (once a second if not told).
        transport: ``tcp`` or ``udp``, for RTSP.
        decoder: ``auto``, ``cpu`` or ``nvdec``: which part of the machine decodes video. ``auto`` takes NVDEC where
            there is an NVIDIA GPU; what that cannot do goes to the CPU, with one line of log.
        confined: of a network address open only what it names itself: follow no redirect to another one, and read
            no playlist, which names others. For addresses that somebody else chose.
        addresses: where ``confined``, the IP addresses that the host of an ``http://`` or ``rtsp(s)://`` address may
            have; its name is then not looked up once more.
        bounds: how large frames may be, and a way to give up opening.
        packets: is given the packets of a video as they are read; of cameras and images there are none.
        chosen: of a folder or a glob of images, which are read; None: all.

    Returns:
        The source; use it as a context manager and iterate it once.

    Raises:
        SourceError: it cannot be opened or holds no picture that can be decoded.
        UsageError: an option is out of its range.
    """
    selection = Selection(float(start), None if duration is None else float(duration), every, max_frames)
    if not (math.isfinite(timeout) and timeout > 0):
        raise UsageError(f"timeout must be more than 0 seconds, not {timeout:g}")
    if transport not in ("tcp", "udp"):
        raise UsageError(f"transport must be tcp or udp, not {transport!r}")
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise UsageError(f"fps must be more than 0, not {fps:g}")
    from perception.sources.uri import kind_of, redact

    uri = os.fspath(uri)
    kind = kind_of(uri)
    codec: dict[str, Any] = {"threads": threads, "deinterlace": deinterlace, "decoding": decoder, "bounds": bounds}
    # Each import stands where it is needed: a camera does not load FFmpeg, a file does not load OpenCV's devices.
    if kind == "images":
        from perception.sources.images import ImageSource

        return ImageSource(uri, selection, fps=fps, bounds=bounds, chosen=chosen)
    if kind == "camera":
        from perception.sources.camera import CameraSource

        return CameraSource(uri, selection, size_wh=size_wh, fps=fps, timeout=timeout, bounds=bounds)
    if kind == "csi":
        from perception.sources.csi import CsiSource

        return CsiSource(uri, selection, size_wh=size_wh, fps=fps, timeout=timeout, bounds=bounds)
    if kind == "stream":
        from perception.sources.stream import open_stream

        return open_stream(
            uri,
            selection,
            timeout=timeout,
            transport=transport,
            confined=confined,
            addresses=addresses,
            fps=fps,
            packets=packets,
            **codec,
        )
    if kind == "object":
        raise SourceError("object stores are read by a batch: `resume=True` makes one", redact(uri))
    if kind == "synthetic":
        from perception.sources.synthetic.source import SyntheticSource

        return SyntheticSource.from_uri(uri, selection, bounds)
    if kind == "stdin":
        from perception.sources.video import PipeSource

        return PipeSource(selection, packets=packets, **codec)
    from perception.sources.video import open_file

    return open_file(uri, selection, packets=packets, **codec)
