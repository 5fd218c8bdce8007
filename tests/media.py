"""Media for tests, made in code: videos of any codec and fault, images, and servers that misbehave.

Frames carry their number as black and white stripes (``stamp``), which survive lossy codecs; ``read_stamp`` gives it
back. So a test can tell which frame it was given, whatever the container says about time.
"""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

BITS = 10

QUADRANTS = {
    "top left": (0, 0, 255),
    "top right": (0, 255, 0),
    "bottom left": (255, 0, 0),
    "bottom right": (255, 255, 255),
}
"""BGR colours of ``quadrants``: which corner went where tells the orientation."""


def stamp(index: int, size_wh: tuple[int, int] = (80, 48)) -> np.ndarray:
    """uint8 ``[H, W, 3]``: the number's bits as stripes, lowest bit left, white for 1. At least 40 pixels wide."""
    width, height = size_wh
    bit = np.minimum(np.arange(width) * BITS // width, BITS - 1)
    row = np.where(index >> bit & 1, 220, 30).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (height, width, 3)))


def read_stamp(image: np.ndarray) -> int:
    """The number that ``stamp`` drew into ``image`` (BGR or gray)."""
    gray = image if image.ndim == 2 else image.mean(axis=2)
    columns = gray.mean(axis=0)
    centers = ((np.arange(BITS) + 0.5) * len(columns) / BITS).astype(int)
    return int(sum(1 << i for i, c in enumerate(centers) if columns[c] > 125))


