"""What an attacker gets out of Gradio: nothing. Its routes are found by walking the version that is installed."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import re
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from perception.server.app import create_app
from perception.server.page.edge import PATHS
from tests.server.served import served
from tests.server.walking import walk

TOKEN = "0123456789abcdef"
OURS = ("/login", "/logout", "/docs", "/openapi.json")
"""This server's own routes, which come before Gradio's of the same names."""

META = {"_type": "gradio.FileData"}
HEADERS = {"with": {"authorization": f"Bearer {TOKEN}"}, "without": {}, "open": {}}


class Site:
    """A server with a planted file, and whoever would tell of it: a web server beside it."""

    def __init__(self, make: Any, folder: Path, how: str) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.planted = folder / "planted.txt"
        self.secret = secrets.token_hex(16)
        self.planted.write_text(self.secret)
        self.fifo = folder / "fifo"
        os.mkfifo(self.fifo)
        self.app: Any = create_app(make(**({} if how == "open" else {"token": TOKEN})))
        self.headers = HEADERS[how]
        self.open = how != "without"

    def forms(self, path: str, url: str) -> Iterator[Any]:
        """A file in every form that Gradio has or had for one."""
        plain = {"path": path, "meta": META}
        yield from (plain, [plain], [[plain]], {"a": {"b": [plain]}}, {"path": path}, path)
        yield {**plain, "orig_name": path, "mime_type": "text/plain", "size": 32, "is_stream": False}
        yield {"path": "x.txt", "url": f"file://{path}", "meta": META}
        yield {"path": f"file://{path}", "meta": META}
        yield {"path": url, "meta": META}
        yield {"path": "x.txt", "url": url, "meta": META}
        yield {"name": path, "data": None, "is_file": True, "orig_name": path}
        yield {"video": plain, "subtitles": plain}
        yield {"text": "", "files": [plain]}
        yield {"background": plain, "layers": [plain], "composite": plain}
        yield {"__type__": "update", "value": plain}

    def found(self) -> list[Path]:
        """Copies of the planted file, and whatever else came into Gradio's cache."""
        return [path for path in self.cache.rglob("*") if path.is_file()]


