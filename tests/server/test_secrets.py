"""No part of a camera's password or key is in anything that is shown, logged, listed or named, however it is put."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from perception.annotate import stem
from perception.errors import PerceptionError, SourceError
from perception.server.app import create_app
from perception.server.edge.allowlist import check_patterns, check_source
from perception.server.settings import make_settings
from perception.sources import open_source
from perception.sources.address import Address
from perception.sources.uri import kind_of, redact, redact_text
from tests.rtsp import rtsp_server
from tests.server.conftest import wait_until_ready
from tests.server.served import served
from tests.server.waiting import wait_for

WORDS = ["QZX", "XJQ", "ZQJ", "JXZ"]
"""Of these secrets are made: they are in no message, so that whatever shows of a secret is found."""

SPECIAL = list("#?/@:%&=;,+!$'()*[]\\ ~|^{}<>\"ß\t")
SECRETS = (
    st.lists(st.sampled_from(WORDS * 4 + SPECIAL), min_size=1, max_size=8)
    .map("".join)
    .filter(lambda text: any(word in text for word in WORDS))
)
PLACES = [
    "rtsp://bob:{}@camera.test/live",
    "rtsp://{}@camera.test:8554/live",
    "rtsp://{}:{}@camera.test/live",
    "rtsp://camera.test/{}",
    "rtsp://camera.test/user=admin_password={}_channel=1.sdp",
    "rtsp://camera.test/live/{}/main.sdp",
    "http://camera.test:8080/v.mp4?{}",
    "http://camera.test/v.mp4?token={}&x=1",
    "https://camera.test?{}",
    "rtmp://camera.test/app#{}",
    "RTSP://bob:{}@[2001:db8::1]:554/x",
    "udp://camera.test:5000?{}",
    "bob:{}@camera.test/live",
    "rtsp:/bob:{}@camera.test/live",
    "rtsp:bob:{}@camera.test",
    "ftp://bob:{}@camera.test/live",
    "rtsp://bob:{}@camera.test:99999/live",
    "rtsp://bob:{}@/live",
    "http://[bob:{}@camera.test/",
]


def leak(secret: str, *texts: object) -> list[str]:
    """What of a secret is in one of these texts."""
    shown = " ".join(map(str, texts)).upper()
    return [word for word in WORDS if word in secret and word in shown]


@pytest.fixture(scope="module")
def records() -> Iterator[list[str]]:
    """All that is logged, by whatever library."""
    lines: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    keeper = Keeper(logging.DEBUG)
    logging.getLogger().addHandler(keeper)
    logging.getLogger("perception").setLevel(logging.DEBUG)
    yield lines
    logging.getLogger().removeHandler(keeper)
    logging.getLogger("perception").setLevel(logging.NOTSET)


@given(SECRETS, st.sampled_from(PLACES))
@settings(max_examples=600, deadline=None)
@example("QZ#XJ", PLACES[0])
@example("QZ/XJ", PLACES[0])
@example("QZ?XJ@", PLACES[0])
@example("@@QZX/", PLACES[2])
@example("QZX://", PLACES[12])
def test_shown_forms(secret: str, place: str) -> None:
    url = place.replace("{}", secret)
    assert not leak(secret, redact(url)), redact(url)
    assert not leak(secret, stem(url)), stem(url)
    for text in (f"Error opening {url}: no such thing", f"'{url}'"):
        assert not leak(secret, redact_text(text, url)), redact_text(text, url)
    for what in (kind_of, Address.read):
        with contextlib.suppress(SourceError):
            what(url)
            continue
        with pytest.raises(SourceError) as caught:
            what(url)
        assert not leak(secret, caught.value, caught.value.where), caught.value


@given(SECRETS, st.sampled_from(PLACES))
@settings(max_examples=300, deadline=None)
def test_what_clients_and_operators_are_refused(secret: str, place: str) -> None:
    url = place.replace("{}", secret)
    with pytest.raises(PerceptionError) as caught:
        check_source(url, make_settings({"allow": ["rtsp://elsewhere.test/*"]}))
    assert not leak(secret, caught.value)
    assert str(caught.value).isprintable()
    with pytest.raises(PerceptionError) as caught:
        check_patterns((url, "none"))
    assert not leak(secret, caught.value)


@given(SECRETS)
@settings(max_examples=200, deadline=None)
def test_passwords_can_be_written(secret: str) -> None:
    """As the message says: percent-encoded, whatever is in them; the host is what it is."""
    address = Address.read(f"rtsp://bob:{quote(secret, safe='')}@camera.test:8554/live")
    assert (address.host, address.port, address.tail) == ("camera.test", 8554, "/live")
    assert address.shown == "rtsp://camera.test:8554/..."


@given(st.sampled_from(WORDS), st.sampled_from("#?/"), st.sampled_from(WORDS))
@settings(max_examples=100, deadline=None)
def test_a_pasted_password_is_never_taken_for_a_host(before: str, mark: str, after: str) -> None:
    """Half of it would be looked up by name servers. The message says how to write it."""
    for password in (before + mark + after, mark + after, before + mark, "123" + mark + after):
        with pytest.raises(SourceError, match="write # as %23") as caught:
            open_source(f"rtsp://bob:{password}@camera.test/live")
        assert not leak(password, caught.value)


def everything(client: httpx.Client, id: str) -> str:
    """All that a client can read of a stream."""
    texts = [client.get(f"/v1/streams/{id}").text, client.get("/v1/streams").text, client.get("/metrics").text]
    if client.get(f"/v1/streams/{id}").json()["state"] == "running":
        texts.append(str(client.get(f"/v1/streams/{id}/snapshot").headers))
    return " ".join(texts)


@pytest.fixture(scope="module")
def world(make: Any, records: list[str]) -> Iterator[tuple[httpx.Client, Any, int, int]]:
    """A client, a camera of the operator's, its port, and a port on which nobody listens."""
    with rtsp_server() as camera, socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
        listener.close()
        app = create_app(
            make(
                allow=[
                    f"rtsp://127.0.0.1:{camera.port}/*",
                    f"rtsp://127.0.0.1:{closed}/*",
                    f"http://127.0.0.1:{closed}/*",
                ],
                limits={"streams": 50},
            )
        )
        with served(app) as address, httpx.Client(base_url=f"http://{address}", timeout=60) as client:
            wait_until_ready(client)
            yield client, app.state.service, camera.port, closed


