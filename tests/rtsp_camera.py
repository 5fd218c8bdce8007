"""An RTSP camera for tests: H.264 over TCP, with a clock and key frames as good or bad as is asked for."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.media import make_video


def access_units(folder: Path, frames: int = 50, keyint: int = 10) -> list[list[bytes]]:
    """The NAL units of each frame of a video that shows the numbers of its frames."""
    path = make_video(
        folder / "camera.h264",
        frames=frames,
        keyint=keyint,
        size_wh=(160, 96),
        options={"bf": "0", "x264-params": "scenecut=0:repeat-headers=1:slices=1:sliced-threads=0", "threads": "1"},
    )
    units: list[list[bytes]] = []
    pending: list[bytes] = []
    for unit in re.split(b"\0\0\0\1|\0\0\1", path.read_bytes())[1:]:
        pending.append(unit)
        if unit[0] & 31 in (1, 5):
            units.append(pending)
            pending = []
    return units


def rtsp_camera(
    units: list[list[bytes]],
    *,
    fps: float = 25,
    stamp: Callable[[int], int] = lambda n: 10**6 + n * 3600,
    key_frames: bool = True,
) -> Callable[[socket.socket, threading.Event], None]:
    """What answers a connection of `tests.media.tcp_server`.

    Args:
        units: of each frame, sent over and over.
        fps: frames a second of the clock on the wall.
        stamp: the RTP time stamp of each frame, in a clock of 90 kHz as it says. RFC 3550 begins at random; FFmpeg
            takes 0 for no stamp.
        key_frames: whether it sends any; if not, no parameter sets either.
    """
    sets = [unit for unit in units[0] if unit[0] & 31 in (7, 8)]

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
                for number, unit in enumerate(wanted):
                    for piece, last in _pieces(unit):
                        mark = 0x80 if last and number == len(wanted) - 1 else 0
                        head = struct.pack(
                            ">BBHI4s", 0x80, 96 | mark, sequence & 0xFFFF, stamp(n) & 0xFFFFFFFF, b"ABCD"
                        )
                        with contextlib.suppress(OSError):
                            send(b"$\0" + struct.pack(">H", 12 + len(piece)) + head + piece)
                        sequence += 1
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


def _pieces(unit: bytes) -> list[tuple[bytes, bool]]:
    """A NAL unit as RTP payloads (RFC 6184, 5.6 and 5.8), and whether each is its last."""
    if len(unit) < 1200:
        return [(unit, True)]
    parts = [unit[i : i + 1200] for i in range(1, len(unit), 1200)]
    first, kind = unit[0] & 0xE0 | 28, unit[0] & 31
    ends = range(len(parts))
    flags = [(0x80 if i == 0 else 0) | (0x40 if i == len(parts) - 1 else 0) | kind for i in ends]
    return [(bytes([first, flags[i]]) + parts[i], i == len(parts) - 1) for i in ends]
