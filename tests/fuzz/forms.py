"""Bodies of uploads: forms with a file, and files by themselves, with the headers that describe them."""

from __future__ import annotations

import socket
from functools import cached_property

import cv2
import httpx

from tests.fuzz.family import pack, random_for, unpack
from tests.fuzz.mutate import mutated
from tests.fuzz.pieces import between
from tests.fuzz.serving import ServedFamily
from tests.media import make_video, quadrants

_HEAD = 'Content-Disposition: form-data; name="{}"; filename="{}"\r\nContent-Type: {}\r\n\r\n'
_PATHS = ("/v1/predict",) * 20 + ("/v1/jobs",) * 19 + ("/v1/explain?class=red",)  # which takes long
_NAMES = ("a.png", "", "../../x", "\0", "é" * 300, 'a"b', "x" * 20_000, "a\r\nX: y", "=?utf-8?q?x?=", "%00")
_KINDS = ("image/png", "video/mp4", "", "text/html", "image/png; x=" + "y" * 9000, "multipart/mixed; boundary=xx", "/")


class Inputs(ServedFamily):
    """See `perception.server.edge.multipart` and `perception.server.edge.uploads`."""

    @cached_property
    def _clip(self) -> bytes:
        path = self.folder / "clip.mp4"
        data = make_video(path, frames=3, size_wh=(64, 48)).read_bytes()
        path.unlink()
        return data

    @cached_property
    def _picture(self) -> bytes:
        return cv2.imencode(".png", quadrants((64, 48)))[1].tobytes()

    def make(self, seed: int, index: int) -> bytes:
        random = random_for("forms", seed, index)
        path = random.choice(_PATHS)
        data, kind = (self._clip, "video/mp4") if path == "/v1/jobs" else (self._picture, "image/png")
        boundary = random.choice(("xx", "xx", "xx", "x" * 70, "x" * 300, "a b", "'", ""))
        name = random.choice(_NAMES) if random.random() < 0.3 else "a.png"
        inner = random.choice(_KINDS) if random.random() < 0.2 else kind
        field = random.choice(("file", "file", "", "x" * 5000))
        part = f"--{boundary}\r\n{_HEAD.format(field, name, inner)}".encode() + data
        body = part * random.choice((1, 1, 1, 1, 2)) + f"\r\n--{boundary}--\r\n".encode()
        outer = f"multipart/form-data; boundary={boundary}"
        if random.random() < 0.15:
            body, outer = data, kind
        if random.random() < 0.6:
            body = mutated(random, body, between(rb"\r\n")(body[:1000]), 2)
        if random.random() < 0.15:
            outer = mutated(random, outer.encode(), (), 2).decode("latin-1")
        length = random.choice((None, None, None, 0, 1, -1, len(body) + 10, len(body) - 10, 10**12, 10**30, "x"))
        return pack(body, path=path, kind=outer.replace("\n", "").replace("\r", ""), length=length)

    def eat(self, data: bytes) -> bool:
        head, body = unpack(data)
        length = len(body) if head["length"] is None else head["length"]
        request = (
            f"POST {head['path']} HTTP/1.1\r\nHost: {self.address}\r\nContent-Type: {head['kind']}\r\n"
            f"Content-Length: {length}\r\nConnection: close\r\n\r\n"
        ).encode("latin-1", "replace")
        host, _, port = self.address.partition(":")
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            answer = b""
            try:
                connection.sendall(request + body)
                if str(length) != str(len(body)):
                    connection.shutdown(socket.SHUT_WR)  # or the server would wait for the rest
                while part := connection.recv(65536):
                    answer += part
            except OSError:  # it hung up before it had heard all
                pass
        if head["path"] == "/v1/jobs":
            self.tidy()
        if not answer:
            return False  # a body that was not as long as it said
        top, _, content = answer.partition(b"\r\n\r\n")
        lines = top.decode("latin-1").split("\r\n")
        headers = httpx.Headers([tuple(line.split(": ", 1)) for line in lines[1:] if ": " in line])
        if headers.get("transfer-encoding") == "chunked":
            return True
        return self.judge(int(lines[0].split()[1]), content, headers.get("content-type", ""))
