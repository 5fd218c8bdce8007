"""What pictures in progress take of memory, at most: sixteen of 49 megapixels at once, on every way in."""

from __future__ import annotations

import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from tests.server.conftest import wait_until_ready
from tests.server.process import LiveProcess, live

SIDE, AT_ONCE = 7000, 16
MOST_BYTES = 1.2e9
"""Of the whole growth: 100 megapixels in progress; measured were 480 to 890 MB, progressive JPEG the most."""

PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of Adam7: first column and row of each pass, and the steps to the next ones."""


@contextmanager
def watched(server: LiveProcess) -> Iterator[Callable[[], int]]:
    """The most memory that a server takes meanwhile, in bytes."""
    most = 0
    done = threading.Event()

    def look() -> None:
        nonlocal most
        while not done.wait(0.01):
            most = max(most, server.usage().memory)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: most
    finally:
        done.set()
        thread.join()


def interlaced_png(side: int) -> bytes:
    """16 bits a channel, with alpha, interlaced: the PNG that takes most memory to decode. One colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(1)
    parts = []
    for x, y, dx, dy in PASSES:
        row = bytes(1 + 8 * len(range(x, side, dx)))
        parts += [packer.compress(row) for _ in range(y, side, dy)]
    parts.append(packer.flush())
    head = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 1)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", b"".join(parts)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def picture(kind: str) -> bytes:
    if kind == "interlaced":
        return interlaced_png(SIDE)
    image = np.full((SIDE, SIDE, 3), 200, np.uint8)
    options = {
        "png": (".png", []),
        "progressive": (".jpg", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]),
        "webp": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 50]),
    }
    suffix, how = options[kind]
    return cv2.imencode(suffix, image, how)[1].tobytes()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "way"),
    [("png", "json"), ("png", "drawn"), ("interlaced", "json"), ("progressive", "webcam"), ("webp", "json")],
)
def test_memory_of_many_large_pictures(tmp_path: Path, kind: str, way: str) -> None:
    data = picture(kind)
    headers = {"content-type": "application/octet-stream", "accept": "image/png" if way == "drawn" else "*/*"}
    with live(tmp_path, limits={"share": 1}) as server, httpx.Client(base_url=server.url, timeout=300) as client:
        wait_until_ready(client)
        small = cv2.imencode(".png", np.zeros((600, 800, 3), np.uint8))[1].tobytes()
        assert client.post("/v1/predict", content=small, headers=headers).status_code == 200

        def send(number: int) -> int:
            if way == "webcam":
                with connect(server.url.replace("http", "ws") + "/v1/webcam", max_size=None) as webcam:
                    webcam.send(number.to_bytes(4, "little") + data)
                    return 200 if isinstance(webcam.recv(300), bytes) else 503
            return client.post("/v1/predict", content=data, headers=headers).status_code

        before = server.usage().memory
        with watched(server) as most, ThreadPoolExecutor(AT_ONCE) as pool:
            statuses = list(pool.map(send, range(AT_ONCE)))
        grown = most() - before
        print(f"{kind}, {way}: {AT_ONCE} of {SIDE}x{SIDE} took {grown / 1e6:.0f} MB at most; {statuses}")
        assert set(statuses) <= {200, 503}
        assert 200 in statuses
        assert grown < MOST_BYTES