@pytest.fixture(scope="module", params=["open", "with", "without"])
def attacked(
    request: pytest.FixtureRequest, make: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Site, httpx.Client]]:
    """A server to attack: one without credentials, and one with them by whoever has them and has not."""
    folder = tmp_path_factory.mktemp("attacked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder / "cache"))
        site = Site(make, folder, request.param)
        with served(site.app) as address, httpx.Client(base_url=f"http://{address}", timeout=30) as client:
            client.headers.update(site.headers)
            yield site, client


@pytest.fixture
def beside(attacked: tuple[Site, httpx.Client]) -> Iterator[tuple[str, list[str]]]:
    """URL of the planted file on a web server of this machine, and what that server was asked for."""
    site, asked = attacked[0], []

    class Tells(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(site.secret.encode())

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tells)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/planted.txt", asked
    server.shutdown()
    server.server_close()
    thread.join(5)


def gradio_routes(app: Any, value: str) -> list[tuple[str, set[str]]]:
    """(path, methods) of every route of Gradio, ``value`` for its parameters."""
    routes = walk(app.routes[-1].routes, lambda path: re.sub(r"\{[^}]*\}", lambda _: value, path))
    found = [(path, set(getattr(route, "methods", None) or ("GET",)) - {"HEAD"}) for path, route in routes]
    return [(path, methods) for path, methods in found if path.rstrip("/") not in OURS]


def test_walking_finds_the_routes_that_matter(attacked: tuple[Site, httpx.Client]) -> None:
    found = {path for path, _ in gradio_routes(attacked[0].app, "x")}
    assert len(found) > 60
    for path in ("run/x", "queue/join", "call/x", "upload", "file=x", "proxy=x", "stream/x", "heartbeat/x"):
        assert f"/gradio_api/{path}" in found


def test_no_file_is_read_with_an_address(attacked: tuple[Site, httpx.Client], beside: tuple[str, list[str]]) -> None:
    site, client = attacked
    url, asked = beside
    path = str(site.planted)
    spellings = (path, path[1:], quote(path, safe=""), "../" * 12 + path[1:], "..%2f" * 12 + path[1:], quote(url), url)
    for spelling in spellings:
        for address, methods in gradio_routes(site.app, spelling):
            for method in {*methods, "GET", "HEAD"}:
                answer = client.request(method, address)
                assert site.secret not in answer.text, (method, address)
    for name in ("deep_link", "path", "file", "url", "page", "session_hash"):
        for address, _ in gradio_routes(site.app, "0"):
            answer = client.get(address, params={name: path})
            assert site.secret not in answer.text, (name, address)
    assert site.found() == []
    assert asked == []


def test_no_file_is_read_with_a_body(attacked: tuple[Site, httpx.Client], beside: tuple[str, list[str]]) -> None:
    site, client = attacked
    url, asked = beside
    addresses = {path for name in ("predict", "0", "1") for path, _ in gradio_routes(site.app, name)}
    # There are ten thousand of them, and a client that can do everything would take half of the time.
    plain = http.client.HTTPConnection(client.base_url.host, client.base_url.port, timeout=30)
    headers = {**site.headers, "content-type": "application/json"}
    for address in sorted(addresses):
        for number, form in enumerate(site.forms(str(site.planted), url)):
            for index in range(4 if number < 2 else 1):
                data = {"data": [form], "fn_index": index, "session_hash": "x", "event_id": "x", "trigger_id": 1}
                for body in (data, {**data, "data": form, "component_id": index, "fn_name": "load"}):
                    plain.request("POST", address, json.dumps(body), headers)
                    answer = plain.getresponse().read().decode(errors="replace")
                    assert site.secret not in answer, (address, body)
        files = {"files": ("planted.txt", site.secret.encode(), "text/plain")}
        client.post(address, files=files, params={"upload_id": "x"})
    plain.close()
    assert site.found() == []
    assert asked == []


def test_what_never_ends_is_not_read(attacked: tuple[Site, httpx.Client]) -> None:
    site, client = attacked
    for path in ("/dev/zero", str(site.fifo), "/proc/self/mem", "/dev/stdin"):
        for address, _ in gradio_routes(site.app, "predict"):
            body = {"data": [{"path": path, "meta": META}], "fn_index": 0, "session_hash": "x"}
            assert client.post(address, json=body).status_code in (401, 404, 405), (path, address)
    assert client.get("/healthz").status_code == (200 if site.open else 401)


def test_of_gradio_only_the_page_is_there(attacked: tuple[Site, httpx.Client]) -> None:
    """Whatever an update of it brings: what is not on the list is not there, by any method."""
    site, client = attacked
    shown = {path for path, _ in gradio_routes(site.app, "x") if PATHS.fullmatch(path)}
    assert shown == {"/", "/theme.css", "/favicon.ico", "/manifest.json", "/assets/x"}
    for path, _ in [
        *gradio_routes(site.app, "x"),
        ("/no/such/path", set()),
        ("/assets/../config", set()),
        *(
            (f"/assets/{name}", set())
            for name in ("%2e%2e", "a" * 5000, "a%00b", "a%2fb", "%5c", "..%2f..%2fconfig", "%ff")
        ),
    ]:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            status = client.request(method, path).status_code
            if not site.open:
                assert status == 401
            elif method == "GET" and path in shown - {"/assets/x"}:
                assert status == 200, path
            else:
                assert status in (404, 405), (method, path, status)


def test_gradio_itself_would_refuse_now(attacked: tuple[Site, httpx.Client]) -> None:
    """The second lock: were a call let through, a file that no client sent is not taken."""
    site = attacked[0]
    from gradio import processing_utils
    from gradio.context import LocalContext
    from gradio.exceptions import InvalidPathError

    blocks = site.app.routes[-1].app._app.get_blocks()
    token = LocalContext.blocks.set(blocks)
    try:
        with pytest.raises(InvalidPathError):
            processing_utils._check_allowed(site.planted, check_in_upload_folder=True)
    finally:
        LocalContext.blocks.reset(token)


def test_no_control_calls_python(attacked: tuple[Site, httpx.Client]) -> None:
    site, client = attacked
    if not site.open:
        return
    html = client.get("/").text
    found = re.search(r"window\.gradio_config = (\{.*?\});</script>", html, re.DOTALL)
    assert found is not None
    events = json.loads(found[1])["dependencies"]
    assert len(events) >= 10
    assert not any(event["backend_fn"] for event in events)


@pytest.mark.parametrize("name", ["host", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-for", "origin"])
def test_no_header_is_reflected(attacked: tuple[Site, httpx.Client], name: str) -> None:
    """Nor does any answer let another origin in."""
    site, client = attacked
    said = {"x-forwarded-proto": "https"}.get(name, "evil-host" if "host" in name else "http://evil-host")
    addresses = [*gradio_routes(site.app, "x"), ("/docs", set()), ("/docs/", set()), ("/openapi.json", set())]
    for path in {path for path, _ in addresses}:
        for method in ("GET", "OPTIONS"):
            extra = {name: said, "access-control-request-method": "POST"}
            answer = client.request(method, path, headers=extra)
            assert "evil-host" not in answer.text + str(answer.headers), (method, path)
            assert "page.invalid" not in answer.text
            assert not [header for header in answer.headers if header.startswith("access-control-")]


def test_every_answer_has_a_policy(attacked: tuple[Site, httpx.Client]) -> None:
    client = attacked[1]
    for path in ("/", "/docs", "/v1/models", "/theme.css", "/nothing", "/static/perception/page.js", "/openapi.json"):
        answer = client.get(path, headers={"accept": "text/html", "sec-fetch-dest": "document"})
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors" in policy, path
        assert not re.search(r"https?:|\*", policy)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        scripts = re.search(r"script-src ([^;]*)", policy)
        assert scripts is None or "'unsafe-inline'" not in scripts[1]
