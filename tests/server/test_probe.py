"""Hosts that clients name and that do not answer: they cost nobody else anything."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from perception.server.app import create_app
from perception.server.edge.probe import PER_HOST, Questions, check_no_redirect
from perception.server.problems import Busy, Forbidden, NotFound
from perception.sources.address import Address
from tests.media import tcp_server
from tests.server.conftest import wait_until_ready
from tests.server.served import served
from tests.server.waiting import wait_for


def ask(port: int, path: str = "/v", scheme: str = "http", seconds: float = 30) -> str:
    address = Address.read(f"{scheme}://camera.invalid:{port}{path}")
    return check_no_redirect(address, ["127.0.0.1"], time.monotonic() + seconds)


def answering(data: bytes) -> Any:
    def answer(connection: socket.socket, ended: threading.Event) -> None:
        connection.recv(65536)
        connection.sendall(data)

    return answer


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", None),
        (b"HTTP/1.0 206 Partial\r\n\r\n", None),
        (b"ICY 200 OK\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\n" + b"a" * 100_000, None),  # headers are not looked at
        (b"HTTP/1.1 200 OK\r\n\xff\xfe: \x00\r\n: \r\n\r\n", None),
        (b"HTTP/1.1 200\n", None),
        *(
            (f"HTTP/1.1 {status} Go\r\nLocation: /x\r\n\r\n".encode(), Forbidden)
            for status in (300, 301, 302, 307, 399)
        ),
        *((f"HTTP/1.1 {status} No\r\n\r\n".encode(), NotFound) for status in (100, 404, 410, 500, 999)),
        (b"", NotFound),
        (b"\r\n", NotFound),
        (b"SSH-2.0-OpenSSH\r\n", NotFound),
        (b"HTTP/1.1 2000 OK\r\n", NotFound),
        (b"HTTP/1.1 \xb2\xb0\xb0 OK\r\n", NotFound),
        (b"a" * 1_000_000, NotFound),
    ],
)
def test_answers(data: bytes, error: type[Exception] | None) -> None:
    with tcp_server(answering(data)) as port:
        if error is None:
            assert ask(port) == "127.0.0.1"
        else:
            with pytest.raises(error) as caught:
                ask(port)
            assert "\n" not in str(caught.value)


def test_what_is_asked() -> None:
    heads = []

    def answer(connection: socket.socket, ended: threading.Event) -> None:
        heads.append(connection.recv(65536).decode())
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    with tcp_server(answer) as port:
        ask(port, "/a?b=c#d")
        ask(port, "?b=c")
    assert heads[0].startswith(f"GET /a?b=c HTTP/1.1\r\nHost: camera.invalid:{port}\r\n")
    assert heads[1].startswith("GET /?b=c HTTP/1.1\r\n")


def test_one_deadline_for_all_of_it() -> None:
    """A server that sends a byte now and then would keep any time limit for single reads from being reached."""

    def drip(connection: socket.socket, ended: threading.Event) -> None:
        while not ended.wait(0.02):
            connection.sendall(b"H")

    with tcp_server(drip) as port, pytest.raises(NotFound, match="no answer"):
        ask(port, seconds=0.5)


def test_encryption_counts_too(tmp_path: Path) -> None:
    def silent(connection: socket.socket, ended: threading.Event) -> None:
        ended.wait()

    with tcp_server(silent) as port, pytest.raises(NotFound, match="no answer"):
        ask(port, scheme="https", seconds=0.5)
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout", str(key)]
    try:
        subprocess.run([*command, "-out", str(certificate)], check=True, capture_output=True)
    except OSError:
        pytest.skip("openssl is not installed")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def answer(connection: socket.socket, ended: threading.Event) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(4096)
            secure.sendall(b"HTTP/1.1 302 Found\r\n\r\n")

    with tcp_server(answer) as port, pytest.raises(Forbidden, match="redirects"):
        ask(port, scheme="https")


def test_the_next_address_of_a_host_is_tried() -> None:
    with tcp_server(answering(b"HTTP/1.1 200 OK\r\n\r\n")) as port:
        address = Address.read(f"http://camera.invalid:{port}/")
        assert check_no_redirect(address, ["127.0.0.2", "127.0.0.1"], time.monotonic() + 30) == "127.0.0.1"


def test_few_are_asked_at_once_and_fewer_of_one_host() -> None:
    async def run() -> None:
        go = threading.Event()
        questions = Questions(at_once=3, per_host=2, deadline_s=600)
        first = [asyncio.create_task(questions.ask("a", go.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await questions.ask("a", go.wait)
        other = asyncio.create_task(questions.ask("b", go.wait))
        await asyncio.sleep(0)
        with pytest.raises(Busy) as caught:
            await questions.ask("c", go.wait)
        assert caught.value.retry_after_s > 0
        first[0].cancel()  # a client who left: the thread is there as long as it is
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await questions.ask("c", go.wait)
        go.set()
        assert await first[1]
        assert await other
        while True:  # all places are free again
            try:
                assert await questions.ask("c", lambda: 7) == 7
                break
            except Busy:
                await asyncio.sleep(0.01)
        with pytest.raises(ZeroDivisionError):
            await questions.ask("c", lambda: 1 // 0)

    asyncio.run(run())


def test_who_asks_does_not_wait_longer_than_the_deadline() -> None:
    async def run() -> None:
        go = threading.Event()
        questions = Questions(at_once=1, deadline_s=0.05)
        with pytest.raises(NotFound, match="no answer"):
            await questions.ask("a", go.wait)  # looking up a name cannot be ended
        with pytest.raises(Busy):
            await questions.ask("a", go.wait)
        go.set()

    asyncio.run(run())


@contextmanager
def silent_host() -> Any:
    """Accepts and never answers; its port, and how many connections it holds."""
    held: list[socket.socket] = []

    def keep(connection: socket.socket, ended: threading.Event) -> None:
        held.append(connection)
        ended.wait()

    with tcp_server(keep) as port:
        yield port, held


def test_a_host_that_never_answers_starves_nobody(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perception.server.edge.allowlist.DEADLINE_S", 600)
    with silent_host() as (port, held):
        app = create_app(make(allow=[f"http://127.0.0.1:{port}/*", "synthetic:*"]))
        app.state.service.streams._questions = Questions(deadline_s=600)  # so that nothing here depends on time
        with served(app) as address, httpx.Client(base_url=f"http://{address}", timeout=600) as client:
            wait_until_ready(client)
            answers: list[httpx.Response] = []
            with ThreadPoolExecutor(24) as pool:

                def post(number: int) -> None:
                    answers.append(client.post("/v1/streams", json={"source": f"http://127.0.0.1:{port}/{number}"}))

                posts = [pool.submit(post, number) for number in range(24)]
                wait_for(lambda: len(answers) == 24 - PER_HOST and len(held) == PER_HOST)
                # While those wait: whatever else is asked is answered.
                assert client.get("/v1/streams").status_code == 200
                opened = client.post("/v1/streams", json={"source": "scene"})
                assert opened.status_code == 201
                assert client.post("/v1/streams", json={"source": "synthetic:?size=64x48"}).status_code == 201
                assert client.get("/v1/streams/scene/snapshot").status_code == 200
                assert client.post("/v1/streams", json={"source": "http://elsewhere.test/"}).status_code == 403
                assert len(answers) == 24 - PER_HOST
                assert {answer.status_code for answer in answers} == {503}
                assert all(answer.headers["retry-after"] and answer.json()["error"] for answer in answers)
                for connection in held:
                    connection.shutdown(socket.SHUT_RDWR)
                for each in posts:
                    each.result()
            assert [answer.status_code for answer in answers[24 - PER_HOST :]] == [404] * PER_HOST
