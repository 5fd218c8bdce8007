"""RTSP cameras on this machine: H.264 over TCP, paced by the clock on the wall.

with served(rtsp_camera(encoded(clip, fps=25, gop_s=2.0, frames=250), fps=25)) as url:
    open_source(url)                # any number of times; each connection is a camera of its own
"""

from __future__ import annotations

import base64
import re
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av

from perception.sources import open_source

_PARAMETER_SETS = (7, 8)
_FRAGMENT = 28
_MOST_BYTES = 1200


def encoded(clip: Path, fps: int, gop_s: float, frames: int) -> list[list[bytes]]:
    """Encode the first frames of a clip as cameras do: H.264 without B frames, a key frame each ``gop_s`` seconds.

    Returns:
        the NAL units of each frame; the first frame is a key frame and has the parameter sets.
    """
    codec = av.CodecContext.create("libx264", "w")
    gop = round(fps * gop_s)
    parameters = f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes=0:repeat-headers=1:slices=1:sliced-threads=0"
    codec.options = {"preset": "veryfast", "x264-params": parameters}
    units: list[list[bytes]] = []
    with open_source(str(clip), max_frames=frames) as source:
        codec.width, codec.height, codec.pix_fmt = source.info.width, source.info.height, "yuv420p"
        codec.framerate = Fraction(fps)
        for number, frame in enumerate(source):
            picture = av.VideoFrame.from_ndarray(frame.image, "bgr24").reformat(format="yuv420p")
            picture.pts, picture.time_base = number, 1 / Fraction(fps)
            units += [split_units(bytes(packet)) for packet in codec.encode(picture)]
    return units + [split_units(bytes(packet)) for packet in codec.encode(None)]


def split_units(data: bytes) -> list[bytes]:
    """The NAL units of an H.264 byte stream."""
    return [unit for unit in re.split(b"\0\0\0?\1", data) if unit]


@contextmanager
def served(answer: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """A server of such cameras on this machine for as long as the block lasts; gives its address.

    Args:
        answer: see `rtsp_camera`.
    """
    ended = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                answer(self.request, ended)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        try:
            yield f"rtsp://127.0.0.1:{server.server_address[1]}/live"
        finally:
            ended.set()
            server.shutdown()
            thread.join()


def rtsp_camera(
    units: list[list[bytes]],
    *,
    fps: float = 25,
    stamp: Callable[[int], int] = lambda n: 10**6 + n * 3600,
    key_frames: bool = True,
) -> Callable[[socket.socket, threading.Event], None]:
    """Make what answers a connection; it is given the connection, and an event that tells it to end.

    Args:
        units: NAL units of each frame, sent over and over.
        fps: frames a second of the clock on the wall.
        stamp: the RTP time stamp of each frame, in a clock of 90 kHz as it says. RFC 3550 begins at random; FFmpeg
            takes 0 for no stamp.
        key_frames: whether it sends any; if not, no parameter sets either.
    """
    sets = [unit for unit in units[0] if unit[0] & 31 in _PARAMETER_SETS]

    def answer(connection: socket.socket, ended: threading.Event) -> None:
        lock, over = threading.Lock(), threading.Event()
        player: threading.Thread | None = None

        def send(data: bytes) -> None:
            with lock:
                connection.sendall(data)

        def play() -> None:
            sequence, began = 0, time.monotonic()
            for n in range(10**6):
                wanted = [u for u in units[n % len(units)] if key_frames or u[0] & 31 == 1]
                sent: list[bytes] = []
                for number, unit in enumerate(wanted):
                    for piece, last in payloads(unit):
                        mark = 0x80 if last and number == len(wanted) - 1 else 0
                        head = struct.pack(
                            ">BBHI4s", 0x80, 96 | mark, sequence & 0xFFFF, stamp(n) & 0xFFFFFFFF, b"ABCD"
                        )
                        sent += [b"$\0" + struct.pack(">H", 12 + len(piece)), head, piece]
                        sequence += 1
                with suppress(OSError):
                    send(b"".join(sent))
                if over.wait(max(0.0, began + (n + 1) / fps - time.monotonic())) or ended.is_set():
                    return

        data = b""
        try:
            while True:
                while b"\r\n\r\n" not in data:
                    more = connection.recv(4096)
                    if not more:
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                method, url = head.decode("latin-1").split()[:2]
                found = re.search(rb"(?i)cseq: *(\d+)", head)
                extra, body = "", ""
                if method == "OPTIONS":
                    extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
                elif method == "DESCRIBE":
                    known = ",".join(base64.b64encode(s).decode() for s in sets)
                    body = (
                        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
                        "a=rtpmap:96 H264/90000\r\n"
                        f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={known}\r\na=control:track1\r\n"
                    )
                    extra = f"Content-Type: application/sdp\r\nContent-Base: {url}/\r\nContent-Length: {len(body)}\r\n"
                elif method == "SETUP":
                    extra = "Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
                elif method == "PLAY":
                    extra = "Session: 1\r\n"
                send(f"RTSP/1.0 200 OK\r\nCSeq: {int(found[1]) if found else 0}\r\n{extra}\r\n{body}".encode())
                if method == "PLAY":
                    player = threading.Thread(target=play, daemon=True)
                    player.start()
                if method == "TEARDOWN":
                    return
        finally:
            over.set()
            if player is not None:
                player.join(5)

    return answer


def payloads(unit: bytes) -> list[tuple[bytes, bool]]:
    """A NAL unit as RTP payloads (RFC 6184, 5.6 and 5.8), and whether each is its last."""
    if len(unit) < _MOST_BYTES:
        return [(unit, True)]
    parts = [unit[i : i + _MOST_BYTES] for i in range(1, len(unit), _MOST_BYTES)]
    first, kind = unit[0] & 0xE0 | _FRAGMENT, unit[0] & 31
    ends = range(len(parts))
    flags = [(0x80 if i == 0 else 0) | (0x40 if i == len(parts) - 1 else 0) | kind for i in ends]
    return [(bytes([first, flags[i]]) + parts[i], i == len(parts) - 1) for i in ends]
