"""A small RTSP server in Python: H.264 over the connection itself, and answers that a test chooses."""

from __future__ import annotations

import base64
import re
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction

import av

from tests.media import stamp, tcp_server

Answer = Callable[[str, str], bytes | None]
"""Of a method and the request's head: bytes to answer with in place of the usual answer, or None."""


def pictures(count: int) -> list[list[bytes]]:
    """``count`` stamped pictures in H.264, each as its NAL units; each can be decoded by itself."""
    codec = av.CodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = 80, 48, "yuv420p"
    codec.time_base, codec.framerate = Fraction(1, 25), Fraction(25)
    codec.options = {"tune": "zerolatency", "preset": "ultrafast", "x264-params": "keyint=1:slices=1"}
    packets = []
    for i in range(count):
        frame = av.VideoFrame.from_ndarray(stamp(i), "bgr24").reformat(format="yuv420p")
        frame.pts = i
        packets += codec.encode(frame)
    packets += codec.encode(None)
    return [[unit for unit in re.split(b"\0\0\0?\1", bytes(packet)) if unit] for packet in packets]


class RtspServer:
    """What it was asked, and what it answers.

    Attributes:
        requests: (method, head) of each so far.
        answer: see `Answer`.
        port: of 127.0.0.1.
        pictures: what it plays again and again, see `pictures`; the first has the parameter sets.
    """

    def __init__(self, answer: Answer = lambda method, head: None) -> None:
        self.requests: list[tuple[str, str]] = []
        self.answer = answer
        self.port = 0
        self.pictures = pictures(25)

    def methods(self) -> list[str]:
        """Methods of the requests so far."""
        return [method for method, _ in self.requests]

    def serve(self, connection: socket.socket, ended: threading.Event) -> None:
        """Answer one client."""
        lock, buffer = threading.Lock(), b""
        player: threading.Thread | None = None
        while not ended.is_set():
            while b"\r\n\r\n" not in buffer:
                while not select.select([connection], [], [], 0.05)[0]:
                    if ended.is_set():
                        return
                part = connection.recv(4096)
                if not part:
                    return
                buffer += part
                while buffer[:1] == b"$" and len(buffer) >= 4:
                    size = 4 + int.from_bytes(buffer[2:4], "big")
                    if len(buffer) < size:
                        break
                    buffer = buffer[size:]
            raw, buffer = buffer.split(b"\r\n\r\n", 1)
            head = raw.decode("latin-1")
            method, url = head.split()[:2]
            self.requests.append((method, head))
            number = re.search(r"(?i)cseq: *(\d+)", head)[1]
            answer = self.answer(method, head)
            if answer is None:
                answer = self._usual(method, url)
            with lock:
                connection.sendall(answer.replace(b"CSEQ", number.encode()))
            if method == "PLAY" and player is None:
                player = threading.Thread(target=self._play, args=(connection, lock, ended), daemon=True)
                player.start()
            if method == "TEARDOWN":
                return

    def _usual(self, method: str, url: str) -> bytes:
        headers, body = "", ""
        if method == "OPTIONS":
            headers = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif method == "DESCRIBE":
            sets = ",".join(base64.b64encode(unit).decode() for unit in self.pictures[0] if unit[0] & 31 in (7, 8))
            body = (
                "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=cam\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
                f"a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}\r\n"
                "a=control:trackID=1\r\n"
            )
            headers = f"Content-Type: application/sdp\r\nContent-Base: {url}/\r\nContent-Length: {len(body)}\r\n"
        elif method == "SETUP":
            headers = "Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
        elif method == "PLAY":
            headers = "Session: 1\r\n"
        return f"RTSP/1.0 200 OK\r\nCSeq: CSEQ\r\n{headers}\r\n{body}".encode()

    def _play(self, connection: socket.socket, lock: threading.Lock, ended: threading.Event) -> None:
        sequence = 0
        try:
            for number in range(100_000):
                units = self.pictures[number % len(self.pictures)]
                for i, unit in enumerate(units):
                    mark = 0x80 if i == len(units) - 1 else 0
                    packet = struct.pack(">BBHI4s", 0x80, 96 | mark, sequence & 0xFFFF, number * 3600, b"test") + unit
                    sequence += 1
                    with lock:
                        connection.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
                if ended.wait(0.02):
                    return
        except OSError:
            return


@contextmanager
def rtsp_server(answer: Answer = lambda method, head: None) -> Iterator[RtspServer]:
    """A server on 127.0.0.1 for as long as the block lasts."""
    made = RtspServer(answer)
    with tcp_server(made.serve) as made.port:
        yield made
