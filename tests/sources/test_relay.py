"""RTSP addresses that a client chose: opened where they lead nowhere else, whatever the server says."""

import base64
import random
import socket
import threading

import pytest

from perception.errors import PerceptionError, SourceError, UsageError
from perception.sources import Bounds, open_source
from tests.media import read_stamp, tcp_server
from tests.rtsp import rtsp_server
from tests.server.waiting import wait_for


def test_what_is_allowed_plays(tmp_path):
    bounds = Bounds()
    with rtsp_server() as server:
        url = f"rtsp://127.0.0.1:{server.port}/live?channel=1"
        with open_source(url, timeout=5, confined=True, addresses=["127.0.0.1"], bounds=bounds) as source:
            numbers = [read_stamp(next(source).image) for _ in range(5)]
        asked = [head.splitlines()[0] for method, head in server.requests if method in ("OPTIONS", "DESCRIBE")]
    assert len(set(numbers)) == 5
    # The server is asked for itself, as if there were nothing between.
    assert asked[0] == f"OPTIONS {url} RTSP/1.0"
    assert asked[1] == f"DESCRIBE {url} RTSP/1.0"
    assert source.info.uri == f"rtsp://127.0.0.1:{server.port}/..."
    wait_for(lambda: not bounds.busy)


def test_the_name_is_not_looked_up_again():
    with rtsp_server() as server:
        url = f"rtsp://camera.invalid:{server.port}/live"
        with open_source(url, timeout=5, confined=True, addresses=["127.0.0.1"]) as source:
            assert next(source).width == 80
    assert f"DESCRIBE {url} RTSP/1.0" in server.requests[1][1]


FORMS = {
    "plain": "RTSP/1.0 {status} Moved\r\nCSeq: CSEQ\r\nLocation: {to}\r\n\r\n",
    "bare line feeds": "RTSP/1.0 {status} Moved\nCSeq: CSEQ\nLocation: {to}\n\n",
    "no length of its own": "RTSP/1.0 {status} Moved\r\nCSeq: CSEQ\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n",
    "behind empty lines": "\r\n\r\nRTSP/1.0 {status} Moved\r\nCSeq: CSEQ\r\nLocation: {to}\r\n\r\n",
    "behind a packet": "$\1\0\4abcdRTSP/1.0 {status} Moved\r\nCSeq: CSEQ\r\nLocation: {to}\r\n\r\n",
    "hidden in a body": "RTSP/1.0 200 OK\r\nX: 1\r\nContent-Length: 9\r\nContent-Length: 0\r\n\r\n"
    "RTSP/1.0 {status} Moved\r\nCSeq: CSEQ\r\nLocation: {to}\r\n\r\n",
    "behind an odd length": "RTSP/1.0 200 OK\r\nCSeq: 99\r\nContent-Length: -5\r\n\r\n"
    "RTSP/1.0 {status} Moved\r\nCSeq: CSEQ\r\nLocation: {to}\r\n\r\n",
    "behind a carriage return": "RTSP/1.0 200 OK\r\nX: a\rRTSP/1.0 {status} Moved\r\nCSeq: CSEQ\r\n"
    "Location: {to}\r\n\r\n",
    "folded": "RTSP/1.0 200\r\n {status} Moved\r\nCSeq: CSEQ\r\nLocation: {to}\r\n\r\n"
    "RTSP/1.0 {status} Moved\r\nCSeq: CSEQ\r\nLocation: {to}\r\n\r\n",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"])
def test_a_redirect_is_not_followed(form, method):
    """To a port that the server chooses: nobody comes there, whichever answer redirects and however it is written."""
    visits = []

    def visited(connection, ended):
        visits.append(connection.recv(4096))

    with tcp_server(visited) as elsewhere, rtsp_server() as server:
        to = f"rtsp://127.0.0.1:{elsewhere}/secret"

        def answer(asked, head):
            return FORMS[form].format(status=302, to=to).encode("latin-1") if asked == method else None

        server.answer = answer
        with (
            pytest.raises(PerceptionError),
            open_source(
                f"rtsp://127.0.0.1:{server.port}/live", timeout=1, confined=True, addresses=["127.0.0.1"]
            ) as source,
        ):
            while not visits:  # an answer that means nothing may be ignored; then it goes on or ends
                next(source)
                raise SourceError("it plays, and went nowhere")
        assert method in server.methods()
    assert not visits


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308, 399])
def test_a_redirect_is_told(status):
    def answer(method, head):
        to = "rtsp://127.0.0.1:9/x"
        return (
            f"RTSP/1.0 {status} Go\r\nCSeq: CSEQ\r\nLocation: {to}\r\n\r\n".encode() if method == "DESCRIBE" else None
        )

    with rtsp_server(answer) as server, pytest.raises(SourceError, match="redirects to another one"):
        open_source(f"rtsp://127.0.0.1:{server.port}/live", timeout=5, confined=True)


