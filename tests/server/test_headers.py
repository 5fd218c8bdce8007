"""Headers are data: whatever bytes they are, the answer is one of 4xx, and the log has a few lines and no traceback."""

from __future__ import annotations

import base64
import logging
import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from perception.server.app import create_app
from perception.server.edge import login_throttle, rates
from perception.server.edge.connections import HEAD_BYTES
from tests.server.served import served

TOKEN = "0123456789abcdef"
NAMES = [
    "accept", "accept-encoding", "authorization", "connection", "content-encoding", "content-length", "content-type",
    "cookie", "expect", "host", "if-modified-since", "if-none-match", "if-range", "origin", "range", "referer",
    "sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site", "sec-websocket-extensions", "sec-websocket-key",
    "sec-websocket-protocol", "sec-websocket-version", "te", "transfer-encoding", "upgrade", "x-forwarded-for",
    "x-forwarded-host", "x-forwarded-proto",
]  # fmt: skip
VALUES = [
    b"", b"\xff", b"\xfc\x80", "ü€".encode(), b"\x80" * 200, b"a" * 1000, b"%" * 50, b"=" * 50, b";" * 50, b"," * 500,
    b'"', b"(", b"[", b"//[", b"http://[", b"0", b"-1", b"9" * 400, b"1e9", b"0x10", b"\xb2", b"bytes=", b"bytes=0-",
    b"bytes=-1", b"bytes=5-2", b"bytes=" + b"0-1," * 300, b"Basic", b"Basic \xff", b"Basic " + b"=" * 9,
    b"Basic " + base64.b64encode(b"nocolon"), b"Basic " + base64.b64encode(b"\xff:\xfe"), b"Bearer \xff",
    b"Bearer " + b"x" * 9000, b"Digest x", b"multipart/form-data", b"multipart/form-data; boundary=",
    b"multipart/form-data; boundary=" + b"-" * 900, b"*/*;q=nan", b"text/html;q=" + b"9" * 400, b"chunked", b"gzip",
    b"perception_session=\xff; perception_session", b'a="\\377\\000"; b=\\', b"websocket", b"upgrade", b"100-continue",
    b"*", b"Wed, 99 Foo", b"W/\"", b"null", b"evil.test:99999999", b"127.0.0.1:", b"127.0.0.1:x",
]  # fmt: skip


@pytest.fixture(scope="module", params=["guarded", "open"])
def address(request: pytest.FixtureRequest, make: Any) -> Iterator[str]:
    settings = make(**({"token": TOKEN} if request.param == "guarded" else {}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rates, "PROBES_PER_S", 1e6)  # see test_tarpit.py
        app = create_app(settings)
    with served(app) as started:
        yield started


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_throttle, "FIRST_S", 0.0)  # see test_login_throttle.py


def ask(address: str, head: bytes, seconds: float = 30) -> int:
    """The status of what is answered to some bytes; 0: none, the connection is closed."""
    name, _, port = address.partition(":")
    with socket.create_connection((name, int(port)), timeout=seconds) as connection:
        try:
            connection.sendall(head)
            answer = b""
            while b"\r\n" not in answer:
                part = connection.recv(4096)
                if not part:
                    return 0
                answer += part
        except ConnectionError:
            return 0
    return int(answer.split(b" ")[1])


def request(address: str, *headers: tuple[str, bytes], method: str = "GET", path: str = "/v1/models") -> bytes:
    """A request's bytes, ended by the client; with a host, unless one is among the headers."""
    said = [*headers, ("connection", b"close")]
    if not any(name == "host" for name, _ in headers):
        said.insert(0, ("host", address.encode()))
    lines = [f"{method} {path} HTTP/1.1".encode(), *(name.encode() + b": " + value for name, value in said)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def check(caplog: pytest.LogCaptureFixture, most: int = 60) -> None:
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.exc_info]
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) <= most, lines
    assert all(len(line) < 300 for line in lines)


def test_every_header_with_every_value(address: str, caplog: pytest.LogCaptureFixture) -> None:
    for path, every in (("/healthz", 1), ("/", 3), ("/static/perception/page.js", 3), ("/login", 3)):
        for name in NAMES:
            for value in VALUES[::every]:
                status = ask(address, request(address, (name, value), path=path))
                assert status < 500, (name, value, path, status)
    assert httpx.get(f"http://{address}/healthz").status_code in (200, 401)
    check(caplog)


