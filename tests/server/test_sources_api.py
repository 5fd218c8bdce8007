"""Adding, changing, pausing and removing sources over HTTP; and SIGHUP to a real server."""

import os
import signal
import subprocess
import sys
import threading

import httpx
import pytest

from perception.server.app import create_app
from tests.models import write_model
from tests.server.conftest import SCENE
from tests.server.served import served
from tests.server.waiting import wait_for

ENDLESS = "synthetic:?size=64x48&fps=25&frames=0"
TOKEN = "a token of the tests"


@pytest.fixture(scope="module")
def client(make):
    settings = make(token=TOKEN, allow=["synthetic:*", "rtsp://cam.test/*"], cameras=[])
    with (
        served(create_app(settings)) as address,
        httpx.Client(base_url=f"http://{address}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as made,
    ):
        yield made


@pytest.fixture(autouse=True)
def nothing_is_left(request):
    yield
    if "client" in request.fixturenames:
        client = request.getfixturevalue("client")
        for source in client.get("/v1/sources").json()["sources"]:
            client.patch(f"/v1/sources/{source['name']}", json={"paused": False})
            client.delete(f"/v1/sources/{source['name']}")


def names(client):
    return [source["name"] for source in client.get("/v1/sources").json()["sources"]]


def test_a_source_from_its_adding_to_its_end(client):
    answer = client.get("/v1/sources").json()
    assert answer["editable"] and [source["name"] for source in answer["sources"]] == ["scene"]
    added = client.put("/v1/sources/gate", json={"uri": ENDLESS, "fps": 5, "priority": 2})
    assert added.status_code == 201
    assert added.json() == {
        "name": "gate", "added": True, "address": "", "paused": False, "keep": False, "fps": 5.0, "priority": 2.0,
        "decode": "needed",
        "every": 1,
    }  # fmt: skip
    assert client.put("/v1/sources/gate", json={"uri": ENDLESS, "fps": 4}).status_code == 200
    assert names(client) == ["scene", "gate"] == client.get("/v1/streams").json()["sources"]
    opened = client.post("/v1/streams", json={"source": "gate"})
    assert opened.status_code == 201 and opened.json()["id"] == "gate" == opened.json()["name"]
    wait_for(lambda: client.get("/v1/streams/gate").json()["state"] == "running")
    assert client.patch("/v1/sources/gate", json={"paused": True}).json()["paused"]
    wait_for(lambda: client.get("/v1/streams/gate").json()["state"] == "paused")
    assert 'perception_stream_state{state="paused",stream="gate"} 1.0' in client.get("/metrics").text
    assert not client.patch("/v1/sources/gate", json={"paused": False}).json()["paused"]
    wait_for(lambda: client.get("/v1/streams/gate").json()["state"] == "running")
    assert client.delete("/v1/sources/gate").status_code == 204
    assert client.get("/v1/streams/gate").status_code == 404
    assert client.post("/v1/streams", json={"source": "gate"}).status_code == 403
    assert client.delete("/v1/sources/gate").status_code == 404


@pytest.mark.parametrize(
    ("uri", "status", "said"),
    [
        ("/etc/passwd", 403, "not among the sources"),
        ("file:///etc/passwd", 403, "not among the sources"),
        ("-", 403, "not among the sources"),
        ("0", 403, "camera 0 is not available"),
        ("scene", 403, "not among the sources"),  # the name of another one is no address
        ("rtsp://elsewhere.test/a", 403, "not among the sources"),
        ("rtsp://user:secret-word@cam.test/a", 403, "not among the sources"),
        ("rtsp://cam.test/a", 404, "unknown host"),
        ("", 422, "uri"),
    ],
)
def test_addresses_are_those_that_clients_may_open(client, uri, status, said):
    answer = client.put("/v1/sources/gate", json={"uri": uri})
    assert answer.status_code == status and said in answer.json()["error"]
    assert "secret-word" not in answer.text
    assert names(client) == ["scene"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("fps", 0), ("fps", -1), ("fps", "fast"), ("priority", 100), ("rules", "/etc/passwd"), ("start", 3), ("keep", 7)],
)
def test_values_are_checked(client, key, value):
    answer = client.put("/v1/sources/gate", json={"uri": ENDLESS, key: value})
    assert answer.status_code == 422 and key in answer.json()["error"]
    assert names(client) == ["scene"]


def test_names_are_checked(client):
    for name in ("7", ".x", "a%2Fb", "..%2F..%2Fx", "%00", "x" * 65, "a:b"):
        assert client.put(f"/v1/sources/{name}", json={"uri": ENDLESS}).status_code in (404, 422), name
    assert client.put("/v1/sources/Haustür", json={"uri": ENDLESS}).status_code == 201


def test_those_of_the_configuration_can_only_be_paused(client):
    assert client.put("/v1/sources/scene", json={"uri": ENDLESS}).status_code == 403
    answer = client.delete("/v1/sources/scene")
    assert answer.status_code == 403 and "configuration file" in answer.json()["error"]
    assert client.patch("/v1/sources/scene", json={"paused": True}).json()["paused"]
    assert client.patch("/v1/sources/scene", json={"paused": True, "fps": 3}).status_code == 422


