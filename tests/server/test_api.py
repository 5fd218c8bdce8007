"""Pictures, the list of models, and what watches over a server: a real server, asked as any client asks it."""

from __future__ import annotations

import csv
import io
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import perception
from perception.errors import SourceError
from perception.server.app import create_app
from perception.server.edge.uploads import read_image
from perception.server.options import Options, QueryOptions
from perception.server.problems import NotAcceptable, TooLarge
from perception.server.routes.pictures import media_type
from perception.server.settings import Limits, make_settings
from tests.media import corners, quadrants
from tests.models import PALETTE, solid, write_model
from tests.server.conftest import wait_until_ready
from tests.server.served import served


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def send(
    client: httpx.Client, data: bytes, accept: str = "*/*", kind: str = "image/png", **params: Any
) -> httpx.Response:
    headers = {"content-type": kind, "accept": accept}
    return client.post("/v1/predict", content=data, headers=headers, params=params)


def scene(seed: int) -> np.ndarray:
    """Squares of the palette on gray, on the grid that the tiny model detects."""
    random = np.random.default_rng(seed)
    image = np.full((48, 64, 3), 128, np.uint8)
    for cell in random.choice(12, 3, replace=False):
        y, x = divmod(int(cell), 4)
        color = list(PALETTE.values())[random.integers(3)]
        image[y * 16 : y * 16 + 16, x * 16 : x * 16 + 16] = color[::-1]
    return image


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_answer_is_what_the_model_says(server: httpx.Client, colors: Path, seed: int) -> None:
    image = scene(seed)
    said = send(server, png(image)).json()
    with perception.load_model(colors) as model:
        expected = model.predict(image)
    assert said["model"] == "colors"
    assert said["size"] == [64, 48]
    assert expected.detections is not None
    assert len(said["detections"]) == 3
    np.testing.assert_allclose([d["box"] for d in said["detections"]], expected.detections.boxes, atol=0.01)
    np.testing.assert_allclose([d["score"] for d in said["detections"]], expected.detections.scores, atol=1e-3)
    assert [d["class_id"] for d in said["detections"]] == expected.detections.class_ids.tolist()
    assert expected.class_map is not None
    shares = {name: share for name, share in zip(PALETTE, expected.class_map.shares.tolist(), strict=False) if share}
    assert said["shares"] == pytest.approx(shares, abs=1e-5)
    assert set(said["timings"]) >= {"resize", "infer", "postprocess"}
    assert not {"source", "index", "time"} & set(said)


def test_options_act(server: httpx.Client) -> None:
    image = scene(0)
    everything = send(server, png(image)).json()
    names = {d["class"] for d in everything["detections"]}
    only = send(server, png(image), classes=min(names)).json()
    assert {d["class"] for d in only["detections"]} == {min(names)}
    assert send(server, png(image), score=1.0).json()["detections"] == []
    assert len(send(server, png(image), max_detections=1).json()["detections"]) == 1
    assert send(server, png(image), classes=["red", "green", "blue"]).json()["detections"] == everything["detections"]
    masks = send(server, png(solid("blue")), rle=True).json()["masks"]
    assert set(masks) == {"blue"}
    assert masks["blue"]["size"] == [48, 64]


AWKWARD = {"red": "tench, Tinca tinca", "green": 'the "green" one', "blue": "sea,sky"}
"""Names of classes that a row of names must quote."""


def row(*names: str) -> str:
    """A row of names as the csv module writes it."""
    file = io.StringIO()
    csv.writer(file, lineterminator="").writerow(names)
    return file.getvalue()


@pytest.mark.parametrize("asked", [["red"], ["green", "blue"], ["blue"], ["red", "green", "blue"]])
def test_class_names_may_contain_commas_and_quotes(tmp_path: Path, asked: list[str]) -> None:
    model = write_model(tmp_path / "awkward.onnx", detection=True, called=AWKWARD)
    names = [AWKWARD[name] for name in asked]
    image = np.full((48, 64, 3), 128, np.uint8)
    for i, color in enumerate(AWKWARD):
        image[16:32, 16 * i : 16 * i + 16] = PALETTE[color][::-1]
    app = create_app(make_settings({"model": str(model), "data_dir": tmp_path / "data"}))
    with served(app) as address, httpx.Client(base_url=f"http://{address}", timeout=60) as client:
        for given in (row(*names), [row(name) for name in names], [row(*names), ""]):
            said = send(client, png(image), classes=given).json()
            assert sorted(d["class"] for d in said["detections"]) == sorted(names)


