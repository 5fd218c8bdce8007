"""Forms with one file: what a client may send, in whatever pieces it comes, and what is refused."""

from __future__ import annotations

import asyncio
import json
import socket
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

from perception.server.app import create_app
from perception.server.edge.multipart import MOST_AROUND, FormFile
from perception.server.problems import Problem
from tests.models import solid
from tests.server.conftest import wait_until_ready
from tests.server.served import served
from tests.server.test_jobs_api import ended

HEAD = 'Content-Disposition: form-data; name="file"; filename="{}"\r\nContent-Type: {}\r\n\r\n'


def form(data: bytes, name: str = "a.png", kind: str = "image/png", boundary: str = "xx") -> bytes:
    """A form with one file, as RFC 7578 has it."""
    return f"--{boundary}\r\n{HEAD.format(name, kind)}".encode() + data + f"\r\n--{boundary}--\r\n".encode()


def read(body: bytes, sizes: Iterator[int], boundary: bytes = b"xx") -> tuple[FormFile, bytes]:
    """What is made of a body that comes in pieces of these sizes."""

    async def pieces() -> AsyncIterator[bytes]:
        at = 0
        while at < len(body):
            size = next(sizes)
            yield body[at : at + size]
            at += size
        yield b""  # as Starlette's end

    async def take() -> tuple[FormFile, bytes]:
        file = FormFile(pieces(), boundary)
        await file.open()
        return file, b"".join([piece async for piece in file])

    return asyncio.run(take())


@pytest.mark.parametrize("seed", range(6))
def test_the_file_comes_out_as_it_went_in_whatever_the_pieces(seed: int) -> None:
    """Data full of what looks like the boundary, cut anywhere."""
    random = np.random.default_rng(seed)
    scraps = [b"\r\n--xx", b"\r\n--x", b"\r\n", b"--xx--", b"-", b"\0", b"x" * 50, b"\r\n--xy\r\n", b"\r\r\n--"]
    data = b"".join(scraps[i] for i in random.integers(0, len(scraps), 300))
    while scraps[0] in data:  # that would be the boundary itself
        data = data.replace(scraps[0], b"\r\n--x\r")
    for most in (1, 2, 7, 64, 10_000):
        file, got = read(form(data, "straße.png"), iter(lambda most=most: int(random.integers(1, most + 1)), 0))
        assert got == data
        assert (file.name, file.kind) == ("straße.png", "image/png")


def test_an_empty_file_is_one() -> None:
    assert read(form(b""), iter([1000]))[1] == b""


FIELD = b'--xx\r\nContent-Disposition: form-data; name="score"\r\n\r\n0.4\r\n'


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "no file"),
        (b"--xx--\r\n", "no file"),
        (b"nonsense", "form cannot be read"),
        (b"--yy\r\n", "form cannot be read"),
        (FIELD + b"--xx--\r\n", "a field and no file"),
        (FIELD + form(b"data"), "a field and no file"),
        (form(b"data")[:-4] + b"\r\n" + FIELD[6:], "more than one part"),
        (form(b"one")[:-8] + b"\r\n" + form(b"two"), "more than one part"),
        (form(b"data")[:-8], "cut short"),
        (form(b"data")[:60], "no file"),
        (form(b"data") + b" " * MOST_AROUND, "contains more than the file"),
        (form(b"data", "x" * 2 * MOST_AROUND), "form"),
        (b"\r\n" * MOST_AROUND + form(b"data"), "contains more than the file"),
        (b"--xx\r\nBad Header: x\r\n\r\ndata\r\n--xx--", "form cannot be read"),
    ],
    ids=range(14),
)
@pytest.mark.parametrize("size", [1, 1_000_000])
def test_what_is_no_such_form(body: bytes, says: str, size: int) -> None:
    with pytest.raises(Problem, match=says):
        read(body, iter(lambda: size, 0))


@pytest.mark.parametrize("boundary", [b"", b"x" * 100_000])
def test_boundaries_that_are_none(boundary: bytes) -> None:
    with pytest.raises(Problem, match="boundary"):
        read(form(b"data"), iter([1000]), boundary)