def test_a_redirect_is_followed_for_the_operator():
    """Which also shows that the redirect of these tests is one that FFmpeg understands."""
    with rtsp_server() as good, rtsp_server() as server:

        def answer(method, head):
            location = f"rtsp://127.0.0.1:{good.port}/live"
            text = f"RTSP/1.0 302 Moved\r\nCSeq: CSEQ\r\nLocation: {location}\r\n\r\n"
            return text.encode() if method == "DESCRIBE" else None

        server.answer = answer
        with open_source(f"rtsp://127.0.0.1:{server.port}/live", timeout=5) as source:
            assert next(source).width == 80


@pytest.mark.parametrize("query", ["?udp", "?multicast", "?udp&tcp", "?x=1&udp"])
def test_the_clients_url_cannot_choose_the_transport(query):
    with rtsp_server() as server:
        try:
            with open_source(f"rtsp://127.0.0.1:{server.port}/live{query}", timeout=1, confined=True) as source:
                next(source)
        except SourceError:
            pass
        setups = [head for method, head in server.requests if method == "SETUP"]
    assert all("/tcp" in line.lower() for head in setups for line in head.splitlines() if line.startswith("Transport"))


def test_garbage_ends_it_and_nothing_else():
    for seed in range(10):
        random_ = random.Random(seed)
        pieces = [b"RTSP/1.0 200 OK\r\n", b"\r\n", b"$\0\0\5", b"$", b"CSeq: CSEQ\r\n", b": \r\n", b"\0", b"a" * 5000,
                  b"Content-Length: 70000000\r\n", b"Content-Length: x\r\n", b"RTSP/1.0 302 \r\n",
                  bytes(range(256))]  # fmt: skip
        garbage = b"".join(random_.choices(pieces, k=random_.randint(1, 12)))

        def answer(method, head, garbage=garbage):
            return garbage

        bounds = Bounds()
        with rtsp_server(answer) as server, pytest.raises(SourceError):
            open_source(f"rtsp://127.0.0.1:{server.port}/live", timeout=0.5, confined=True, bounds=bounds)
        wait_for(lambda bounds=bounds: not bounds.busy)


def test_closing_while_it_opens_ends_all_threads():
    asked = threading.Event()

    def silent(connection, ended):
        connection.recv(4096)
        asked.set()
        ended.wait()

    bounds = Bounds()
    errors = []

    def open_it(port):
        try:
            open_source(f"rtsp://127.0.0.1:{port}/live", timeout=60, confined=True, bounds=bounds)
        except SourceError as error:
            errors.append(str(error))

    with tcp_server(silent) as port:
        opening = threading.Thread(target=open_it, args=(port,))
        opening.start()
        assert asked.wait(30)
        bounds.cancel()
        opening.join(30)
        assert not opening.is_alive()
        assert errors == [f"rtsp://127.0.0.1:{port}/...: closed while it was being opened"]
        wait_for(lambda: not bounds.busy)  # long before the timeout: FFmpeg's thread too


def test_nobody_listens_and_credentials_are_the_operators():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(SourceError, match="refused"):
        open_source(f"rtsp://127.0.0.1:{port}/x", timeout=5, confined=True)
    with pytest.raises(UsageError) as caught:
        open_source(f"rtsp://bob:s3cret@127.0.0.1:{port}/x", confined=True)
    assert "s3cret" not in str(caught.value)


def test_passwords_as_the_message_says_to_write_them():
    """What is written %23 in the URL reaches the camera as #."""
    seen = []

    def answer(method, head):
        for line in head.splitlines():
            if line.startswith("Authorization: Basic "):
                seen.append(base64.b64decode(line.split()[2]).decode())
                return None
        if method == "OPTIONS":
            return None
        return b'RTSP/1.0 401 Unauthorized\r\nCSeq: CSEQ\r\nWWW-Authenticate: Basic realm="cam"\r\n\r\n'

    with (
        rtsp_server(answer) as server,
        open_source(f"rtsp://bob:p%23a%3Fs%2Fs%40%25%20@127.0.0.1:{server.port}/live", timeout=5) as source,
    ):
        assert next(source).width == 80
    assert set(seen) == {"bob:p#a?s/s@% "}
