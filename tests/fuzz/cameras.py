"""What cameras answer: RTSP with its descriptions and packets, and Motion JPEG over HTTP."""

from __future__ import annotations

import base64
import json
import re
import socket
import struct
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from random import Random

import cv2

from perception.common.bounds import Bounds
from perception.server.settings import Limits
from perception.sources import open_source
from tests.fuzz.family import Family, pack, random_for, unpack
from tests.fuzz.mutate import Span, mutated
from tests.fuzz.pieces import between
from tests.media import quadrants, tcp_server
from tests.rtsp_camera import access_units, payloads

TIMEOUT_S = 1.0
LINGER_S = 0.05
"""The server hangs up so long after the last that it has to say."""

_lines = between(rb"\r\n")
_SCRAPS = (
    b"Content-Length: 99999999999", b"Content-Length: -1", b"Content-Length: 4000000000", b"Session: " + b"x" * 9000,
    b"Transport: RTP/AVP;unicast;client_port=1-2;server_port=99999-1;source=127.0.0.1", b"RTSP/1.0 401 Unauthorized",
    b'WWW-Authenticate: Digest realm="x", nonce=""', b"WWW-Authenticate: Basic", b"RTSP/1.0 302 Found",
    b"Location: rtsp://127.0.0.1:1/x", b"Location: file:///etc/passwd", b"Location: rtsp://" + b"x" * 5000,
    b"CSeq: 4294967296", b"CSeq: -1", b"a=control:rtsp://127.0.0.1:1/", b"a=control:file:///etc/passwd",
    b"a=rtpmap:96 H265/90000", b"a=rtpmap:96 MP4V-ES/0", b"a=rtpmap:96 JPEG/90000", b"a=rtpmap:96 H264/-1",
    b"m=video 0 RTP/AVP 26", b"m=audio 0 RTP/AVP 0", b"m=video 99999 RTP/AVP " + b"96 " * 500, b"m=video",
    b"a=fmtp:96 sprop-parameter-sets=" + b"A" * 5000, b"a=fmtp:96 config=zz;mode=AAC-hbr", b"a=framerate:nan",
    b"c=IN IP4 239.1.1.1/127", b"b=AS:-1", b"a=framesize:96 99999-99999", b"a=x-dimensions:100000,100000",
    b"v=0\r\n" * 300, b"\0", b"a=range:npt=0-inf", b"a=range:npt=-1-1e400", b"RTP-Info: url=x;seq=x;rtptime=x",
)  # fmt: skip


class Inputs(Family):
    """A conversation: what is said to each request in turn, ``{cseq}`` being the request's number."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._held = ExitStack()
        self._script: list[bytes] = []
        self._port = self._held.enter_context(tcp_server(self._serve))

    @cached_property
    def _good(self) -> list[bytes]:
        with tempfile.TemporaryDirectory() as folder:
            units = access_units(Path(folder), frames=6, keyint=3)
        sets = ",".join(base64.b64encode(unit).decode() for unit in units[0] if unit[0] & 31 in (7, 8))
        body = (
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=range:npt=0-\r\n"
            "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=framerate:25\r\n"
            f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}\r\na=control:track1\r\n"
        )
        described = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        packets, sequence = [], 0
        for number, frame in enumerate(units):
            for at, unit in enumerate(frame):
                for piece, last in payloads(unit):
                    mark = 0x80 if last and at == len(frame) - 1 else 0
                    head = struct.pack(">BBHI4s", 0x80, 96 | mark, sequence, number * 3600, b"ABCD")
                    packets.append(b"$\0" + struct.pack(">H", 12 + len(piece)) + head + piece)
                    sequence += 1
        ok = "RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\n"
        return [
            f"{ok}Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n\r\n".encode(),
            f"{ok}{described}".encode(),
            f"{ok}Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n".encode(),
            f"{ok}Session: 1\r\n\r\n".encode() + b"".join(packets),
        ]

    @cached_property
    def _motion_jpeg(self) -> bytes:
        picture = cv2.imencode(".jpg", quadrants((64, 48)))[1].tobytes()
        part = f"--x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n".encode() + picture + b"\r\n"
        return b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=x\r\n\r\n" + part * 4

    def make(self, seed: int, index: int) -> bytes:
        random = random_for("cameras", seed, index)
        if random.random() < 0.25:
            kind, script = "http", [self._changed(random, self._motion_jpeg)]
        else:
            kind, script = "rtsp", list(self._good)
            for number in random.sample(range(4), random.choice((1, 1, 2))):
                script[number] = self._changed(random, script[number])
            if random.random() < 0.05:
                random.shuffle(script)
            if random.random() < 0.05:
                del script[random.randrange(4) :]
        body = json.dumps([base64.b64encode(part).decode() for part in script]).encode()
        return pack(body, kind=kind, confined=random.random() < 0.5)

    @staticmethod
    def _changed(random: Random, part: bytes) -> bytes:
        spans: list[Span] = _lines(part[:2000])
        if spans and random.random() < 0.4:
            start, end = random.choice(spans)
            scrap = b"\r\n" + random.choice(_SCRAPS)
            return part[:start] + scrap + part[random.choice((start, end)) :]
        at = part.find(b"$\0")
        if at > 0 and random.random() < 0.7:
            packets = part[at:]
            return part[:at] + mutated(random, packets, between(rb"\$\x00")(packets))
        return mutated(random, part, spans)

    def eat(self, data: bytes) -> bool:
        head, body = unpack(data)
        self._script = [base64.b64decode(part) for part in json.loads(body)]
        uri = f"{head['kind']}://127.0.0.1:{self._port}/x"
        bounds = Bounds(Limits().video_pixels)
        options = {"confined": True, "addresses": ["127.0.0.1"]} if head["confined"] else {}
        with open_source(uri, timeout=TIMEOUT_S, bounds=bounds, max_frames=4, **options) as source:
            for frame in source:
                assert frame.image.ndim == 3
        return True

    def _serve(self, connection: socket.socket, ended: threading.Event) -> None:
        script, asked, held = list(self._script), 0, b""
        connection.settimeout(TIMEOUT_S)
        with suppress(OSError):
            while asked < len(script):
                while b"\r\n\r\n" not in held:
                    more = connection.recv(4096)
                    if not more:
                        return
                    held += more
                request, _, held = held.partition(b"\r\n\r\n")
                found = re.search(rb"(?i)cseq: *(\d+)", request)
                connection.sendall(script[asked].replace(b"{cseq}", found[1] if found else b"1"))
                asked += 1
            time.sleep(LINGER_S)

    def close(self) -> None:
        self._held.close()
