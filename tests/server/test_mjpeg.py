"""The streams' routes by real clients over real connections: MJPEG, video socket, snapshots, statuses."""

import io
import json
import socket
import time
from contextlib import ExitStack, contextmanager
from itertools import islice
from types import SimpleNamespace

import av
import cv2
import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from perception.server.app import create_app
from perception.server.edge import connections as http
from perception.server.settings import Limits, ServerSettings
from perception.server.viewers.motion_jpeg import BOUNDARY
from tests.media import make_video, read_stamp
from tests.models import write_model
from tests.server.served import served
from tests.server.threads import NewThreads
from tests.server.waiting import wait_for

pytestmark = pytest.mark.timeout(400)  # the first one imports the page and everything below it

STREET = "synthetic:?size=160x96&fps=25&frames=0"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    path = write_model(folder / "colors.onnx", classes=["white", "black"], detection=True)
    stamps = make_video(folder / "stamps.mp4", frames=250, fps=25, size_wh=(160, 96))
    short = make_video(folder / "short.mp4", frames=25, fps=25)
    settings = ServerSettings(
        model=str(path),
        precision="fp32",
        sources={
            "street": STREET,
            "stamps": str(stamps),
            "short": {"uri": str(short), "loop": False},
            "gone": str(folder / "none.mp4"),
        },
        allow=("http://cam.example.org/*",),
        data_dir=folder / "data",
        limits=Limits(viewers=6, streams=3, share=1),
    )
    app = create_app(settings)
    with served(app) as address:
        yield SimpleNamespace(url=f"http://{address}", address=address, app=app, hub=app.state.service.streams)


@pytest.fixture
def client(server):
    threads = NewThreads()
    with httpx.Client(base_url=server.url, timeout=60) as made:
        yield made
        for stream in server.hub.streams:
            made.delete(f"/v1/streams/{stream.id}")
    wait_for(lambda: not threads.named("perception-motionjpeg", "perception-fragmentedmp4"))


def opened(client, name, **more):
    answer = client.post("/v1/streams", json={"source": name, **more})
    assert answer.status_code in (200, 201), answer.text
    return answer.json()["id"]


class Images:
    """The pictures of a multipart response, BGR, one after the other."""

    def __init__(self, response):
        self._chunks = response.iter_bytes()
        self._data = b""

    def __iter__(self):
        return self

    def __next__(self):
        mark = f"\r\n--{BOUNDARY}\r\n".encode()
        while mark not in self._data:
            self._data += next(self._chunks)
        part, _, self._data = self._data.partition(mark)
        head, _, jpeg = part.partition(b"\r\n\r\n")
        assert b"Content-Type: image/jpeg" in head
        assert f"Content-Length: {len(jpeg)}".encode() in head
        return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def images(response, count):
    """The first ``count`` pictures, or fewer if the stream ends."""
    return list(islice(Images(response), count))


@contextmanager
def watching(client, id, count):
    """So many viewers of a stream, each of whom has seen a picture."""
    with ExitStack() as stack:
        viewers = [Images(stack.enter_context(client.stream("GET", f"/v1/streams/{id}/mjpeg"))) for _ in range(count)]
        for viewer in viewers:
            next(viewer)
        yield viewers


def test_one_stream_for_all_who_open_it(client):
    first = client.post("/v1/streams", json={"source": "street"})
    assert first.status_code == 201
    status = first.json()
    assert (status["id"], status["name"], status["model"]) == ("street", "street", "colors")
    assert status["state"] in ("connecting", "running")
    again = client.post("/v1/streams", json={"source": "street"})
    assert (again.status_code, again.json()["id"]) == (200, "street")
    wait_for(lambda: client.get("/v1/streams/street").json()["frames"] > 10)
    status = client.get("/v1/streams/street").json()
    assert (status["state"], status["width"], status["height"]) == ("running", 160, 96)
    assert 0 < status["fps"] < 40
    assert 0 < status["latency_ms"]["p50"] <= status["latency_ms"]["p95"]
    assert sum(entry["share"] for entry in status["legend"]) == pytest.approx(1, abs=0.01)
    listed = client.get("/v1/streams").json()
    assert listed["sources"] == ["street", "stamps", "short", "gone"]
    assert [s["id"] for s in listed["streams"]] == ["street"]
    assert client.delete("/v1/streams/street").status_code == 204
    assert client.get("/v1/streams/street").status_code == 404
    assert client.delete("/v1/streams/street").status_code == 404