PATH_SECRETS = SECRETS.map(lambda text: quote(text, safe="#?:&=;,+!$'()*[]~")).filter(lambda text: "@" not in text)


PATHS = ["/{}", "/live/{}", "/user=admin_password={}_channel=1.sdp", "?token={}", "/x?{}"]


@given(secret=PATH_SECRETS, place=st.sampled_from(PATHS))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_clients_stream_shows_no_key(secret: str, place: str, world: Any, records: list[str]) -> None:
    client, _, port, closed = world
    records.clear()
    for chosen in (port, closed):
        url = f"rtsp://127.0.0.1:{chosen}{place.replace('{}', secret)}"
        answer = client.post("/v1/streams", json={"source": url})
        assert not leak(secret, answer.text)
        if answer.status_code != 201:
            continue
        status = answer.json()
        assert status["name"].startswith(f"rtsp://127.0.0.1:{chosen}")
        wait_for(lambda id=status["id"]: client.get(f"/v1/streams/{id}").json()["state"] != "connecting")
        assert not leak(secret, everything(client, status["id"]))
        if client.get(f"/v1/streams/{status['id']}").json()["state"] == "running":
            recording = client.post(f"/v1/streams/{status['id']}/recordings").json()
            wait_for(lambda id=recording["id"]: client.get(f"/v1/recordings/{id}").json()["frames"])
            stopped = client.post(f"/v1/recordings/{recording['id']}/stop").json()
            assert stopped["state"] == "finished"
            video = client.get(f"/v1/recordings/{recording['id']}/video")
            assert not leak(secret, recording, stopped, video.headers)
            assert not leak(secret, video.content.decode("latin-1").partition("mdat")[0])  # what it says of itself
            client.delete(f"/v1/recordings/{recording['id']}")
        client.delete(f"/v1/streams/{status['id']}")
    web = client.post("/v1/streams", json={"source": f"http://127.0.0.1:{closed}{place.replace('{}', secret)}"})
    assert not leak(secret, web.text)
    assert not leak(secret, *records)


@given(secret=SECRETS)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_operators_camera_shows_neither_password_nor_key(
    secret: str, make: Any, records: list[str], tmp_path: Path
) -> None:
    """Under the name that the operator gave, whether it plays or not, also where the address cannot be read."""
    records.clear()
    coded = quote(secret, safe="")
    with rtsp_server() as camera:
        sources = {
            "good": f"rtsp://bob:{coded}@127.0.0.1:{camera.port}/live/{coded}?key={coded}",
            "pasted": f"rtsp://bob:{secret}@127.0.0.1:1/live",
            "nobody": f"rtsp://bob:{coded}@127.0.0.1:1/live/{coded}",
            "web": f"http://bob:{coded}@127.0.0.1:1/{coded}.mp4",
        }
        service = create_app(make(sources=sources)).state.service
        with service:
            for name in sources:
                try:
                    stream, _ = service.streams.open(name)
                except PerceptionError as error:
                    assert not leak(secret, error)  # what cannot be read is told at once
                    continue
                wait_for(lambda stream=stream: stream.state != "connecting")
                info = stream.info
                assert not leak(secret, json.dumps(stream.status()), stream.name, info and info.uri)
                if name == "good":
                    wait_for(lambda stream=stream: stream.frames)
                    newest = stream.newest()
                    assert newest is not None
                    assert not leak(secret, newest.frame.source)
            assert not leak(secret, *(thread.name for thread in threading.enumerate()))
    assert not leak(secret, *records)
