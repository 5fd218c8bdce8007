"""Messages on WebSockets: the webcam's and those of a stream's viewers; well framed, and as raw bytes."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
from contextlib import suppress
from functools import cached_property
from random import Random
from typing import Any

import cv2
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from tests.fuzz.family import pack, random_for, unpack
from tests.fuzz.mutate import mutated, odd_tree
from tests.fuzz.serving import ServedFamily
from tests.media import quadrants

_SETTINGS: dict[str, Any] = {
    "score": 0.4, "iou": 0.5, "classes": ["red"], "model": None, "map_cells": 64, "opacity": 0.5, "unknown": 0.1,
    "view": "boxes", "track": False,
}  # fmt: skip


_DRAWING: dict[str, Any] = {
    "draw": {
        "lines": [
            {"name": "gate", "points": [[0.1, 0.5], [0.9, 0.5]], "directions": ["in", "out"], "classes": ["red"]}
        ],
        "zones": [{"name": "yard", "points": [[0.1, 0.1], [0.9, 0.1], [0.5, 0.9]], "loitering_s": 2, "hold_s": 0}],
        "conditions": [{"name": "red", "class": "red", "over": 0.1}],
    }
}


class Inputs(ServedFamily):
    """See `perception.server.routes.webcam` and `perception.server.viewers.fragmented_mp4`."""

    @cached_property
    def _frame(self) -> bytes:
        return cv2.imencode(".jpg", quadrants((64, 48)))[1].tobytes()

    @cached_property
    def _stream(self) -> str:
        answer = self.client.post("/v1/streams", json={"source": "scene"})
        return str(answer.json()["id"])

    def make(self, seed: int, index: int) -> bytes:
        random = random_for("sockets", seed, index)
        kind = random.choice(("webcam", "webcam", "webcam", "video", "raw"))
        if kind == "raw":
            frames = b"".join(self._raw(random, *self._message(random, "webcam")) for _ in range(random.randint(1, 4)))
            return pack(mutated(random, frames, (), 3), kind=kind)
        messages = [self._message(random, kind) for _ in range(random.randint(1, 4))]
        body = json.dumps([[text, base64.b64encode(data).decode()] for text, data in messages]).encode()
        return pack(body, kind=kind)

    def _message(self, random: Random, kind: str) -> tuple[bool, bytes]:
        """Whether it is text, and what it says."""
        if kind == "webcam" and random.random() < 0.5:
            frame = struct.pack("<I", random.choice((0, 1, 2**32 - 1))) + self._frame
            return False, mutated(random, frame) if random.random() < 0.8 else frame
        tree: dict[str, Any] = {"options": {k: _SETTINGS[k] for k in ("score", "opacity", "classes")}}
        if kind == "webcam":
            tree = random.choice((_SETTINGS, _DRAWING))
        data = json.dumps(odd_tree(random, tree)).encode()
        how = random.randrange(10)
        if how == 0:
            data = mutated(random, data)
        elif how == 1:
            data = random.choice((b"[", b'{"a":', b"[[{}")) * random.choice((10, 2000, 30_000))
        elif how == 2:
            data = random.choice((b"", b"null", b"0", b'"\\ud800"', b"9" * 6000, b'{"score": 1e999}', b"\xff\xfe"))
        return random.random() < 0.95, data

    @staticmethod
    def _raw(random: Random, text: bool, data: bytes) -> bytes:
        """A frame as RFC 6455 has it, with any head that there can be."""
        opcode = random.choice((1 if text else 2, 1 if text else 2, 0, 3, 8, 9, 10, 15))
        first = random.choice((0x80, 0x80, 0x80, 0x00, 0xC0, 0xF0)) | opcode
        size = len(data) if random.random() < 0.7 else random.choice((0, 125, 126, 1 << 16, 1 << 31, 1 << 63))
        if size < 126:
            head = bytes([first, 0x80 | size])
        elif size < 1 << 16:
            head = bytes([first, 0x80 | 126]) + struct.pack(">H", size)
        else:
            head = bytes([first, 0x80 | 127]) + struct.pack(">Q", size)
        return head + bytes(4) + data  # a mask of zeros

    def eat(self, data: bytes) -> bool:
        head, body = unpack(data)
        if head["kind"] == "raw":
            return self._say_raw(body)
        path = "/v1/webcam" if head["kind"] == "webcam" else f"/v1/streams/{self._stream}/video"
        refused = False
        with suppress(WebSocketException, OSError), connect(f"ws://{self.address}{path}", max_size=None) as web:
            for text, encoded in json.loads(body):
                message = base64.b64decode(encoded)
                web.send(message.decode("utf-8", "replace") if text else message)
                with suppress(TimeoutError):
                    for _ in range(3 if head["kind"] == "video" else 1):
                        answer = web.recv(2.0)
                        refused |= isinstance(answer, str) and '"error"' in answer
        return not refused

    def _say_raw(self, body: bytes) -> bool:
        host, _, port = self.address.partition(":")
        request = (
            f"GET /v1/webcam HTTP/1.1\r\nHost: {self.address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
        answer = b""
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(request)
            answer = connection.recv(4096)
            connection.sendall(body)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(2)
            while part := connection.recv(65536):
                answer += part
        assert answer.startswith(b"HTTP/1.1 101"), answer[:200]
        return b'"error"' not in answer
