"""The server under a path of a real reverse proxy, and what it sends to browsers there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from websockets.sync.client import connect

from perception import UsageError
from perception.server.app import create_app
from perception.server.settings import make_settings
from tests.models import solid
from tests.server.conftest import wait_until_ready
from tests.server.proxies import caddy, nginx
from tests.server.served import served
from tests.server.test_webcam import ask, frame, jpeg

USER, PASSWORD, TOKEN = "me", "a long password", "a-token-for-programs"
BEARER = {"authorization": f"Bearer {TOKEN}"}
ROOT = "/perception"


@contextmanager
def itself(folder: Path, server: str) -> Iterator[str]:
    """No proxy: the server knows its path by itself."""
    yield server


@contextmanager
def stripping(folder: Path, server: str) -> Iterator[str]:
    """An nginx that takes the path off."""
    with nginx(folder, server, (f"http://{server};", f"http://{server}/;")) as address:
        yield address


@pytest.fixture(scope="module", params=[nginx, stripping, caddy, itself], ids=lambda proxy: proxy.__name__)
def outside(request: Any, make: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a server with credentials, by its public address; it sends none of them by itself."""
    settings = make(root_path=f"{ROOT}/", user=USER, password=PASSWORD, token=TOKEN, proxies=["127.0.0.1"])
    folder = tmp_path_factory.mktemp("proxy")
    with (
        served(create_app(settings)) as server,
        request.param(folder, server) as address,
        httpx.Client(base_url=f"http://{address}{ROOT}/", timeout=60) as client,
    ):
        wait_until_ready(client, path="readyz", headers=BEARER)
        yield client


def test_the_page_finds_all_its_files(outside: httpx.Client) -> None:
    page = outside.get("", headers=BEARER)
    assert page.status_code == 200
    files = re.findall(r'(?:src|href)="([^"#]+)"', page.text)
    (config,) = re.findall(r"window\.gradio_config = (\{.*?\});</script>", page.text, re.DOTALL)
    root = json.loads(config)["root"]
    files += [f"{root}/theme.css", *re.findall(r"static/perception/[a-z]+\.js", page.text)]
    assert len(files) >= 6
    for file in files:
        address = urljoin(str(page.url), file)
        assert address.startswith(str(outside.base_url)), file
        assert outside.get(address, headers=BEARER).status_code == 200, file


def test_without_its_last_slash_the_page_is_the_same(outside: httpx.Client) -> None:
    address = str(outside.base_url).rstrip("/")
    answer = httpx.get(address, headers=BEARER, params={"a": "1"}, timeout=60)
    assert answer.status_code in (301, 302, 308)
    assert urljoin(address, answer.headers["location"]).partition("?")[0] == f"{address}/"


def test_the_api_and_its_page(outside: httpx.Client) -> None:
    assert outside.get("v1/models").status_code == 401
    assert outside.get("v1/models", headers=BEARER).status_code == 200
    found = outside.post("v1/predict", content=jpeg(solid("red")), headers={**BEARER, "content-type": "image/jpeg"})
    assert found.json()["shares"]["red"] == 1
    docs = outside.get("docs", headers=BEARER)
    files = re.findall(r'(?:src|href)="([^"]+)"', docs.text)
    assert len(files) == 3
    for file in files:
        assert outside.get(urljoin(str(docs.url), file), headers=BEARER).status_code == 200
    assert outside.get("openapi.json", headers=BEARER).json()["servers"] == [{"url": ROOT}]
    assert "error" in outside.get("v1/nothing", headers=BEARER).json()


def test_a_job_says_where_its_results_are(outside: httpx.Client, clip: bytes) -> None:
    sent = outside.post("v1/jobs", content=clip, headers={**BEARER, "content-type": "video/mp4"})
    assert sent.status_code == 202, sent.text
    where = urljoin(str(sent.url), sent.headers["location"])
    assert where.startswith(f"{outside.base_url}v1/jobs/")
    job = sent.json()
    while job["state"] not in ("done", "failed"):
        job = outside.get(where, headers=BEARER).json()
    assert set(job["results"]) == {"video", "jsonl"}
    for path in job["results"].values():
        assert outside.get(urljoin(where, path), headers=BEARER).status_code == 200


