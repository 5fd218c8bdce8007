"""The webcam socket, by a real client over a real connection."""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from fastapi import FastAPI
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from perception.server.edge.pictures import Pictures
from perception.server.edge.places import Places
from perception.server.inference.models import Models
from perception.server.metrics import Metrics
from perception.server.problems import NotFound
from perception.server.routes import webcam
from perception.server.settings import Limits, ServerSettings
from perception.server.viewers.messages import Result, unpack
from tests.models import solid, write_model
from tests.server.served import served


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    path = write_model(tmp_path_factory.mktemp("models") / "colors.onnx", detection=True)
    settings = ServerSettings(model=str(path), limits=Limits(viewers=4, pixels=1_000_000, share=1))
    metrics = Metrics()
    models = Models(settings, metrics)
    models.scheduler()
    pictures = Pictures(settings.limits, metrics)
    webcams = Places(settings.limits.viewers, settings.limits.share, "webcams")
    yield SimpleNamespace(
        settings=settings, metrics=metrics, models=models, pictures=pictures, webcams=webcams, stages=[]
    )
    pictures.close()
    models.close()


@pytest.fixture(scope="module")
def url(service: Any) -> Iterator[str]:
    app = FastAPI()
    app.state.service = service
    app.include_router(webcam.router)
    with served(app) as address:
        yield f"ws://{address}/v1/webcam"


@pytest.fixture
def client(url: str) -> Iterator[ClientConnection]:
    with connect(url, open_timeout=30, close_timeout=30) as connection:
        yield connection


def jpeg(image: np.ndarray, quality: int = 95) -> bytes:
    ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    return data.tobytes()


def frame(number: int, image: np.ndarray) -> bytes:
    return struct.pack("<I", number) + jpeg(image)


def ask(client: ClientConnection, message: str | bytes | dict[str, Any]) -> Any:
    """The answer: a result where it is binary, else plain data."""
    client.send(json.dumps(message) if isinstance(message, dict) else message)
    answer = client.recv(timeout=60)
    return unpack(answer) if isinstance(answer, bytes) else json.loads(answer)


def gray_with_square(name: str = "red") -> np.ndarray:
    """A frame 128x96 over the model's 64x48: the square covers one anchor of 16x16, here 32x32."""
    image = np.full((96, 128, 3), 128, np.uint8)
    image[32:64, 64:96] = solid(name, 1, 1)[0, 0]
    return image


def test_a_frame_is_answered_with_what_is_in_it(client: ClientConnection) -> None:
    result = ask(client, frame(7, gray_with_square("blue")))
    assert isinstance(result, Result)
    assert (result.number, result.width, result.height) == (7, 128, 96)
    assert result.detections.class_ids.tolist() == [2]
    assert np.allclose(result.detections.boxes, [[64, 32, 96, 64]], atol=0.5)
    assert result.class_map is not None and result.class_map.shape == (96, 128)
    assert (result.class_map[36:60, 68:92] == 2).all()
    assert set(result.timings) == {"decode", "wait", "resize", "infer", "postprocess", "server"}
    assert 0 < result.timings["infer"] < result.timings["server"]


def test_settings_hold_from_the_next_frame_on(client: ClientConnection) -> None:
    ready = ask(client, {})
    assert ready["type"] == "ready" and ready["model"] == "colors" and ready["size"] == [64, 48]
    assert ready["segmentation"][1] == {"name": "green", "color": [0, 255, 0]}
    square = frame(1, gray_with_square())
    assert len(ask(client, square).detections) == 1
    ask(client, {"score": 1.0})
    assert len(ask(client, square).detections) == 0
    ask(client, {"score": None, "classes": ["green"]})
    assert len(ask(client, square).detections) == 0
    ask(client, {"classes": ["red"], "map_cells": 32})
    result = ask(client, square)
    assert len(result.detections) == 1 and result.class_map.shape == (24, 32)
    ask(client, {"map_cells": 0})
    assert ask(client, square).class_map is None