def quadrants(size_wh: tuple[int, int] = (64, 48)) -> np.ndarray:
    """uint8 ``[H, W, 3]``: four corners in the colours of ``QUADRANTS``."""
    width, height = size_wh
    image = np.empty((height, width, 3), np.uint8)
    for name, color in QUADRANTS.items():
        rows = slice(None, height // 2) if "top" in name else slice(height // 2, None)
        columns = slice(None, width // 2) if "left" in name else slice(width // 2, None)
        image[rows, columns] = color
    return image


def corners(image: np.ndarray) -> list[str]:
    """Which quadrant lies top left, top right, bottom left and bottom right in ``image``."""
    h, w = image.shape[:2]
    at = [(h // 4, w // 4), (h // 4, w * 3 // 4), (h * 3 // 4, w // 4), (h * 3 // 4, w * 3 // 4)]
    names = list(QUADRANTS)
    colors = np.array(list(QUADRANTS.values()), int)
    return [names[int(np.abs(colors - image[y, x].astype(int)).sum(1).argmin())] for y, x in at]


def make_video(
    path: Path,
    *,
    frames: int = 10,
    size_wh: tuple[int, int] = (80, 48),
    fps: int | Fraction = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    images: Iterable[np.ndarray] | None = None,
    pictures: Iterable[av.VideoFrame] | None = None,
    times: Sequence[float] | None = None,
    rotation: float | None = None,
    hflip: bool = False,
    vflip: bool = False,
    interlaced: bool = False,
    colorspace: int | None = None,
    color_range: int | None = None,
    sar: Fraction | None = None,
    audio: str | None = None,
    keyint: int | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    fmt: str | None = None,
) -> Path:
    """Write a video; its frame ``i`` is ``stamp(i)`` unless said otherwise.

    Args:
        path: where; its ending chooses the container unless ``fmt`` does.
        frames: how many, where neither ``images`` nor ``pictures`` nor ``times`` tells.
        images: BGR frames instead of stamps.
        pictures: frames in ``pix_fmt``, encoded as they are.
        times: seconds at which the frames are shown, for a variable rate; else regular.
        rotation, hflip, vflip: display matrix: degrees counterclockwise, then mirrored.
        interlaced: flag the frames as interlaced (libx264, mpeg2video).
        colorspace, color_range: tags, values of FFmpeg's AVColorSpace and AVColorRange.
        sar: width of a pixel by its height.
        audio: codec of a sine tone of the same length, such as ``aac``.
        keyint: frames from one keyframe to the next.
        options, container: options of the codec and of the container.
    """
    if pictures is None:
        if images is None:
            images = (stamp(i, size_wh) for i in range(len(times) if times is not None else frames))
        pictures = (av.VideoFrame.from_ndarray(i, "bgr24").reformat(format=pix_fmt) for i in images)
    codec_options = dict(options or {})
    if codec == "libx265":
        codec_options.setdefault("x265-params", "log-level=none")
    if interlaced:
        codec_options["flags"] = "+ilme+ildct"
        if codec == "libx264":
            codec_options["x264-params"] = "tff=1"
    time_base = Fraction(1, 90_000) if times is not None else 1 / Fraction(fps)
    count = 0
    with av.open(str(path), "w", format=fmt, options=container or {}) as out:
        stream = out.add_stream(codec, rate=fps, options=codec_options)
        stream.width, stream.height = size_wh
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = time_base
        if keyint is not None:
            stream.codec_context.gop_size = keyint
        if colorspace is not None:
            stream.codec_context.colorspace = colorspace
        if color_range is not None:
            stream.codec_context.color_range = color_range
        if sar is not None:
            stream.codec_context.sample_aspect_ratio = sar
        if rotation is not None or hflip or vflip:
            stream.set_display_rotation(rotation or 0.0, hflip, vflip)
        sound = None if audio is None else out.add_stream(audio, rate=48_000)
        for i, picture in enumerate(pictures):
            if (picture.width, picture.height) != size_wh:
                raise ValueError(f"frame {i} is {picture.width}x{picture.height}, not {size_wh}")
            picture.pts = round(times[i] / time_base) if times is not None else i
            picture.time_base = time_base
            if colorspace is not None:
                picture.colorspace = colorspace
            if color_range is not None:
                picture.color_range = color_range
            out.mux(stream.encode(picture))
            count = i + 1
        out.mux(stream.encode(None))
        if sound is not None:
            length = times[-1] + 1 / Fraction(fps) if times is not None else count / Fraction(fps)
            _add_tone(out, sound, float(length))
    return path


def _add_tone(out: Any, stream: Any, seconds: float) -> None:
    total = round(seconds * 48_000)
    wave = (0.3 * np.sin(2 * np.pi * 440 / 48_000 * np.arange(total))).astype(np.float32)
    for at in range(0, total, 1024):
        part = np.ascontiguousarray(wave[None, at : at + 1024])
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, at, Fraction(1, 48_000)
        out.mux(stream.encode(frame))
    out.mux(stream.encode(None))


def make_audio(path: Path, seconds: float = 0.5, cover: bool = False, codec: str = "libmp3lame") -> Path:
    """A sound file without video; with ``cover``, an MP3 with a cover picture (a video stream to FFmpeg)."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=48_000)
        if cover:
            picture = out.add_stream("mjpeg", rate=1)
            picture.width = picture.height = 32
            picture.pix_fmt = "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 90, np.uint8), "bgr24")
            packets = picture.encode(frame) + picture.encode(None)
            for packet in packets:
                packet.stream = picture
                out.mux(packet)
        _add_tone(out, stream, seconds)
    return path


def make_empty_container(path: Path) -> Path:
    """A container that declares a video stream and holds no packet of it."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        out.start_encoding()
    return path


def truncate(path: Path, keep: float, to: Path | None = None) -> Path:
    """The first part of a file (``keep`` in 0..1), in place or as ``to``."""
    data = path.read_bytes()
    to = to or path
    to.write_bytes(data[: int(len(data) * keep)])
    return to


def corrupt(path: Path, start: float, stop: float, to: Path | None = None, seed: int = 0) -> Path:
    """A file whose bytes from ``start`` to ``stop`` (parts of its length) are random, in place or as ``to``."""
    data = bytearray(path.read_bytes())
    a, b = int(len(data) * start), int(len(data) * stop)
    data[a:b] = np.random.default_rng(seed).integers(0, 256, b - a, dtype=np.uint8).tobytes()
    to = to or path
    to.write_bytes(data)
    return to


def packet_spans(path: Path) -> list[tuple[int, int]]:
    """Where in the file each video packet lies: offset and length, in the order stored."""
    with av.open(str(path)) as container:
        return [(p.pos, p.size) for p in container.demux(video=0) if p.size and p.pos is not None]


def restamp(data: bytes, frames: set[int], by: int, skip_pid: int = -1) -> bytes:
    """MPEG-TS in which the given pictures (by their place in the file) are stamped ``by`` units of 90 kHz later.

    ``skip_pid`` is that of another stream, whose packets do not count.
    """
    changed, picture = bytearray(data), -1
    for at in range(0, len(data), 188):
        if (data[at + 1] & 0x1F) << 8 | data[at + 2] == skip_pid:
            continue
        payload = at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0)
        if not (data[at + 1] & 0x40 and data[payload : payload + 3] == b"\0\0\1" and data[payload + 3] & 0xF0 == 0xE0):
            continue
        picture += 1
        if picture not in frames:
            continue
        for n in range(bin(data[payload + 7] >> 6).count("1")):  # PTS, DTS: 33 bits among marker bits
            field = payload + 9 + 5 * n
            b = data[field : field + 5]
            stamp = (b[0] >> 1 & 7) << 30 | b[1] << 22 | b[2] >> 1 << 15 | b[3] << 7 | b[4] >> 1
            stamp = (stamp + by) % 2**33
            changed[field] = b[0] & 0xF0 | stamp >> 30 << 1 | 1
            changed[field + 1] = stamp >> 22 & 255
            changed[field + 2] = stamp >> 14 & 254 | 1
            changed[field + 3] = stamp >> 7 & 255
            changed[field + 4] = (stamp << 1 & 254) | 1
    return bytes(changed)


def make_image(path: Path, image: np.ndarray | None = None, size_wh: tuple[int, int] = (80, 48)) -> Path:
    """An image file, in the format that its ending names. Any dtype and number of channels OpenCV can write."""
    if image is None:
        image = stamp(0, size_wh)
    ok, data = cv2.imencode(path.suffix, image)
    assert ok, path
    path.write_bytes(data.tobytes())
    return path


def add_exif_orientation(path: Path, orientation: int) -> Path:
    """Tag a JPEG file with an EXIF orientation, 1 to 8."""
    tiff = (
        b"MM\0*\0\0\0\x08"
        + b"\0\x01"
        + b"\x01\x12\0\x03\0\0\0\x01"
        + orientation.to_bytes(2, "big")
        + b"\0\0"
        + b"\0" * 4
    )
    body = b"Exif\0\0" + tiff
    data = path.read_bytes()
    assert data[:2] == b"\xff\xd8"
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + data[2:])
    return path


@contextlib.contextmanager
def tcp_server(answer: Callable[[socket.socket, threading.Event], None]) -> Iterator[int]:
    """A server on 127.0.0.1 that hands each connection to ``answer``; gives its port.

    ``answer`` runs in a thread and should return when its event is set, at the end of the ``with`` block.
    """
    ended = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            answer(connection, ended)

    def accept() -> None:
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            connection.settimeout(None)
            thread = threading.Thread(target=serve, args=(connection,), daemon=True)
            thread.start()
            threads.append(thread)

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        ended.set()
        acceptor.join(5)
        listener.close()
        for thread in threads:
            thread.join(5)


@contextlib.contextmanager
def http_folder(folder: Path) -> Iterator[str]:
    """An HTTP server of the files in ``folder``; gives its base URL, without a slash at its end."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def copyfile(self, source: Any, outputfile: Any) -> None:
            with contextlib.suppress(OSError):  # a client that has seen enough hangs up
                super().copyfile(source, outputfile)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