def test_every_pair_of_bodies_and_headers(address: str, caplog: pytest.LogCaptureFixture) -> None:
    """What has a body is told so in odd ways, too. The client hangs up, or the server waits for what was announced."""
    for path in ("/v1/predict", "/login", "/v1/streams"):
        for name in ("content-type", "content-length", "transfer-encoding", "content-encoding", "origin"):
            for value in VALUES:
                with_token = ("authorization", f"Bearer {TOKEN}".encode())
                name_, _, port = address.partition(":")
                with socket.create_connection((name_, int(port)), timeout=30) as connection:
                    connection.sendall(
                        request(address, (name, value), with_token, method="POST", path=path) + b"{}\r\n"
                    )
                    connection.shutdown(socket.SHUT_WR)
                    try:
                        answer = connection.recv(4096)
                    except ConnectionError:
                        answer = b""
                assert not answer.startswith(b"HTTP/1.1 5"), (path, name, value, answer)
    check(caplog)


@pytest.mark.parametrize("name", ["host", "authorization", "origin", "content-length", "content-type", "range"])
def test_what_a_request_has_once(address: str, name: str) -> None:
    value = {"host": address, "authorization": f"Bearer {TOKEN}", "content-length": "0"}.get(name, "x").encode()
    assert ask(address, request(address, (name, value), (name, value))) == 400


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"x" * 1000, 400),
        (b"\xff\xfe", 400),
        (b"a b", 400),
        (b"a/b", 400),
        (b"a?b", 400),
        (b"a@b", 400),
        (b"<script>", 400),
        (b"[::1", 400),
        (b"a:b", 400),
        (b"127.0.0.1:123456", 400),
        (b"127.0.0.1:1", 0),
        (b"[::1]:7860", 0),
        (b"localhost", 0),
    ],
)
def test_hosts(address: str, host: bytes, status: int) -> None:
    assert ask(address, request(address, ("host", host))) in ([status] if status else [200, 401])


