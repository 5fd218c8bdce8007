"""Which sources a client may open. Names are looked up in a table here, so that the tests need no network."""

from __future__ import annotations

import http.server
import random
import socket
import threading
from collections.abc import Iterator

import pytest

from perception.errors import UsageError
from perception.server.edge import allowlist as allow
from perception.server.edge.allowlist import check_patterns, check_source
from perception.server.problems import Forbidden, NotFound, Problem
from perception.server.settings import ServerSettings, make_settings

ADDRESSES = {
    "cam1.local": ["192.168.1.20"],
    "cam1.example.org": ["93.184.216.34"],
    "cam2.example.org": ["93.184.216.35", "2606:2800:220:1::35"],
    "inside.example.org": ["10.0.0.5"],
    "mixed.example.org": ["93.184.216.34", "192.168.0.1"],
    "rebound.local": ["127.0.0.1"],
    "metadata.example.org": ["169.254.169.254"],
    "mapped.example.org": ["::ffff:192.168.0.1"],
    "localhost": ["127.0.0.1"],
    "xn--bcher-kva.example.org": ["93.184.216.36"],
}


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The part of the outside world that is not here: name servers."""

    def look_up(host: str, port: int, **kind: object) -> list:
        if host not in ADDRESSES:
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ADDRESSES[host]]

    monkeypatch.setattr(allow.socket, "getaddrinfo", look_up)


ONE_SPELLING = {
    "RTSP://CAM1.Example.ORG/x": "rtsp://cam1.example.org/x",
    "rtsp://cam1.example.org:554/x": "rtsp://cam1.example.org/x",
    "rtsp://cam1.example.org.:554/x": "rtsp://cam1.example.org/x",
    "RTSPS://Cam1.Example.Org.:322": "rtsps://cam1.example.org",
    "rtsp://cam1.example.org:/x": "rtsp://cam1.example.org/x",
    "rtsp://cam1.example.org/x?a=1#b": "rtsp://cam1.example.org/x?a=1",
    "rtsp://bücher.example.org/x": "rtsp://xn--bcher-kva.example.org/x",
    "rtsp://BÜCHER.example.org/x": "rtsp://xn--bcher-kva.example.org/x",
    "rtsp://[0:0:0::0:1]:8554/x": "rtsp://[::1]:8554/x",
    "rtsp://[2001:DB8::0001]/x": "rtsp://[2001:db8::1]/x",
}


def settings(*patterns: str, **values: object) -> ServerSettings:
    return make_settings({"allow": patterns, **values})


def test_nothing_is_allowed_by_default() -> None:
    for uri in (
        "rtsp://cam1.example.org/",
        "http://cam1.example.org/a",
        "0",
        "synthetic:",
        "/etc/passwd",
        "a.mp4",
        "-",
    ):
        with pytest.raises(Forbidden):
            check_source(uri, settings())


def test_what_the_operator_named() -> None:
    chosen = settings(sources={"yard": {"uri": "/videos/yard.mp4", "loop": False}}, cameras=[2])
    assert check_source("yard", chosen).uri == "/videos/yard.mp4"
    assert not check_source("yard", chosen).loop
    assert check_source("2", chosen).uri == check_source("002", chosen).uri == "2"
    for uri in ("1", "yard2", "/videos/yard.mp4", "/dev/video2", "YARD"):
        with pytest.raises(Forbidden):
            check_source(uri, chosen)


@pytest.mark.parametrize(
    ("pattern", "uri", "fits"),
    [
        ("rtsp://cam1.example.org/*", "rtsp://cam1.example.org/stream/1?profile=2", True),
        ("rtsp://cam1.example.org/*", "RTSP://CAM1.Example.ORG/x", True),
        ("rtsp://cam1.example.org/*", "rtsp://cam1.example.org:554/x", True),
        ("rtsp://cam1.example.org/*", "rtsp://cam1.example.org.:554/x", True),
        ("rtsp://cam1.example.org/*", "rtsp://cam1.example.org", True),
        ("rtsp://*.example.org:8554/live/*", "rtsp://cam2.example.org:8554/live/1", True),
        ("rtsp://cam1.local/*", "rtsp://cam1.local/1", True),  # private, but named
        ("rtsp://192.168.1.20/*", "rtsp://192.168.1.20/1", True),
        ("rtsp://127.0.0.1:8554/*", "rtsp://127.0.0.1:8554/1", True),
        ("rtsp://localhost:8554/*", "rtsp://localhost:8554/1", True),
        ("synthetic:*", "synthetic:?frames=3", True),
        ("rtsps://CAM1.example.org/*", "RTSPS://Cam1.Example.Org.:322", True),
        ("rtsp://cam1.example.org/*", "rtsp://cam1.example.org:/x", True),
        ("rtsp://cam1.example.org:554/*", "rtsp://cam1.example.org/x?a=1#b", True),
        ("rtsp://bücher.example.org/*", "rtsp://BÜCHER.example.org/x", True),
        ("rtsp://xn--bcher-kva.example.org/*", "rtsp://bücher.example.org/x", True),
        ("rtsp://[::1]:8554/*", "rtsp://[0:0:0::0:1]:8554/x", True),
        ("rtsp://[2001:db8::1]/*", "rtsp://[2001:DB8::0001]/x", True),
        ("udp://239.0.0.1:5000", "udp://239.0.0.1:5000", True),
        ("udp://239.0.0.1:5000?fifo_size=9", "udp://239.0.0.1:5000?fifo_size=9", True),
        # options that FFmpeg reads from the query: gigabytes of buffer
        ("udp://239.0.0.1:5000/*", "udp://239.0.0.1:5000/?fifo_size=100000000", False),
        ("udp://239.0.0.1:5000*", "udp://239.0.0.1:5000?fifo_size=100000000", False),
        # hosts in other letters and spellings
        ("rtsp://cam1.example.org/*", "rtsp://cam1。evil.test/x", False),
        ("rtsp://cam1.example.org/*", "rtsp://cam1.example.org／x", False),
        ("rtsp://cam1.example.org/*", "rtsp://cam1.example.org\u2100x", False),
        ("rtsp://cam1.example.org/*", "rtsp://сam1.example.org/x", False),  # a Cyrillic letter
        ("rtsp://[::1]:8554/*", "rtsp://[::1%eth0]:8554/x", False),
        ("rtsp://[::1]:8554/*", "rtsp://[::ffff:127.0.0.1]:8554/x", False),
        ("rtsp://cam1.example.org/*", "rtsp://cam1.example.org:0/x", False),
        ("rtsp://cam1.example.org/*", "rtsp://cam1.example.org:00554554/x", False),
        ("rtsp://cam1.example.org/*", "rtsp://@cam1.example.org/x", False),
        ("rtsp://cam1.example.org/*", "rtsp://cam1.example.org/x@y", False),
        ("rtsp://cam1.example.org/*", " rtsp://cam1.example.org/x", False),
        ("rtsp://cam1.example.org/ok/*", "rtsp://cam1.example.org/ok/..;/x", False),
        ("rtsp://cam1.example.org/ok/*", "rtsp://cam1.example.org/ok/..;a=b/x", False),
        ("rtsp://cam1.example.org/ok/*", "rtsp://cam1.example.org/ok/%252e%252e/x", False),
        ("rtsp://cam1.example.org/ok/*", "rtsp://cam1.example.org/ok/..%5cx", False),
        ("rtsp://cam1.example.org/ok/*", "rtsp://cam1.example.org/ok/..%255cx", False),
        # another scheme, host, port or path
        ("rtsp://cam1.example.org/*", "http://cam1.example.org/x", False),
        ("rtsp://cam1.example.org/*", "rtsp://cam2.example.org/x", False),
        ("rtsp://cam1.example.org/*", "rtsp://cam1.example.org:8554/x", False),
        ("rtsp://cam1.example.org/live/*", "rtsp://cam1.example.org/admin/x", False),
        ("rtsp://*.example.org/*", "rtsp://evil.test/.example.org/x", False),
        ("rtsp://*.example.org/*", "rtsp://evil.test?.example.org/x", False),
        ("rtsp://*.example.org/*", "rtsp://evil.test#.example.org/x", False),
        # tricks with what stands before the host, and with the path
        ("rtsp://cam1.example.org/*", "rtsp://cam1.example.org@evil.test/x", False),
        ("rtsp://cam1.example.org/*", "rtsp://cam1.example.org\\@evil.test/x", False),
        ("rtsp://cam1.example.org/*", "rtsp://user:word@cam1.example.org/x", False),
        ("rtsp://cam1.example.org/live/*", "rtsp://cam1.example.org/live/../admin", False),
        ("rtsp://cam1.example.org/live/*", "rtsp://cam1.example.org/live/%2e%2e/admin", False),
        ("rtsp://cam1.example.org/live/*", "rtsp://cam1.example.org/live/..%2fadmin", False),
        ("rtsp://cam1.example.org/*", "rtsp://cam1.example.org/x\r\nHost: evil", False),
        ("rtsp://cam1.example.org/live/*", "rtsp://cam1.example.org/live/a%20b;v=1/x..y/.hidden/a%2Fb", True),
        ("rtsp://cam1.example.org/live/*", "rtsp://cam1.example.org/live/x?next=/../y", True),
        ("rtsp://cam1.example.org/*", "rtsp://cam1.example.org/x y", False),
        ("rtsp://cam1.example.org/*", "rtsp://cam1%2eexample.org/x", False),
        # schemes that FFmpeg knows and that are not for clients
        ("http://*/*", "file:///etc/passwd", False),
        ("http://*/*", "concat:http://cam1.example.org/|/etc/hosts", False),
        ("synthetic:?frames=3*", "synthetic:?size=16000x16000", False),
        # into the operator's network
        ("rtsp://*.example.org/*", "rtsp://inside.example.org/x", False),
        ("rtsp://*.example.org/*", "rtsp://mixed.example.org/x", False),
        ("rtsp://*.example.org/*", "rtsp://mapped.example.org/x", False),
        ("rtsp://*.example.org/*", "rtsp://metadata.example.org/x", False),
        ("rtsp://metadata.example.org/*", "rtsp://metadata.example.org/x", False),
        ("rtsp://rebound.local/*", "rtsp://rebound.local/x", False),
        ("rtsp://*/*", "rtsp://127.0.0.1/x", False),
        ("rtsp://*/*", "rtsp://192.168.1.20/x", False),
        ("rtsp://*/*", "rtsp://[::1]/x", False),
        ("rtsp://*/*", "rtsp://[::ffff:10.0.0.1]/x", False),
        ("rtsp://*/*", "rtsp://localhost/x", False),
    ],
)
def test_patterns(pattern: str, uri: str, fits: bool) -> None:
    if fits:
        assert check_source(uri, settings(pattern)).uri == ONE_SPELLING.get(uri, uri)
    else:
        with pytest.raises(Forbidden):
            check_source(uri, settings(pattern))


def test_a_name_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What connects is given the addresses that were looked at."""
    answers = iter([["93.184.216.35", "2606:2800:220:1::35"], ["127.0.0.1"]])

    def look_up(host: str, port: int, **kind: object) -> list:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in next(answers)]

    monkeypatch.setattr(allow.socket, "getaddrinfo", look_up)
    found = check_source("rtsp://cam2.example.org/x", settings("rtsp://*.example.org/*"))
    assert found.addresses == ("93.184.216.35", "2606:2800:220:1::35")
    assert found.confined
    with pytest.raises(Forbidden):
        check_source("rtsp://cam2.example.org/x", settings("rtsp://*.example.org/*"))


