"""Connections of those who have not said who they are: real ones, to a server with few file descriptors."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from perception.server.edge.sockets import most_sockets
from tests.server.process import LiveProcess, live
from tests.server.waiting import wait_for

DESCRIPTORS = 160


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveProcess]:
    """It may have few files open, and of these no more than 64 unless it asks for the rest."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1024:
        pytest.skip("needs a thousand file descriptors of its own")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1024), hard))
    options = {"user": "maria", "password": "secret"}
    with live(tmp_path_factory.mktemp("live"), DESCRIPTORS, **options) as process:
        yield process


def other(server: LiveProcess, address: str = "127.0.0.9") -> httpx.Client:
    """A client of another address, with credentials."""
    transport = httpx.HTTPTransport(local_address=address)
    return httpx.Client(transport=transport, base_url=server.url, auth=("maria", "secret"), timeout=60)


def silent(server: LiveProcess, stack: ExitStack, count: int, *addresses: str, says: bytes = b"") -> None:
    """Connections of so many, in turns from these addresses, which say so much and no more."""
    for number in range(count):
        source = (addresses[number % len(addresses)], 0)
        connection = socket.create_connection((server.host, server.port), timeout=60, source_address=source)
        stack.callback(connection.close)
        connection.sendall(says)


def test_it_takes_as_many_descriptors_as_it_may(server: LiveProcess) -> None:
    for line in Path(f"/proc/{server._process.pid}/limits").read_text().splitlines():
        if line.startswith("Max open files"):
            assert line.split()[3:5] == [str(DESCRIPTORS)] * 2


@pytest.mark.parametrize("says", [b"", b"GET / HT", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"], ids=range(3))
def test_many_silent_connections_of_one_address(server: LiveProcess, says: bytes) -> None:
    """More than there are descriptors; another address is served as ever."""
    with ExitStack() as stack:
        silent(server, stack, 3 * DESCRIPTORS, "127.0.0.1", says=says)
        with other(server) as client:
            for _ in range(5):
                assert client.get("/v1/models").status_code == 200
                assert client.get("/").status_code == 200
        assert server.usage().descriptors <= DESCRIPTORS
        with socket.create_connection((server.host, server.port), timeout=60) as refused:
            assert refused.recv(4096).startswith((b"HTTP/1.1 503", b"HTTP/1.1 429"))
    assert "Traceback" not in server.said()
    assert "Too many open files" not in server.said()


def test_silent_connections_of_many_addresses(server: LiveProcess) -> None:
    """Who has been silent for longest makes room."""
    with ExitStack() as stack:
        silent(server, stack, 3 * DESCRIPTORS, *(f"127.0.1.{n}" for n in range(1, 40)))
        for number in range(10):
            with other(server, f"127.0.2.{number + 1}") as client:
                assert client.get("/v1/models").status_code == 200
    assert "Traceback" not in server.said()


def test_those_that_left_are_forgotten(server: LiveProcess) -> None:
    with other(server) as client:
        client.get("/healthz")
        for _ in range(3):
            with ExitStack() as stack:
                silent(server, stack, 50, "127.0.0.1")
            wait_for(lambda: server.usage().descriptors < DESCRIPTORS // 2)
    with httpx.Client(base_url=server.url, auth=("maria", "secret"), timeout=60) as again:
        wait_for(lambda: again.get("/v1/models").status_code == 200)


@pytest.mark.parametrize(
    "endless",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 65_536,
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 10_000,
        b"GET /" + b"x" * 65_536,
        b"POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 65_536,
        b"POST /login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 10_000,
    ],
    ids=["header", "headers", "address", "chunk", "trailers"],
)
def test_heads_without_end(server: LiveProcess, endless: bytes) -> None:
    """They are hung up on before they fill the memory, whatever they are made of."""
    piece = endless[-60_000:]
    sent = 0
    address = (server.host, server.port)
    with socket.create_connection(address, timeout=60) as connection, suppress(ConnectionError):  # hung up on
        connection.sendall(endless)
        while sent < 100e6:
            sent += connection.send(piece)
    assert sent < 100e6
    with other(server) as client:
        assert client.get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    ("wanted", "descriptors", "most"), [(1024, None, 1024), (1024, 1024, 768), (1024, 1 << 20, 1024), (1024, 100, 75)]
)
def test_some_descriptors_are_kept_for_files(wanted: int, descriptors: int | None, most: int) -> None:
    assert most_sockets(wanted, descriptors) == most