@pytest.mark.parametrize("names", [[], ["a"], ["a", "b, c"], ["tench, Tinca tinca"], ['say "a"', "b"]])
def test_options_of_a_query_are_those_of_json(names: list[str]) -> None:
    plain = Options.model_validate({"classes": names, "opacity": 0.25})
    assert plain.classes == tuple(names)
    for given in ([row(*names)], [row(name) for name in names] or [""]):
        assert QueryOptions.model_validate({"classes": given, "opacity": 0.25}).plain() == plain
    assert Options.model_validate(plain.model_dump()) == plain
    assert Options.model_validate_json(plain.model_dump_json()) == plain


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_annotated_pictures(server: httpx.Client, colors: Path, suffix: str) -> None:
    image = scene(1)
    kind = {"png": "image/png", "jpg": "image/jpeg"}[suffix]
    answer = send(server, png(image), accept=kind, opacity=0.3, legend=False)
    assert answer.headers["content-type"] == kind
    with perception.load_model(colors) as model:
        expected = perception.Annotator(model.card, opacity=0.3, legend=False)(model.predict(image))
    assert answer.content == cv2.imencode(f".{suffix}", expected)[1].tobytes()
    bare = send(server, png(image), accept=kind, masks=False, boxes=False, legend=False, labels=False)
    assert bare.content == cv2.imencode(f".{suffix}", image)[1].tobytes()


def test_a_picture_that_is_too_large_for_jpeg(server: httpx.Client) -> None:
    wide = png(solid("red", 65_501, 40))
    answer = send(server, wide, accept="image/jpeg")
    assert answer.status_code == 406
    assert "65501x40 is too large for JPEG; ask for image/png" in answer.json()["error"]
    assert cv2.imdecode(np.frombuffer(send(server, wide, accept="image/png").content, np.uint8), 1).shape[1] == 65_501


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("image/jpeg", ".jpg"), ("image/webp", ".webp"), ("image/bmp", ".bmp"), ("application/octet-stream", ".png")],
)
def test_kinds_of_pictures(server: httpx.Client, kind: str, suffix: str) -> None:
    data = cv2.imencode(suffix, solid("green", 70, 50))[1].tobytes()
    assert send(server, data, kind=kind).json()["shares"]["green"] > 0.99