@pytest.mark.parametrize(
    "address", ["64:ff9b::a00:1", "64:ff9b:1::a00:1", "2002:a00:1::1", "::a00:1", "::ffff:a00:1", "fd00::1", "fec0::1",
                "2001:0:a00:1::1", "2001:0:4136:e378:8000:63bf:f5ff:fffe"]
)  # fmt: skip
def test_addresses_behind_which_another_lies(address: str) -> None:
    """A gateway may lead them to 10.0.0.1, where no client may go."""
    ADDRESSES["gateway.example.org"] = ["93.184.216.34", address]
    try:
        for uri in ("rtsp://gateway.example.org/x", f"rtsp://[{address}]/x"):
            with pytest.raises(Forbidden):
                check_source(uri, settings("rtsp://*/*"))
    finally:
        del ADDRESSES["gateway.example.org"]


@pytest.mark.parametrize("number", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0"])
def test_addresses_in_other_spellings(number: str) -> None:
    """What the C library reads as 127.0.0.1 or 0.0.0.0 and Python's ``ipaddress`` does not."""
    ADDRESSES[number] = ["0.0.0.0" if number == "0" else "127.0.0.1"]
    try:
        with pytest.raises(Forbidden):
            check_source(f"rtsp://{number}/x", settings("rtsp://*/*"))
    finally:
        del ADDRESSES[number]


@pytest.mark.parametrize(
    "pattern", ["*", "cam1.example.org", "file:///videos/*", "rtsp://user@cam/*", "[", "rtsp://[*"]
)
def test_patterns_that_could_never_fit_are_told(pattern: str) -> None:
    with pytest.raises(UsageError, match="allow"):
        check_patterns(settings("rtsp://cam1.example.org/*", pattern).allow)
    check_patterns(("rtsp://cam1.example.org/*", "synthetic:*", "udp://239.0.0.1:5000"))


def test_a_host_that_is_not_known() -> None:
    with pytest.raises(NotFound, match="unknown host"):
        check_source("rtsp://nobody.example.org/x", settings("rtsp://*.example.org/*"))


def test_messages_hold_no_credentials() -> None:
    with pytest.raises(Forbidden) as caught:
        check_source("rtsp://user:hunter2@cam1.example.org/x", settings("rtsp://cam1.example.org/*"))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_garbage_is_refused_and_breaks_nothing(seed: int) -> None:
    random_ = random.Random(seed)
    pieces = ["rtsp://", "http://", "//", *"@:[]%*?#/1ü", "\0", "\n", "cam", "..", "\ud800"]
    chosen = settings("rtsp://cam1.example.org/*", "http://*.example.org:8080/*", "synthetic:?frames=1")
    for _ in range(2000):
        uri = "".join(random_.choices(pieces, k=random_.randint(0, 9)))
        with pytest.raises(Problem) as caught:
            check_source(uri, chosen)
        assert str(caught.value).isprintable()


class _Redirecting(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = {"/moved": 302, "/gone": 410}.get(self.path, 200)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://169.254.169.254/latest/meta-data")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Redirecting)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_redirects_are_refused(web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # a real connection
    chosen = settings(f"{web}/*")
    assert check_source(f"{web}/video.mp4", chosen).uri == f"{web}/video.mp4"
    with pytest.raises(Forbidden, match="redirects"):
        check_source(f"{web}/moved", chosen)
    with pytest.raises(NotFound, match="410"):
        check_source(f"{web}/gone", chosen)


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(NotFound, match="no answer"):
        check_source(f"http://127.0.0.1:{port}/a", settings(f"http://127.0.0.1:{port}/*"))


DOTS = [
    "..", "%2e%2e", ".%2E", "%252e%252e", "%25252e.", "..;", "..;a=b", "..%3b", "%2e%2e%3Bx", "..%20", "%20..", "...",
    "%EF%BC%8E%EF%BC%8E", "%E2%80%A5", "%c0%ae%c0%ae", "%e0%80%ae.", "..%00", "..%09", "..%0d%0a", ".", ".;", "%2e",
    "..%E2%80%8B", "..%2525252525", ".%00.", "..%c2%a0",
]  # fmt: skip
SLASHES = ["/", "//", "%2f", "%5c", "%255c", "%252F", "%EF%BC%8F", "%EF%BC%BC", "/a;/", ";/", "/;/"]


@pytest.mark.parametrize("dots", DOTS)
@pytest.mark.parametrize("slash", SLASHES)
def test_no_spelling_leads_out_of_the_path_that_is_allowed(dots: str, slash: str) -> None:
    chosen = settings("rtsp://cam1.example.org/ok/*", "http://cam1.example.org/ok/*")
    for scheme in ("rtsp", "http"):
        for before, after in (("/", "/"), (slash, slash), ("/", slash), (slash, "/")):
            with pytest.raises(Forbidden):
                check_source(f"{scheme}://cam1.example.org/ok{before}{dots}{after}x", chosen)