@pytest.mark.parametrize(
    ("source", "status"),
    [("file:///etc/passwd", 403), ("/etc/passwd", 403), ("-", 403), ("0", 403), ("rtsp://elsewhere/x", 403), ("", 422)],
)
def test_what_the_operator_did_not_offer_is_refused(client, source, status):
    answer = client.post("/v1/streams", json={"source": source})
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert not client.get("/v1/streams").json()["streams"]


def test_a_model_that_there_is_not(client):
    answer = client.post("/v1/streams", json={"source": "street", "model": "nothing"})
    assert answer.status_code == 404
    assert "nothing" in answer.json()["error"]


def test_another_model_for_the_same_source(client):
    first = opened(client, "street")
    second = opened(client, "street", model="camvid")
    # Nobody watched the first one, which gives the source free: it might be a camera.
    assert [(s["id"], s["model"]) for s in client.get("/v1/streams").json()["streams"]] == [(second, "camvid")]
    with watching(client, second, 1):
        assert opened(client, "street") == first
        assert {s["model"] for s in client.get("/v1/streams").json()["streams"]} == {"camvid", "colors"}


def test_as_many_streams_as_may_be(client):
    for name in ("street", "stamps"):
        opened(client, name)
    opened(client, "gone")
    # An idle one gives its place; those that are watched do not.
    opened(client, "short")
    assert len(client.get("/v1/streams").json()["streams"]) == 3
    ids = [s["id"] for s in client.get("/v1/streams").json()["streams"] if s["id"] != "gone"]
    assert "short" in ids


def test_mjpeg_shows_the_annotated_stream(client):
    id = opened(client, "stamps")
    with client.stream(
        "GET", f"/v1/streams/{id}/mjpeg", params={"opacity": 0, "legend": False, "boxes": False}
    ) as plain:
        assert plain.headers["content-type"].startswith("multipart/x-mixed-replace")
        shown = images(plain, 8)
    numbers = [read_stamp(image) for image in shown]
    assert all(image.shape == (96, 160, 3) for image in shown)
    assert numbers == sorted(set(numbers))
    with client.stream(
        "GET", f"/v1/streams/{id}/mjpeg", params={"opacity": 1, "legend": False, "boxes": False}
    ) as full:
        image = images(full, 1)[0]
    # All white and black pixels in the classes' own colours, which are white and black: not the grays of the stamps.
    assert image.max() > 240
    assert image.min() < 12


def test_mjpeg_ends_with_its_stream(client):
    id = opened(client, "short")
    with client.stream("GET", f"/v1/streams/{id}/mjpeg") as response:
        shown = images(response, 1000)
    assert 0 < len(shown) <= 27
    status = client.get(f"/v1/streams/{id}").json()
    assert (status["state"], status["viewers"]) == ("ended", 0)
    assert client.get(f"/v1/streams/{id}/mjpeg").status_code == 409
    # Opened again it begins again.
    assert client.post("/v1/streams", json={"source": "short"}).status_code == 201


def test_a_stream_that_cannot_work_says_why(client):
    id = opened(client, "gone")
    wait_for(lambda: client.get(f"/v1/streams/{id}").json()["state"] == "failed")
    assert client.get(f"/v1/streams/{id}").json()["message"] == "no such file"
    answer = client.get(f"/v1/streams/{id}/snapshot")
    assert answer.status_code == 409


def test_viewers_who_leave_are_forgotten(client, server):
    id = opened(client, "street")
    threads = NewThreads()
    with watching(client, id, 3):
        assert client.get(f"/v1/streams/{id}").json()["viewers"] == 3
        assert 'perception_viewers{kind="stream"} 3.0' in client.get("/metrics").text
        assert len(threads.named("perception-motionjpeg")) == 1
    wait_for(lambda: client.get(f"/v1/streams/{id}").json()["viewers"] == 0)
    wait_for(lambda: 'perception_viewers{kind="stream"} 0.0' in client.get("/metrics").text)
    wait_for(lambda: not threads.named("perception-motionjpeg"))