def test_pictures_are_upright() -> None:
    """EXIF orientation 6: the camera was turned by a quarter."""
    plain = cv2.imencode(".jpg", quadrants((64, 48)), [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    exif = b"Exif\0\0" + b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHII", 0x0112, 3, 1, 6) + b"\0\0\0\0"
    turned = read_image(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:], Limits())
    assert turned.shape == (64, 48, 3)
    assert corners(turned) == ["bottom left", "top left", "bottom right", "top right"]


def bomb(width: int, height: int) -> bytes:
    """A PNG of that size with no pixels in it to speak of."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(8000, 8000), (65000, 65000), (2**31 - 1, 2**31 - 1), (1, 2**31 - 1)])
def test_decompression_bombs_are_refused_by_their_header(server: httpx.Client, size: tuple[int, int]) -> None:
    answer = send(server, bomb(*size))
    assert answer.status_code == 413
    assert "pixels" in answer.json()["error"]


def test_the_limit_of_pixels_is_exact() -> None:
    data = png(solid("red", 10, 10))
    assert read_image(data, Limits(pixels=100)).shape == (10, 10, 3)
    with pytest.raises(TooLarge, match="10x10"):
        read_image(data, Limits(pixels=99))


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_damaged_pictures(seed: int) -> None:
    """Whatever the damage: a picture, or one line that says what is wrong."""
    random = np.random.default_rng(seed)
    for suffix in (".png", ".jpg", ".webp", ".bmp"):
        good = np.frombuffer(cv2.imencode(suffix, scene(seed))[1].tobytes(), np.uint8)
        for _ in range(40):
            data = good.copy()
            data[random.integers(len(data), size=random.integers(1, 20))] = random.integers(256)
            try:
                image = read_image(data[: random.integers(len(data) + 1)].tobytes(), Limits())
            except (SourceError, TooLarge) as error:
                assert str(error)
            else:
                assert image.ndim == 3


@pytest.mark.parametrize(
    ("data", "options", "status", "says"),
    [
        (b"", {}, 422, "empty"),
        (b"GIF89a\x01\0\x01\0", {}, 422, "not an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", {}, 422, "not an image"),
        (b"%!PS-Adobe", {}, 422, "not an image"),
        (b"x", {"kind": "application/x-www-form-urlencoded"}, 415, "-F file=@NAME"),
        (b"x", {"kind": "video/mp4"}, 415, "image/png"),
        (b"x", {"accept": "text/html"}, 406, "application/json"),
        (b"x", {"model": "nothing"}, 404, "nothing"),
        (b"x", {"model": "/etc/passwd"}, 404, "no model"),
        (b"x", {"model": "../../colors.onnx"}, 404, "no model"),
        (b"x", {"classes": "unicorn"}, 422, "unicorn"),
        (b"x", {"score": "2"}, 422, "score"),
        (b"x", {"score": "nan"}, 422, "score"),
        (b"x", {"scoer": "0.2"}, 422, "scoer"),
        (b"x", {"max_detections": "0"}, 422, "max_detections"),
    ],
)
def test_what_is_refused(server: httpx.Client, data: bytes, options: dict, status: int, says: str) -> None:
    answer = send(server, data, **options)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    assert says in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


@pytest.fixture(scope="module")
def narrow(make: Any) -> Iterator[httpx.Client]:
    """A server with small limits."""
    limits = {"image_bytes": 2000, "body_timeout_s": 5, "waiting": 1, "models": 1, "uploads": 2, "share": 1}
    with (
        served(create_app(make(limits=limits))) as address,
        httpx.Client(base_url=f"http://{address}", timeout=60) as client,
    ):
        wait_until_ready(client)
        yield client


def test_bytes_are_counted_whether_announced_or_not(narrow: httpx.Client) -> None:
    headers = {"content-type": "image/png"}
    assert narrow.post("/v1/predict", content=b"x" * 3000, headers=headers).status_code == 413
    pieces = narrow.post("/v1/predict", content=(b"x" * 500 for _ in range(6)), headers=headers)
    assert pieces.status_code == 413
    assert "the limit of 2 kB" in pieces.json()["error"]


def speak(client: httpx.Client, text: bytes) -> socket.socket:
    connection = socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=60)
    connection.sendall(text)
    return connection


POST = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\nhalf"


def test_a_client_that_stops_in_the_middle(narrow: httpx.Client) -> None:
    with speak(narrow, POST) as connection:
        assert b" 408 " in connection.recv(4096).split(b"\r\n")[0]
    assert send(narrow, png(solid("red"))).status_code == 200


@pytest.mark.parametrize("route", ["/v1/streams", "/gradio_api/queue/join"])
def test_bodies_that_are_no_uploads_have_limits_too(narrow: httpx.Client, route: str) -> None:
    json = {"content-type": "application/json"}
    for content in (b" " * 1_200_000, (b" " * 100_000 for _ in range(12))):  # announced, and not
        answer = narrow.post(route, content=content, headers=json)
        assert (answer.status_code, answer.json()) == (
            413,
            {"error": "the body is larger than the limit of 1 MB"},
        )
    assert narrow.post("/v1/streams", content=b'{"source": "no' + b"o" * 900 + b'"}', headers=json).status_code == 403
    if route == "/v1/streams":
        with speak(narrow, POST.replace(b"predict", b"streams").replace(b"image/png", b"application/json")) as half:
            assert b" 408 " in half.recv(4096).split(b"\r\n")[0]


def test_pictures_that_are_received_at_once_have_a_limit(narrow: httpx.Client) -> None:
    until = time.monotonic() + 60
    answer = None
    while answer is None or answer.status_code == 200:  # on a busy machine the two may have been given up already
        assert time.monotonic() < until
        with speak(narrow, POST), speak(narrow, POST):
            answer = send(narrow, png(solid("red")))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    until = time.monotonic() + 60
    while send(narrow, png(solid("red"))).status_code != 200:
        assert time.monotonic() < until


def test_models(server: httpx.Client) -> None:
    first, *others = server.get("/v1/models").json()
    assert (first["name"], first["default"], first["loaded"], first["size"]) == ("colors", True, True, [64, 48])
    assert [c["name"] for c in first["segments"]] == [c["name"] for c in first["boxes"]] == ["red", "green", "blue"]
    assert "OpenVINO" in first["engine"]
    assert "camvid" in {model["name"] for model in others}
    assert not any(model["default"] or model["loaded"] for model in others)


def test_models_that_are_loaded_have_a_limit(narrow: httpx.Client) -> None:
    answer = send(narrow, png(solid("red")), model="camvid")
    assert answer.status_code == 503
    assert "as many models as may be are loaded: colors" in answer.json()["error"]


def test_a_default_model_that_fails_is_told_and_ends_nothing(make: Any, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    app = create_app(make(model=str(tmp_path / "broken.onnx")))
    with served(app) as address, httpx.Client(base_url=f"http://{address}", timeout=60) as client:
        until = time.monotonic() + 60
        while "being loaded" in (answer := client.get("/readyz")).text:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert answer.status_code == 503
        assert "broken.onnx" in answer.json()["error"]
        assert client.get("/healthz").json() == {"status": "ok"}
        assert send(client, png(solid("red"))).status_code == 503
        assert client.get("/v1/models").status_code == 503
        assert client.get("/").status_code == 200


def figures(client: httpx.Client) -> dict[tuple[str, tuple], float]:
    """All samples of /metrics, by name and labels."""
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_metrics_count(server: httpx.Client) -> None:
    api = ("perception_frames_total", (("kind", "api"),))
    infer = ("perception_stage_seconds_count", (("stage", "infer"),))
    refused = ("perception_refused_total", (("status", "422"),))
    before = figures(server)
    for _ in range(3):
        assert send(server, png(solid("red"))).status_code == 200
    assert send(server, b"").status_code == 422
    after = figures(server)
    assert after[api] - before.get(api, 0) == 3
    assert after[infer] - before.get(infer, 0) == 3
    assert after[refused] - before.get(refused, 0) == 1
    assert after[("perception_queue_depth", (("model", "colors"),))] == 0
    assert any(name == "perception_engine_info" and "OpenVINO" in dict(labels)["engine"] for name, labels in after)


def test_many_at_once(server: httpx.Client) -> None:
    """Each of many clients gets its own answer, or is told to come back."""
    names = list(PALETTE)[:3]
    wrong: list[str] = []

    def ask(i: int) -> None:
        name = names[i % 3]
        for _ in range(50):
            answer = send(server, png(solid(name)))
            if answer.status_code == 200:
                if answer.json()["shares"] != {name: 1.0}:
                    wrong.append(answer.text)
                return
            if answer.status_code != 503 or "retry-after" not in answer.headers:
                break
            time.sleep(0.05)
        wrong.append(f"{i}: {answer.status_code}")

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert wrong == []


def test_addresses_that_there_are_not(server: httpx.Client) -> None:
    answer = server.get("/v1/nothing")
    assert (answer.status_code, set(answer.json())) == (404, {"error"})
    wrong = server.put("/v1/predict")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert server.delete("/v1/jobs").headers["allow"] == "GET, POST"
    # Gradio's own uploads would have no limit and no owner.
    assert server.post("/gradio_api/upload", files={"files": b"x"}).status_code in (404, 405)
    assert server.get("/gradio_api/proxy=http://127.0.0.1/").status_code == 404


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "a/b"),
        ("*/*", "a/b"),
        ("image/*", "image/jpeg"),
        ("image/png", "image/png"),
        ("image/png;q=0.5, image/jpeg", "image/jpeg"),
        ("text/html, */*;q=0.1", "a/b"),
        ("a/b;q=0, image/*", "image/jpeg"),
        ("IMAGE/PNG", "image/png"),
        ("text/html", None),
        ("*/*;q=0", None),
        ("image/png;q=x", None),
    ],
)
def test_what_a_client_accepts(accept: str, chosen: str | None) -> None:
    known = ("a/b", "image/jpeg", "image/png")
    if chosen is None:
        with pytest.raises(NotAcceptable):
            media_type(accept, known)
    else:
        assert media_type(accept, known) == chosen


def test_a_model_of_labels(make: Any, tmp_path: Path) -> None:
    model = write_model(tmp_path / "labels.onnx", segmentation=False, classification=True)
    with (
        served(create_app(make(model=str(model)))) as address,
        httpx.Client(base_url=f"http://{address}", timeout=60) as client,
    ):
        wait_until_ready(client)
        said = send(client, png(solid("green"))).json()
        assert said["labels"][0]["class"] == "green"
        assert "detections" not in said
        assert "shares" not in said
        # Thresholds mean nothing to it and are no error, so that a page may always send them.
        assert send(client, png(solid("green")), score=0.5, accept="image/png").status_code == 200