def test_each_client_has_settings_of_its_own(client: ClientConnection, url: str) -> None:
    with connect(url) as other:
        ask(other, {"score": 1.0})
        assert len(ask(client, frame(1, gray_with_square())).detections) == 1
        assert len(ask(other, frame(1, gray_with_square())).detections) == 0


@pytest.mark.parametrize(
    ("message", "word"),
    [
        ("", "JSON"),
        ("{", "JSON"),
        ("[" * 60_000, "JSON"),
        ("[1]", "object"),
        ('{"score": 2}', "score"),
        ('{"score": NaN}', "score"),
        ('{"speed": 1}', "speed"),
        ('{"model": "nothing"}', "no model"),
        ('{"model": "../../etc/passwd"}', "no model"),
        ('{"classes": ["zebra"]}', "zebra"),
        ('{"map_cells": 100000}', "map_cells"),
        (json.dumps({"classes": ["x" * 100_000]}), "too long"),
        (b"", "number"),
        (b"\1\0\0\0", "number"),
        (b"\1\0\0\0" + b"\xff\xd8\xff" + b"\0" * 50, "not an image"),
        (b"\1\0\0\0" + b"GIF89a" + b"\0" * 50, "not an image"),
        (b"\1\0\0\0" + b"\xff" * 5_000_000, "too large"),
        (frame(1, solid("red", 2000, 1000)), "2000x1000"),
    ],
)
def test_what_is_no_good_is_said_and_the_connection_goes_on(
    client: ClientConnection, message: str | bytes, word: str
) -> None:
    answer = ask(client, message)
    assert answer["type"] == "error" and word in answer["error"] and "\n" not in answer["error"]
    assert isinstance(ask(client, frame(2, solid("red"))), Result)


def test_a_header_that_claims_billions_of_pixels(client: ClientConnection) -> None:
    data = bytearray(jpeg(solid("red")))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65_000, 65_000)
    answer = ask(client, b"\1\0\0\0" + bytes(data))
    assert answer["type"] == "error" and answer["frame"] == 1 and "pixels" in answer["error"]