def test_sockets_and_streams(outside: httpx.Client) -> None:
    socket = str(outside.base_url).replace("http", "ws", 1)
    with connect(f"{socket}v1/webcam?token={TOKEN}", open_timeout=60) as client:
        assert ask(client, frame(1, solid("red"))).number == 1
    stream = outside.post("v1/streams", json={"source": "scene"}, headers=BEARER).json()["id"]
    with connect(f"{socket}v1/streams/{stream}/video?token={TOKEN}", open_timeout=60) as video:
        received = [video.recv(timeout=60) for _ in range(4)]
        assert any(isinstance(part, bytes) and b"ftyp" in part[:64] for part in received)
    with outside.stream("GET", f"v1/streams/{stream}/mjpeg", headers=BEARER) as pictures:
        seen = b""
        for part in pictures.iter_bytes():  # a proxy that buffers would keep them to itself
            seen += part
            if seen.count(b"\xff\xd8\xff") >= 3:
                break
    outside.delete(f"v1/streams/{stream}", headers=BEARER)


def test_the_login_stays_under_the_path(outside: httpx.Client) -> None:
    browser = {"accept": "text/html", "sec-fetch-dest": "document", "sec-fetch-mode": "navigate"}
    with httpx.Client(base_url=outside.base_url, headers=browser, timeout=60) as client:
        form = client.get("docs?x=1")
        assert form.status_code == 401
        action = re.findall(r'action="([^"]+)"', form.text)
        (target,) = set(re.findall(r'name="next" value="([^"]+)"', form.text))
        assert action == [f"{ROOT}/login"] * 2
        wrong = client.post(urljoin(str(form.url), action[0]), data={"next": target, "token": "wrong"})
        assert wrong.status_code == 401 and f'action="{ROOT}/login"' in wrong.text
        sent = client.post(urljoin(str(form.url), action[0]), data={"next": target, "token": TOKEN})
        assert sent.status_code == 303 and urljoin(str(sent.url), sent.headers["location"]) == f"{client.base_url}docs"
        cookie = sent.headers["set-cookie"]
        assert f"Path={ROOT};" in cookie + ";" and cookie.startswith("perception_session-perception=")
        assert client.get("docs").status_code == 200  # the client has kept it for this path
        out = client.get("logout")
        assert out.status_code == 303 and out.headers["location"] == f"{ROOT}/"
        assert client.get("v1/models").status_code == 401
        link = client.get("", params={"token": TOKEN})
        assert link.status_code == 303 and link.headers["location"] == f"{ROOT}/"
        assert client.get("v1/models").status_code == 200


def test_the_path_stays_off_where_the_server_is_asked_directly(make: Any) -> None:
    with served(create_app(make(root_path=ROOT))) as address, httpx.Client(base_url=f"http://{address}") as client:
        for path in ("/healthz", f"{ROOT}/healthz", "/%70erception/healthz"):
            assert client.get(path).status_code == 200, path
        for path in (f"{ROOT}{ROOT}/healthz", f"{ROOT}x/healthz", "/other/healthz"):
            assert client.get(path).status_code == 404, path


@pytest.mark.parametrize(("given", "path"), [("", ""), ("/", ""), ("a", "/a"), ("/a/b.c/", "/a/b.c"), ("/v1x", "/v1x")])
def test_paths(given: str, path: str) -> None:
    assert make_settings({"root_path": given}).root_path == path


@pytest.mark.parametrize(
    "wrong", ["/a b", "/a/../b", "/a//b", "/v1", "/static/x", "/docs", "https://a.b/c", "/%41", "/ä"]
)
def test_paths_that_are_none(wrong: str) -> None:
    with pytest.raises(UsageError, match="root_path"):
        make_settings({"root_path": wrong})