def test_nothing_is_kept_of_a_large_one() -> None:
    size = 32 << 20

    async def pieces() -> AsyncIterator[bytes]:
        yield b"--xx\r\n" + HEAD.format("a", "video/mp4").encode()
        for _ in range(size >> 16):
            yield bytes(1 << 16)
        yield b"\r\n--xx--\r\n"

    async def count() -> int:
        file = FormFile(pieces(), b"xx")
        await file.open()
        return sum([len(piece) async for piece in file])

    tracemalloc.start()
    try:
        assert asyncio.run(count()) == size
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def test_a_picture_in_a_form_is_the_picture(server: httpx.Client) -> None:
    data = png(solid("green", 70, 50))
    raw = server.post("/v1/predict", content=data, headers={"content-type": "image/png"}).json()
    for name, kind in (("photo.png", "image/png"), ("../../etc/passwd", "application/octet-stream"), ("", "image/png")):
        answer = server.post("/v1/predict", files={"file": (name or "x", data, kind)}, params={"score": 0.4})
        assert answer.status_code == 200, answer.text
        assert {**answer.json(), "timings": None} == {**raw, "timings": None}


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        ({"files": {"file": ("a.png", b"", "image/png")}}, 422, "empty"),
        ({"files": {"file": ("a.png", b"no picture", "image/png")}}, 422, "not an image"),
        ({"files": {"file": ("a.mp4", b"x", "video/mp4")}}, 415, "image/png"),
        ({"files": [("file", ("a.png", b"x", "image/png")), ("more", ("b.png", b"x", "image/png"))]}, 400, "one part"),
        ({"files": {"file": ("a.png", b"x", "image/png")}, "data": {"score": "0.4"}}, 400, "no file"),
        ({"content": form(b"x"), "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        (
            {"content": b"nonsense", "headers": {"content-type": "multipart/form-data; boundary=xx"}},
            400,
            "form cannot be read",
        ),
    ],
    ids=range(7),
)
def test_what_is_refused(server: httpx.Client, options: dict[str, Any], status: int, says: str) -> None:
    answer = server.post("/v1/predict", **options)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    assert says in answer.json()["error"]


def test_a_video_in_a_form_is_a_job_of_its_name(server: httpx.Client, clip: bytes) -> None:
    """And the name is never a path."""
    files = {"file": ("../../My street.mp4", clip, "application/octet-stream")}
    accepted = server.post("/v1/jobs", files=files, params={"masks": False})
    assert accepted.status_code == 202, accepted.text
    address = accepted.headers["location"]
    job = ended(server, address)
    assert (job["state"], job["name"]) == ("done", "My street.mp4")
    lines = server.get(job["results"]["jsonl"]).text.splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(40))
    server.delete(address)
    named = server.post("/v1/jobs", files=files, params={"name": "other.mp4"})
    assert named.json()["name"] == "other.mp4"
    server.delete(named.headers["location"])


@pytest.fixture(scope="module")
def narrow(make: Any) -> Iterator[tuple[httpx.Client, Path]]:
    """A server with small limits, and its folder of jobs."""
    limits = {"image_bytes": 20_000, "upload_bytes": 20_000, "body_timeout_s": 3}
    settings = make(limits=limits)
    with served(create_app(settings)) as at, httpx.Client(base_url=f"http://{at}", timeout=60) as client:
        wait_until_ready(client)
        yield client, settings.folder / "jobs"


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/jobs"])
def test_limits_are_those_of_the_file(narrow: tuple[httpx.Client, Path], path: str) -> None:
    """Exactly at the limit it is taken in (and is no picture), one byte more is refused, announced or not."""
    client, folder = narrow
    headers = {"content-type": "multipart/form-data; boundary=xx"}
    fits, larger = (form(b"x" * size, "a", "application/octet-stream") for size in (20_000, 20_001))
    assert client.post(path, content=fits, headers=headers).status_code == 422
    for content in (larger, iter([larger[:9000], larger[9000:]]), form(b"x" * 100_000)):
        answer = client.post(path, content=content, headers=headers)
        assert answer.status_code == 413, answer.text
        assert "20 kB" in answer.json()["error"]
    assert not folder.exists() or [p.name for p in folder.iterdir() if p.is_dir()] == []


@pytest.mark.parametrize("sent", [b"--xx\r\n", form(b"half")[:-12]], ids=["head", "file"])
def test_a_client_that_stops_in_the_middle(narrow: tuple[httpx.Client, Path], sent: bytes) -> None:
    client, _ = narrow
    head = "POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=60) as connection:
        connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=xx\r\n\r\n".encode() + sent)
        assert b" 408 " in connection.recv(4096).split(b"\r\n")[0]
