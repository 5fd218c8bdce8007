"""Webhooks against a real server: signature, refusals, time-outs, wrong addresses; and no secret in any message."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from perception.errors import UsageError
from perception.events.event import Event
from perception.events.target import DeliveryError
from perception.events.webhook import MOST_RETRY_AFTER_S, Webhook
from tests.events.receivers import HttpReceiver, free_port, letter

SECRET = f"whsec_{base64.b64encode(b'a key of twenty-four byte').decode()}"


def deliver(hook: Webhook, number: int = 1) -> list[str]:
    accepted: list[str] = []
    hook.deliver([letter(i) for i in range(number)], accepted.append)
    return accepted


def failure(hook: Webhook) -> DeliveryError:
    with pytest.raises(DeliveryError) as error:
        deliver(hook)
    assert "\n" not in str(error.value)
    return error.value


def test_an_event_is_posted_and_signed() -> None:
    one = letter(7, source="Hof – 'Süd'")
    with HttpReceiver() as server:
        hook = Webhook(f"{server.url}?key=1", secret=SECRET, token="a-token")
        accepted: list[str] = []
        hook.deliver([one], accepted.append)
    path, headers, body = server.requests[0]
    assert accepted == [one.id] == [headers["webhook-id"]] and path == "/hook?key=1"
    assert Event.from_json(body) == Event.from_json(one.body)
    assert headers["content-type"] == "application/json" and headers["authorization"] == "Bearer a-token"
    assert Verifier(SECRET).verify(body.decode(), headers) == json.loads(one.body)  # of the specification's authors
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(body.decode().replace("7", "8"), headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(f"whsec_{base64.b64encode(b'another').decode()}").verify(body.decode(), headers)


def test_a_secret_may_be_any_text_and_none() -> None:
    with HttpReceiver() as server:
        deliver(Webhook(server.url, secret="plain text"))
        deliver(Webhook(server.url))
    headers, body = server.requests[0][1:]
    assert Verifier(base64.b64encode(b"plain text").decode()).verify(body.decode(), headers)
    assert "webhook-signature" not in server.requests[1][1]


@pytest.mark.parametrize("status", [300, 301, 307, 401, 403, 404, 408, 409, 410, 425, 429, 500, 502, 503, 504])
def test_most_refusals_are_for_now(status: int) -> None:
    with HttpReceiver(lambda number: (status, {"Location": "http://127.0.0.1:1/", "Retry-After": "77"})) as server:
        error = failure(Webhook(server.url))
    assert error.refused is None and str(status) in str(error) and error.retry_after == 77
    assert len(server.requests) == 1  # no redirect is followed


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_some_are_for_good(status: int) -> None:
    with HttpReceiver(lambda number: (status, {})) as server:
        error = failure(Webhook(server.url))
    assert error.refused == server.requests[0][1]["webhook-id"]


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("5", 5, 5),
        ("-5", 0, 0),
        ("nan", 0, 0),
        ("soon", 0, 0),
        ("1e99", MOST_RETRY_AFTER_S, MOST_RETRY_AFTER_S),
        ("Wed, 21 Oct 2099 07:28:00 GMT", MOST_RETRY_AFTER_S, MOST_RETRY_AFTER_S),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
    ],
)
def test_retry_after(header: str, least: float, most: float) -> None:
    with HttpReceiver(lambda number: (503, {"Retry-After": header})) as server:
        assert least <= failure(Webhook(server.url)).retry_after <= most


def test_what_was_accepted_before_a_failure_is_accepted() -> None:
    with HttpReceiver(lambda number: (200 if number < 2 else 500, {})) as server:
        accepted: list[str] = []
        letters = [letter(i) for i in range(4)]
        with pytest.raises(DeliveryError):
            Webhook(server.url).deliver(letters, accepted.append)
    assert accepted == [one.id for one in letters[:2]] and len(server.requests) == 3


@pytest.mark.parametrize("reply", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 2", b"HTTP/1.1 999999 OK\r\n", b"\0" * 99])
def test_an_answer_that_is_none(reply: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            client.recv(65536)
            client.sendall(reply)
            client.shutdown(socket.SHUT_RDWR)
            client.close()

        threading.Thread(target=serve, daemon=True).start()
        assert failure(Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/")).refused is None


@pytest.mark.parametrize("drips", [False, True])
def test_a_server_that_does_not_answer(drips: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def serve() -> None:
            client, _ = server.accept()
            while not ended.wait(0.05):
                try:
                    client.sendall(b"H" if drips else b"")
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        failure(Webhook(f"http://127.0.0.1:{server.getsockname()[1]}/", timeout=0.3))
        ended.set()


def test_nobody_there() -> None:
    assert "refused" in str(failure(Webhook(f"http://127.0.0.1:{free_port()}/")))
    assert "no host of that name" in str(failure(Webhook("http://host.invalid/")))


def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = tmp_path / "own.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", pem, "-out", tmp_path / "cert.pem",
         "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", pem)
    with HttpReceiver() as server:
        server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
        url = server.url.replace("http:", "https:")
        assert "its certificate is not accepted" in str(failure(Webhook(url)))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert len(deliver(Webhook(url))) == 1
    with HttpReceiver() as plain:
        assert "no TLS connection" in str(failure(Webhook(plain.url.replace("http:", "https:"))))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://host/",
        "http://",
        "file:///etc/passwd",
        "http://h:99999/",
        "http://h:x/",
        "http://h/a b",
        "http://h/\r\nX: y",
        "//h/",
    ],
)
def test_wrong_addresses(url: str) -> None:
    with pytest.raises(UsageError, match="address of a webhook"):
        Webhook(url)


def test_no_secret_is_told() -> None:
    hook = Webhook(f"http://127.0.0.1:{free_port()}/t0ps3cret?k=t0ps3cret", secret="t0ps3cret", token="t0ps3cret")
    error = failure(hook)
    assert (
        "t0ps3cret"
        not in f"{hook.name} {error} {error!r} {error.__cause__} {error.__context__ and error.__suppress_context__}"
    )
    for url, secret in (("http://me:t0ps3cret@h/", None), ("http://h/t0ps3cret", "whsec_t0ps3cret!!")):
        with pytest.raises(UsageError) as told:
            Webhook(url, secret=secret)
        assert "t0ps3cret" not in str(told.value)


def test_attempts_have_time_stamps_of_their_own() -> None:
    with HttpReceiver() as server:
        deliver(Webhook(server.url, secret=SECRET))
    assert abs(int(server.requests[0][1]["webhook-timestamp"]) - time.time()) < 600