def test_only_who_has_credentials(client):
    bare = httpx.Client(base_url=client.base_url, timeout=60)
    for method, path in (("GET", "/v1/sources"), ("PUT", "/v1/sources/x"), ("DELETE", "/v1/sources/scene")):
        assert bare.request(method, path).status_code == 401
    # Another site's page in the browser of somebody who is logged in.
    answer = client.put("/v1/sources/x", json={"uri": ENDLESS}, headers={"Origin": "http://evil.test"})
    assert answer.status_code == 403
    assert names(client) == ["scene"]


@pytest.mark.parametrize(("edit", "status"), [(None, 403), (False, 403), (True, 201)])
def test_without_credentials_only_if_the_operator_says_so(make, edit, status):
    values = {} if edit is None else {"edit_sources": edit}
    app = create_app(make(allow=["synthetic:*"], **values))
    with served(app) as address, httpx.Client(base_url=f"http://{address}", timeout=60) as bare:
        assert bare.get("/v1/sources").json()["editable"] is bool(edit)
        answer = bare.put("/v1/sources/gate", json={"uri": ENDLESS})
        assert answer.status_code == status
        assert bare.patch("/v1/sources/scene", json={"paused": True}).status_code == (200 if edit else 403)
        assert bare.delete("/v1/sources/gate").status_code == (204 if edit else 403)
        if not edit:
            assert "edit-sources: true" in answer.json()["error"]


def test_it_is_there_after_a_restart(make, tmp_path):
    settings = make(token=TOKEN, allow=["synthetic:*"], data_dir=tmp_path)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    for turn in range(2):
        with (
            served(create_app(settings)) as address,
            httpx.Client(base_url=f"http://{address}", headers=headers) as one,
        ):
            if not turn:
                assert one.put("/v1/sources/gate", json={"uri": ENDLESS, "keep": True}).status_code == 201
                assert one.patch("/v1/sources/scene", json={"paused": True}).status_code == 200
            found = {each["name"]: each for each in one.get("/v1/sources").json()["sources"]}
            assert found["gate"]["keep"] and found["scene"]["paused"]
            wait_for(lambda one=one: "gate" in [each["id"] for each in one.get("/v1/streams").json()["streams"]])


class Server:
    """``perception live --config`` in a process of its own."""

    def __init__(self, folder, text, **options):
        self.config = folder / "live.yaml"
        self.log = folder / "log.txt"
        model = write_model(folder / "colors.onnx", classes=["white", "black"], detection=True)
        self.head = f"model: {model}\nport: 0\ndata-dir: {folder / 'data'}\n"
        self.write(text)
        command = [sys.executable, "-m", "perception", "live", "--config", str(self.config), "--no-browser"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, **options)
        line = self.process.stdout.readline()
        assert "http" in line, self.log.read_text()
        self.client = httpx.Client(base_url=line[line.index("http") :].strip().rstrip("/"), timeout=60)

    def write(self, text):
        self.config.write_text(self.head + text)

    def said(self):
        return self.log.read_text()

    def hang_up(self, text, said):
        before = self.said().count(said)
        self.write(text)
        self.process.send_signal(signal.SIGHUP)
        wait_for(lambda: " ".join(self.said().split()).count(said) > before, 60)

    def stop(self):
        self.client.close()
        self.process.terminate()
        self.process.wait(60)
        self.process.stdout.close()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_hangup_reads_the_configuration_again(tmp_path):
    one = f"sources:\n  one: {{uri: '{SCENE}', keep: true}}\n"
    server = Server(tmp_path, one)
    try:
        wait_for(lambda: server.client.get("/v1/streams").json()["streams"], 120)
        wait_for(lambda: server.client.get("/v1/streams/one").json()["state"] == "running", 60)
        server.hang_up(one + f"  two: '{ENDLESS}'\n", "sources: 1 added")
        assert server.client.get("/v1/streams").json()["sources"] == ["one", "two"]
        server.hang_up(one.replace("keep", "kept"), "sources.one.kept")
        assert "the configuration stays as it was" in server.said() and "live.yaml" in server.said()
        server.hang_up("sources: [\n", "is not YAML")
        assert server.client.get("/v1/streams").json()["sources"] == ["one", "two"]
        status = server.client.get("/v1/streams/one").json()
        assert status["state"] == "running" and status["reconnects"] == 0
        server.hang_up(one, "sources: 1 removed")
        assert server.client.get("/v1/streams").json()["sources"] == ["one"]
    finally:
        server.stop()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no terminals")
def test_a_server_whose_terminal_is_closed_ends(tmp_path):
    primary, secondary = os.openpty()

    def own_terminal():
        import fcntl
        import termios

        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    server = Server(tmp_path, f"sources: {{one: '{SCENE}'}}\n", stdin=secondary, preexec_fn=own_terminal)
    try:
        os.close(secondary)
        threading.Timer(0.1, os.close, [primary]).start()
        assert server.process.wait(60) == 0
    finally:
        server.stop()