@pytest.mark.parametrize(
    "value",
    [
        b"Basic \xff", b"Basic !!!", b"Basic", b"Basic " + base64.b64encode(b"no colon"), b"Basic dXNlcg", b"Bearer",
        b"", b"\xff", b"Digest x", b"Bearer \xff\xfe", b"Basic " + base64.b64encode(b"\xff\xfe:\xff"),
        b"Basic " + b"A" * 20_000,
    ],
)  # fmt: skip
def test_credentials_that_cannot_be_read(make: Any, value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with served(create_app(make(token=TOKEN))) as address:
        for _ in range(50):
            assert ask(address, request(address, ("authorization", value))) in (401, 429)
        lines = [record for record in caplog.records if "request" in record.getMessage()]
        assert len(lines) <= 10
        check(caplog)


def test_more_headers_than_any_client_needs(address: str) -> None:
    assert ask(address, request(address, *[(f"x-{n}", b"1") for n in range(200)])) == 431
    assert ask(address, request(address, ("x-long", b"a" * 40_000))) == 431


@pytest.mark.parametrize(
    "endless", [b"GET /", b"GET / HTTP/1.1\r\nx: ", b"GET / HTTP/1.1\r\n", b"TRAILER", b"EXTENSION"]
)
def test_a_head_that_does_not_end(address: str, endless: bytes) -> None:
    """It is cut off while it comes, and not kept in memory until it is complete."""
    chunked = b"POST /v1/streams HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    start = {b"TRAILER": chunked + b"0\r\nx: ", b"EXTENSION": chunked + b"5;x="}.get(endless, endless)
    part = (b"x: y\r\n" if endless.endswith(b"\r\n") else b"aaaaaa") * 1000
    name, _, port = address.partition(":")
    sent = 0
    with socket.create_connection((name, int(port)), timeout=60) as connection:
        connection.sendall(start)
        try:
            while sent < 200 * HEAD_BYTES:
                connection.sendall(part)
                sent += len(part)
        except ConnectionError:
            pass
    assert sent < 200 * HEAD_BYTES


@pytest.mark.parametrize("seed", range(3))
def test_bytes_that_are_no_http(address: str, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    random_ = random.Random(seed)
    good = request(address, ("upgrade", b"websocket"), ("sec-websocket-key", b"x"), path="/v1/webcam")
    for _ in range(100):
        data = bytearray(good)
        for _ in range(random_.randint(1, 6)):
            data[random_.randrange(len(data) - 4)] = random_.choice(b"\x00\x80\xff \r\n:%/;\xc3")
        assert ask(address, bytes(data) + b"\r\n\r\n") < 500
    check(caplog)


@pytest.mark.parametrize(
    "extra",
    [
        [(f"x-{n}", b"1") for n in range(200)],
        [("x", b"a" * 20_000)],
        [("x", b"\xff")],
        [("sec-websocket-extensions", b"\xff;;,")],
        [("sec-websocket-protocol", b"a, b,, \xff")],
        [("sec-websocket-key", b"x")],
        [("sec-websocket-version", b"-1")],
        [("upgrade", b"websocket")],
        [("content-length", b"10")],
        [("transfer-encoding", b"chunked")],
        [("host", b"x")],
        [("origin", b"\xff")],
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_odd_handshakes(
    address: str, extra: list[tuple[str, bytes]], method: str, caplog: pytest.LogCaptureFixture
) -> None:
    said = [("host", address.encode()), ("connection", b"Upgrade"), ("upgrade", b"websocket"), *extra]
    said += [("sec-websocket-version", b"13"), ("sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")]
    head = f"{method} /v1/webcam?token={TOKEN} HTTP/1.1\r\n".encode()
    head += b"".join(name.encode() + b": " + value + b"\r\n" for name, value in said) + b"\r\n"
    assert ask(address, head) < 500
    check(caplog)


@pytest.mark.parametrize("seed", range(3))
def test_frames_that_are_none(address: str, seed: int, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(seed)
    for _ in range(20):
        with handshake(address) as connection, suppress(ConnectionError):
            connection.sendall(rng.randbytes(rng.randint(1, 400)))
    assert httpx.get(f"http://{address}/healthz").status_code in (200, 401)
    check(caplog)


@pytest.mark.parametrize("path", ["/v1/webcam\xff", "/\xfc", "/v1/webcam?\xff", "/%ff%fe", "/v1/webcam%00", "//", "*"])
def test_odd_addresses_over_websockets(address: str, path: str, caplog: pytest.LogCaptureFixture) -> None:
    upgrade = [
        ("upgrade", b"websocket"), ("sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="), ("sec-websocket-version", b"13"),
    ]  # fmt: skip
    said = [("host", address.encode()), ("connection", b"Upgrade"), *upgrade]
    head = b"GET " + path.encode("latin-1") + b" HTTP/1.1\r\n"
    head += b"".join(name.encode() + b": " + value + b"\r\n" for name, value in said) + b"\r\n"
    assert ask(address, head) < 500
    check(caplog)


def handshake(address: str) -> socket.socket:
    """A WebSocket whose frames are the test's own matter."""
    name, _, port = address.partition(":")
    connection = socket.create_connection((name, int(port)), timeout=30)
    lines = [f"GET /v1/webcam?token={TOKEN} HTTP/1.1", f"Host: {address}", "Connection: Upgrade", "Upgrade: websocket"]
    lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", ""]
    connection.sendall("\r\n".join(lines).encode())
    assert b" 101 " in connection.recv(4096)
    return connection


def test_pings_of_a_client_that_reads_nothing_are_not_answered_into_memory(address: str) -> None:
    """It is read from no more, until it takes the answers."""
    most = 60_000_000
    pings = (b"\x89\xfd\0\0\0\0" + b"p" * 125) * 1000
    sent = 0
    with handshake(address) as connection:
        connection.settimeout(5)
        try:
            while sent < most:
                connection.sendall(pings)
                sent += len(pings)
        except TimeoutError:
            pass
        assert sent < most
        taken = 0
        while taken < sent // len(pings) * 127 * 1000:
            taken += len(connection.recv(1 << 20))


def test_text_that_is_none(address: str, caplog: pytest.LogCaptureFixture) -> None:
    """A WebSocket's text in no UTF-8 is answered with the code for that, and one line in the log."""
    for _ in range(30):
        with connect(f"ws://{address}/v1/webcam?token={TOKEN}", open_timeout=30) as socket_:
            socket_.send(b"\xff\xfe{}", text=True)
            while True:
                try:
                    socket_.recv(timeout=30)
                except ConnectionClosed as closed:
                    assert closed.rcvd is not None and closed.rcvd.code == 1007
                    break
    check(caplog, most=10)