def test_a_jpeg_cut_short(client: ClientConnection) -> None:
    """It may be decoded as far as it goes or be refused; it is answered either way."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8)
    whole = frame(1, noise)
    for part in (0.1, 0.5, 0.99):
        answer = ask(client, whole[: int(len(whole) * part)])
        assert isinstance(answer, Result) or answer["type"] == "error"


@pytest.mark.parametrize("seed", range(4))
def test_random_messages(url: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with connect(url) as client:
        for _ in range(15):
            data = rng.integers(0, 256, rng.integers(0, 3000)).astype(np.uint8).tobytes()
            answer = ask(client, data if rng.random() < 0.5 else data.decode("latin-1"))
            assert answer["type"] == "error"
        assert isinstance(ask(client, frame(3, solid("red"))), Result)


def test_who_sends_only_what_is_no_good_is_hung_up_on(client: ClientConnection) -> None:
    for _ in range(webcam.ERRORS_IN_A_ROW):
        assert ask(client, "nonsense")["type"] == "error"
    with pytest.raises(ConnectionClosed):
        client.recv(timeout=30)
    assert client.close_code == 1008


def test_a_message_longer_than_any_is_the_end(url: str) -> None:
    with connect(url) as client, pytest.raises(ConnectionClosed):
        client.send(b"\0" * 20_000_000)
        client.recv(timeout=30)
    with connect(url) as client:
        assert isinstance(ask(client, frame(3, solid("red"))), Result)


def test_every_frame_has_one_answer_when_none_is_waited_for(client: ClientConnection) -> None:
    for number in range(30):
        client.send(frame(number, gray_with_square()))
    numbers = []
    for _ in range(30):
        answer = client.recv(timeout=60)
        if isinstance(answer, bytes):
            numbers.append(unpack(answer).number)
        else:
            answer = json.loads(answer)
            assert answer["type"] == "dropped"
            numbers.append(answer["frame"])
    assert sorted(numbers) == list(range(30))


def test_who_says_nothing_is_hung_up_on(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webcam, "IDLE_S", 0.2)
    with connect(url) as client:
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=30)
        assert client.close_code == 1013


def test_more_clients_than_may_be(url: str) -> None:
    with ExitStack() as stack:
        for client in [stack.enter_context(connect(url)) for _ in range(4)]:
            ask(client, {})
        fifth = stack.enter_context(connect(url))
        with pytest.raises(ConnectionClosed):
            fifth.recv(timeout=30)
        assert fifth.close_code == 1013
    for _ in range(100):  # a place is free once one has left
        with connect(url) as again, suppress(ConnectionClosed):
            assert ask(again, {})["type"] == "ready"
            return
        threading.Event().wait(0.1)
    pytest.fail("the places were not given back")


def test_a_client_that_vanishes_leaves_nothing_behind(url: str, service: Any) -> None:
    for number in range(3):
        with connect(url) as client:
            client.send(frame(number, gray_with_square()))
            client.socket.close()
    with connect(url) as client:
        assert isinstance(ask(client, frame(3, solid("red"))), Result)
    for _ in range(200):
        if (
            service.models.scheduler().waiting == 0
            and b'perception_viewers{kind="webcam"} 0.0' in service.metrics.render()
        ):
            return
        threading.Event().wait(0.05)
    pytest.fail("viewers or frames are left")


def test_a_fault_of_ours_is_an_answer_too(client: ClientConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **options: Any) -> bytes:
        raise ValueError("a secret of the server's")

    monkeypatch.setattr(webcam, "pack", broken)
    answer = ask(client, frame(5, solid("red")))
    assert answer["type"] == "error" and answer["frame"] == 5 and "secret" not in answer["error"]
    monkeypatch.undo()
    assert isinstance(ask(client, frame(6, solid("red"))), Result)


def test_a_model_that_does_not_load_is_an_error_of_the_request(
    client: ClientConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import perception.weights.library

    (tmp_path / "broken.onnx").write_bytes(b"not a network")
    monkeypatch.setattr(perception.weights.library, "user_models_dir", lambda: tmp_path)
    answer = ask(client, {"model": "broken"})
    assert answer["type"] == "error" and "ONNX" in answer["error"]
    assert isinstance(ask(client, frame(2, solid("red"))), Result)


def test_frames_are_answered_while_another_model_is_loaded(
    client: ClientConnection, service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the picture would go on under masks and boxes that stand still."""
    go_on, asked = threading.Event(), threading.Event()
    real = service.models.scheduler()
    loaded: dict[str, Any] = {"colors": real}

    def scheduler(name: str | None = None) -> Any:
        if name == "other":
            asked.set()
            assert go_on.wait(60)
            loaded["other"] = real
        elif name not in (None, "colors"):
            raise NotFound(f"no model is called {name!r}")
        return real

    monkeypatch.setattr(service.models, "scheduler", scheduler)
    monkeypatch.setattr(service.models, "loaded", lambda: dict(loaded))
    assert ask(client, {"score": 0.2})["model"] == "colors"
    square = frame(1, gray_with_square())
    client.send(json.dumps({"model": "other", "score": 0.3}))
    assert asked.wait(60)
    for _ in range(3):
        assert len(ask(client, square).detections) == 1  # and no word of the other one yet
    client.send(json.dumps({"classes": ["green"]}))  # on top of what is wanted
    assert len(ask(client, square).detections) == 1
    go_on.set()
    assert json.loads(client.recv(timeout=60))["model"] == "other"
    assert len(ask(client, square).detections) == 0

    go_on.clear()
    asked.clear()
    del loaded["other"]
    client.send(json.dumps({"model": "other", "classes": None}))
    assert asked.wait(60)
    assert ask(client, {"model": "colors", "classes": None})["model"] == "colors"  # changed their mind
    go_on.set()
    assert len(ask(client, square).detections) == 1  # and the answer is not the other one's
    assert "no model is called" in ask(client, {"model": "nobody"})["error"]
    assert len(ask(client, square).detections) == 1