def test_viewers_of_equal_options_get_equal_bytes(client):
    id = opened(client, "street")
    with ExitStack() as stack:
        responses = [stack.enter_context(client.stream("GET", f"/v1/streams/{id}/mjpeg")) for _ in range(2)]
        seen = [{image.tobytes() for image in images(response, 15)} for response in responses]
    assert len(seen[0] & seen[1]) >= 3


def test_as_many_viewers_as_may_be(client):
    id = opened(client, "street")
    with watching(client, id, 6):
        refused = client.get(f"/v1/streams/{id}/mjpeg")
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        with connect(f"ws://{refused.url.host}:{refused.url.port}/v1/streams/{id}/video") as viewer:
            assert "too many viewers" in json.loads(viewer.recv(30))["error"]
            with pytest.raises(ConnectionClosed) as closed:
                viewer.recv(30)
            assert closed.value.rcvd.code == 1013
    wait_for(lambda: client.get(f"/v1/streams/{id}").json()["viewers"] == 0)


def test_a_viewer_who_does_not_read_slows_nobody(client, server):
    id = opened(client, "street")
    with socket.create_connection(server.address.split(":")) as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.sendall(f"GET /v1/streams/{id}/mjpeg HTTP/1.1\r\nHost: {server.address}\r\n\r\n".encode())
        with client.stream("GET", f"/v1/streams/{id}/mjpeg") as response:
            began = time.monotonic()
            assert len(images(response, 40)) == 40
        assert time.monotonic() - began < 40  # 40 frames at 25 a second; a viewer that blocked would block for good
    wait_for(lambda: client.get(f"/v1/streams/{id}").json()["viewers"] == 0)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system cannot tell who does not read")
@pytest.mark.parametrize("route", ["mjpeg", "video"])
def test_a_viewer_who_never_reads_loses_its_place(client, server, monkeypatch, route):
    monkeypatch.setattr(http, "SEND_TIMEOUT_S", 2.0)
    id = opened(client, "street")
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    key = "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
    head = f"GET /v1/streams/{id}/{route} HTTP/1.1\r\nHost: {server.address}\r\n"
    with socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect((client.base_url.host, client.base_url.port))
        stuck.sendall(f"{head}{upgrade + key if route == 'video' else ''}\r\n".encode())
        viewers = lambda: client.get(f"/v1/streams/{id}").json()["viewers"]  # noqa: E731
        with watching(client, id, 1) as (reading,):
            wait_for(lambda: viewers() == 2)
            wait_for(lambda: next(reading) is not None and viewers() == 1)


@pytest.mark.parametrize("route", ["mjpeg", "snapshot"])
def test_options_that_do_not_fit(client, route):
    id = opened(client, "street")
    for query in ({"opacity": 2}, {"classes": "whit"}, {"nonsense": 1}):
        answer = client.get(f"/v1/streams/{id}/{route}", params=query)
        assert answer.status_code == 422, query
        assert len(answer.json()["error"].splitlines()) == 1
    assert client.get(f"/v1/streams/nothing/{route}").status_code == 404
    assert client.get(f"/v1/streams/{id}").json()["viewers"] == 0


def test_snapshots(client):
    id = opened(client, "stamps")
    wait_for(lambda: client.get(f"/v1/streams/{id}").json()["frames"] > 3)  # the first frame's stamp is all dark
    answer = client.get(f"/v1/streams/{id}/snapshot", params={"annotated": False})
    assert answer.headers["content-type"] == "image/png"
    plain = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert plain.shape == (96, 160, 3)
    assert 20 <= plain.min() <= 40
    assert 210 <= plain.max() <= 230
    answer = client.get(f"/v1/streams/{id}/snapshot", params={"opacity": 1, "legend": False, "boxes": False})
    drawn = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert drawn.min() < 5
    assert drawn.max() > 250


