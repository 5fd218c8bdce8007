"""One client that asks for everything, and another one, of another address, that is served all the same."""

from __future__ import annotations

import gc
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from perception.server.app import create_app
from tests.models import solid
from tests.server.conftest import wait_until_ready
from tests.server.served import served
from tests.server.waiting import wait_for

PNG = {"content-type": "image/png"}


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


SMALL = png(solid("red"))


@contextmanager
def running(make: Any, **limits: Any) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """A server with these limits; clients of two addresses."""
    with served(create_app(make(limits=limits, allow=["synthetic:*"]))) as address, ExitStack() as stack:
        clients = [
            stack.enter_context(
                httpx.Client(
                    transport=httpx.HTTPTransport(local_address=own, limits=httpx.Limits(max_connections=None)),
                    base_url=f"http://{address}",
                    timeout=300,  # maps are computed by a process that loads PyTorch first
                )
            )
            for own in ("127.0.0.1", "127.0.0.2")
        ]
        wait_until_ready(clients[0])
        yield clients[0], clients[1]


@pytest.fixture(scope="module")
def both(make: Any) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    with running(make) as clients:
        yield clients


def send(client: httpx.Client, data: bytes = SMALL, path: str = "/v1/predict", **options: Any) -> httpx.Response:
    return client.post(path, content=data, headers=PNG, **options)


def half_of_an_upload(client: httpx.Client, path: str, kind: str = "image/png") -> socket.socket:
    connection = socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=60)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: 1000000\r\n\r\nhalf"
    connection.sendall(head.encode())
    return connection


@pytest.mark.parametrize(("path", "kind"), [("/v1/predict", "image/png"), ("/v1/explain", "image/png")])
def test_slow_uploads(both: tuple[httpx.Client, httpx.Client], path: str, kind: str) -> None:
    one, other = both
    with ExitStack() as stack:
        slow = [stack.enter_context(half_of_an_upload(one, path, kind)) for _ in range(24)]
        wait_for(lambda: send(one).status_code == 429)  # they have taken its share
        assert send(other).status_code == 200
        for connection in slow:
            connection.sendall(b"x" * 100)
        assert send(other).status_code == 200
        assert "from your address" in send(one).json()["error"]
    wait_for(lambda: send(one).status_code == 200)


def test_slow_uploads_of_videos(both: tuple[httpx.Client, httpx.Client], clip: bytes) -> None:
    """They take the places of jobs, too."""
    one, other = both
    with ExitStack() as stack:
        for _ in range(12):
            stack.enter_context(half_of_an_upload(one, "/v1/jobs", "video/mp4"))
        wait_for(lambda: len(one.get("/v1/jobs").json()) == 4)
        answer = other.post("/v1/jobs", content=clip, headers={"content-type": "video/mp4"})
        assert answer.status_code == 202, answer.text
        assert one.post("/v1/jobs", content=clip, headers={"content-type": "video/mp4"}).status_code == 429
        assert other.delete(answer.headers["location"]).status_code == 204
    wait_for(lambda: one.get("/v1/jobs").json() == [])


def test_heartbeats(both: tuple[httpx.Client, httpx.Client]) -> None:
    """Of Gradio's pages: requests that would last as long as a page is open. Ours has none."""
    one, other = both
    statuses = []
    with ExitStack() as stack:
        for number in range(140):
            answer = stack.enter_context(one.stream("GET", f"/gradio_api/heartbeat/{number:011x}"))
            statuses.append(answer.status_code)
        assert set(statuses) <= {200, 404, 429}
        for client in (one, other):
            assert client.get("/").status_code == 200
            assert send(client).status_code == 200


def test_webcams(make: Any) -> None:
    with running(make, viewers=4) as (one, _), ExitStack() as stack:
        url = f"ws://{one.base_url.netloc.decode()}/v1/webcam"
        for _ in range(2):
            webcam = stack.enter_context(connect(url))
            webcam.send("{}")
            assert "ready" in webcam.recv(60)
        third = stack.enter_context(connect(url))
        with pytest.raises(ConnectionClosed):
            third.recv(30)
        assert third.close_code == 1013
        with connect(url, source_address=("127.0.0.2", 0)) as webcam:
            webcam.send("{}")
            assert "ready" in webcam.recv(60)


def test_viewers(make: Any) -> None:
    with running(make, viewers=4) as (one, other), ExitStack() as stack:
        id = one.post("/v1/streams", json={"source": "scene"}).json()["id"]
        path = f"/v1/streams/{id}/mjpeg"
        for _ in range(2):
            assert stack.enter_context(one.stream("GET", path)).status_code == 200
        assert one.get(path).status_code == 429
        with other.stream("GET", path) as answer:
            assert answer.status_code == 200