def segments(viewer, count, messages=None):
    """The next ``count`` binary messages, and the text messages before the last of them."""
    taken, texts = [], [] if messages is None else messages
    while len(taken) < count:
        message = viewer.recv(60)
        if isinstance(message, str):
            texts.append(json.loads(message))
        else:
            taken.append(message)
    return taken, texts


def test_video_over_a_socket_is_a_film(client, server):
    id = opened(client, "stamps")
    query = "opacity=0&legend=false&boxes=false"
    with connect(f"ws://{server.address}/v1/streams/{id}/video?{query}", max_size=None) as viewer:
        taken, texts = segments(viewer, 31)
    heads = [t for t in texts if t["type"] == "video"]
    assert len(heads) == 1
    assert heads[0]["mime"].startswith("video/mp4; codecs=avc1.")
    assert (heads[0]["width"], heads[0]["height"]) == (160, 96)
    statuses = [t for t in texts if t["type"] == "status"]
    assert statuses[-1]["state"] == "running"
    assert statuses[-1]["viewers"] == 1
    with av.open(io.BytesIO(b"".join(taken))) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 30
    numbers = [read_stamp(f.to_ndarray(format="bgr24")) for f in frames]
    steps = np.diff(numbers) % 250
    assert (steps >= 1).all()
    # What is shown moves on as the time stamps do.
    assert float((frames[-1].pts - frames[0].pts) * frames[0].time_base) == pytest.approx(steps.sum() / 25, abs=0.3)


def test_late_viewers_share_the_encoder_and_begin_with_a_key_frame(client, server):
    id = opened(client, "stamps")
    url = f"ws://{server.address}/v1/streams/{id}/video"
    with connect(url, max_size=None) as first:
        segments(first, 10)
        with connect(url, max_size=None) as second:
            late, _ = segments(second, 6)
            early, _ = segments(first, 20)
            assert client.get(f"/v1/streams/{id}").json()["viewers"] == 2
    with av.open(io.BytesIO(b"".join(late))) as container:
        assert len(list(container.decode(video=0))) == 5
    assert late[1] in early  # the very same bytes


def test_options_change_on_the_socket(client, server):
    id = opened(client, "stamps")
    with connect(
        f"ws://{server.address}/v1/streams/{id}/video?opacity=0&legend=false&boxes=false", max_size=None
    ) as viewer:
        segments(viewer, 5)
        viewer.send(json.dumps({"options": {"opacity": 1, "legend": False, "boxes": False}}))
        while not (isinstance(message := viewer.recv(60), str) and json.loads(message)["type"] == "video"):
            pass
        encoded = [viewer.recv(60)]
        taken, _ = segments(viewer, 5)
        with av.open(io.BytesIO(b"".join(encoded + taken))) as container:
            luma = next(container.decode(video=0)).to_ndarray(format="bgr24")
        assert luma.max() > 240 and luma.min() < 12  # not the grays of the stamps
        for nonsense in ("{", "[]", json.dumps({"options": {"opacity": 7}}), b"\x00\x01", json.dumps({"a": 1})):
            viewer.send(nonsense)
            texts = []
            while not [t for t in texts if t["type"] == "error"]:
                segments(viewer, 1, texts)
        assert client.get(f"/v1/streams/{id}").json()["viewers"] == 1


def test_a_socket_for_nothing(client, server):
    for path in ("nothing/video", "street/video?opacity=9", "street/video?bogus=1"):
        opened(client, "street")
        with connect(f"ws://{server.address}/v1/streams/{path}") as viewer:
            assert json.loads(viewer.recv(30))["type"] == "error"
            with pytest.raises(ConnectionClosed) as closed:
                viewer.recv(30)
            assert closed.value.rcvd.code == 1008


def test_the_socket_closes_with_its_stream(client, server):
    id = opened(client, "short")
    with connect(f"ws://{server.address}/v1/streams/{id}/video", max_size=None) as viewer:
        texts = []
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                segments(viewer, 1, texts)
        assert closed.value.rcvd.code == 1001
        assert texts[-1]["state"] == "ended"