def test_a_body_has_a_time_in_which_it_comes(make: Any) -> None:
    """However steadily it does."""
    with running(make, body_time_s=1.5, body_timeout_s=60) as (one, _):
        for path in ("/v1/predict", "/v1/explain", "/v1/streams", "/gradio_api/queue/join"):
            with half_of_an_upload(one, path) as connection:
                connection.settimeout(0.05)
                answer = b""
                while not answer.endswith(b"}"):  # it goes on sending, also when it is answered
                    with suppress(TimeoutError):
                        connection.sendall(b"x")
                        part = connection.recv(4096)
                        assert part, answer
                        answer += part
                assert answer.startswith(b"HTTP/1.1 408"), path
                assert b"longer than 1.5 s" in answer
                with pytest.raises(ConnectionError):  # for a while
                    while True:
                        connection.sendall(b"x")
                        threading.Event().wait(0.01)


def in_progress(client: httpx.Client, what: str = "pixels_in_progress_most") -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"perception_{what} ")))


@pytest.mark.timeout(600)
def test_pixels_in_progress_are_never_more_than_allowed(make: Any) -> None:
    """Pictures on every way in, of two clients; all of them are served, one after the other."""
    width, height = 200, 100
    most = 3 * width * height
    picture = png(np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8))
    with running(make, pixels_in_progress=most, share=1, waiting=40) as clients:
        url = f"ws://{clients[0].base_url.netloc.decode()}/v1/webcam"

        def webcam(number: int) -> int:
            with connect(url) as connection:
                for _ in range(4):
                    connection.send(number.to_bytes(4, "little") + picture)
                    assert isinstance(connection.recv(60), bytes)
            return 200

        def form(number: int) -> int:
            files = {"file": ("a.png", picture, "image/png")}
            return clients[number % 2].post("/v1/predict", files=files).status_code

        def drawn(number: int) -> int:
            headers = {**PNG, "accept": "image/png"}
            return clients[number % 2].post("/v1/predict", content=picture, headers=headers).status_code

        def explained(number: int) -> int:
            return send(clients[number % 2], picture, "/v1/explain", params={"class_name": "unicorn"}).status_code

        with ThreadPoolExecutor(24) as pool:
            made = [pool.submit(way, n) for n in range(8) for way in (webcam, form, drawn)]
            explaining = [pool.submit(explained, n) for n in range(2)]
            assert [each.result() for each in made] == [200] * len(made)
            assert {each.result() for each in explaining} <= {422, 501, 503}
        assert width * height < in_progress(clients[0]) <= most
        wait_for(lambda: in_progress(clients[0], "pixels_in_progress") == 0)
        assert in_progress(clients[0], "pictures_waiting") == 0


def test_a_picture_larger_than_all_that_is_allowed(make: Any) -> None:
    with running(make, pixels_in_progress=1000) as (one, _):
        large = png(np.zeros((40, 26, 3), np.uint8))
        for path in ("/v1/predict", "/v1/explain"):
            answer = send(one, large, path)
            assert answer.status_code in ((413,) if path == "/v1/predict" else (413, 501))
        with connect(f"ws://{one.base_url.netloc.decode()}/v1/webcam") as webcam:
            webcam.send(bytes(4) + large)
            assert "1040 pixels are more" in str(webcam.recv(60))
        assert send(one, png(np.zeros((40, 25, 3), np.uint8))).status_code == 200


def test_who_leaves_gives_its_pixels_back(make: Any) -> None:
    """In the middle of all that is done with a picture."""
    rng = np.random.default_rng(1)
    picture = png(rng.integers(0, 256, (1000, 1000, 3)).astype(np.uint8))
    with running(make, pixels_in_progress=1_000_000) as (one, _):
        url = f"ws://{one.base_url.netloc.decode()}/v1/webcam"
        for seconds in rng.random(10) * 0.1:
            with connect(url) as webcam:
                for number in range(3):
                    webcam.send(bytes([number, 0, 0, 0]) + picture)
                threading.Event().wait(seconds)
                webcam.socket.shutdown(socket.SHUT_RDWR)
            with suppress(httpx.TimeoutException):
                send(one, picture, timeout=seconds)
        wait_for(lambda: in_progress(one, "pixels_in_progress") == 0)
        assert send(one, picture).status_code == 200


def test_who_leaves_a_damaged_picture_behind_is_no_news(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for what becomes of it, and the log has nothing of it."""
    damaged = png(np.random.default_rng(2).integers(0, 256, (500, 500, 3)).astype(np.uint8))[:400_000]
    with running(make) as (one, _):
        url = f"ws://{one.base_url.netloc.decode()}/v1/webcam"
        for _ in range(20):
            with connect(url) as webcam:
                webcam.send(bytes(4) + damaged)
                webcam.send(bytes(4) + damaged)
                webcam.socket.shutdown(socket.SHUT_RDWR)
        wait_for(lambda: in_progress(one, "pixels_in_progress") == 0)
    gc.collect()
    assert "never retrieved" not in caplog.text
