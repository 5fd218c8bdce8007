"""Lines and zones that clients draw: over the routes of streams and the webcam's socket, kept, checked, bounded."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from websockets.sync.client import ClientConnection, connect

from perception.errors import UsageError
from perception.server.app import create_app
from perception.server.viewers.messages import unpack
from tests.media import make_video
from tests.models import solid, write_model
from tests.server.conftest import wait_until_ready
from tests.server.served import served
from tests.server.test_webcam import frame
from tests.server.waiting import wait_for

LINE = {"name": "gate", "points": [[0.5, 0.0], [0.5, 1.0]]}
ZONE = {"name": "yard", "points": [[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]]}
DRAWN = {"lines": [LINE], "zones": [ZONE]}


MODULE = "walkers"
STAGE = '''
from dataclasses import replace

import numpy as np

from perception.types import Detections


class Walk:
    """A red box that walks from left to right through the middle of the picture, again and again."""

    def __init__(self):
        self.calls = 0

    def __call__(self, prediction):
        walk, step = divmod(self.calls, 40)
        self.calls += 1
        width, height = prediction.frame.width, prediction.frame.height
        x, y = (0.1 + 0.02 * step) * width, 0.6 * height
        box = np.array([[x - 0.05 * width, y - 0.2 * height, x + 0.05 * width, y]], np.float32)
        ids = np.array([walk + 1], np.int64)
        return replace(prediction, detections=Detections(box, np.ones(1, np.float32), np.zeros(1, np.int32), ids))
'''


def square(size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """One red square on gray at the left, an anchor of the tiny model."""
    image = np.full((48, 64, 3), 128, np.uint8)
    image[16:32, 0:16] = solid("red", 1, 1)[0, 0]
    return cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("clip")
    (folder / f"{MODULE}.py").write_text(STAGE)
    sys.path.insert(0, str(folder))
    yield make_video(folder / "square.mp4", images=[square()] * 50, size_wh=(64, 48), fps=25)
    sys.path.remove(str(folder))
    sys.modules.pop(MODULE, None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def client_of(make: Any, clip: Path, folder: Path) -> Iterator[Any]:
    """Opens servers of one data folder, one after the other; gives a client, with the stream "walk" open."""
    with ExitStack() as stack:

        def opened(**values: Any) -> httpx.Client:
            stack.close()
            values = {"sources": {"walk": str(clip)}, "stages": [f"{MODULE}:Walk"], "data_dir": folder, **values}
            address = stack.enter_context(served(create_app(make(**values))))
            client = stack.enter_context(httpx.Client(base_url=f"http://{address}", timeout=60))
            wait_until_ready(client, 300)
            assert client.post("/v1/streams", json={"source": "walk"}).status_code in (200, 201)
            return client

        yield opened


RULES = "/v1/streams/walk/rules"


def numbers(client: httpx.Client) -> dict[str, Any]:
    rules: dict[str, Any] = client.get("/v1/streams/walk").json()["rules"]
    return rules


def crossed(client: httpx.Client, name: str) -> int:
    """How often a line was crossed to the right."""
    return sum(numbers(client).get(name, {}).get("crossed", {}).get("forward", {}).values())


def test_what_is_drawn_counts_at_once_and_is_there_again_with_the_next_server(client_of: Any, folder: Path) -> None:
    client = client_of()
    before = client.get(RULES)
    assert before.json() == {"editable": True, "fixed": {}, "drawn": {}, "faults": {}}
    answer = client.put(RULES, json=DRAWN, headers={"If-Match": before.headers["ETag"]})
    assert answer.status_code == 200 and answer.json()["drawn"] == DRAWN == client.get(RULES).json()["drawn"]
    assert answer.headers["ETag"] == client.get(RULES).headers["ETag"] != before.headers["ETag"]
    wait_for(lambda: crossed(client, "gate") >= 1)
    wait_for(lambda: numbers(client).get("yard", {}).get("inside") == 1)
    # the line stays as it is, so it goes on counting
    many = crossed(client, "gate")
    assert client.put(RULES, json={"lines": [LINE]}).status_code == 200
    wait_for(lambda: set(numbers(client)) == {"gate"})
    assert crossed(client, "gate") >= many

    client = client_of()
    assert client.get(RULES).json()["drawn"] == {"lines": [LINE]}
    wait_for(lambda: crossed(client, "gate") >= 1)
    [kept] = (folder / "rules").iterdir()
    assert "walk" not in kept.name and kept.stat().st_mode & 0o077 == 0
    assert client.put(RULES, json={}).json()["drawn"] == {}
    assert not list((folder / "rules").iterdir())
    wait_for(lambda: numbers(client) == {})


def test_a_viewer_who_does_not_track_sees_the_lines_too(client_of: Any) -> None:
    client = client_of()
    picture = dict.fromkeys(("masks", "boxes", "labels", "legend"), False)

    def looks() -> np.ndarray:
        found = cv2.imdecode(
            np.frombuffer(client.get("/v1/streams/walk/snapshot", params=picture).content, np.uint8), cv2.IMREAD_COLOR
        )
        assert found is not None
        return found[4, 30:36].astype(int)  # above the square and beside the label

    plain = looks()
    assert np.abs(plain - 128).max() < 24
    client.put(RULES, json={"lines": [LINE]})
    wait_for(lambda: np.abs(looks() - 128).max() > 60)
    picture["rules"] = False
    wait_for(lambda: np.abs(looks() - plain).max() < 24)


POINTS = [[0.1, 0.1], [0.9, 0.9]]
WRONG: list[tuple[Any, int, str, str | None]] = [
    ({"lines": [{"name": "a", "points": [[0.5, 0.5], [0.5, 0.5]]}]}, 422, "it has no length", "a"),
    ({"lines": [{"name": "a", "points": POINTS}, {"name": "a", "points": POINTS}]}, 422, "two rules are called", "a"),
    ({"zones": [{"name": "z", "points": [[0, 0], [1, 1], [1, 0], [0, 1]]}]}, 422, "crosses itself", "z"),
    ({"zones": [{"name": "z", "points": [[0, 0], [1, 1]]}]}, 422, "at least 3 points", "z"),
    ({"zones": [{"name": "z", "points": [[0, k / 99] for k in range(65)]}]}, 422, "at most 64", "z"),
    ({"lines": [{"name": "a", "points": POINTS, "classes": ["rad"]}]}, 422, "no boxes of 'rad'; did you mean", "a"),
    ({"lines": [{"name": "a", "points": [[0, 0], [640, 480]]}]}, 422, "looks like pixels", "a"),
    ({"lines": [{"name": "a", "points": [[0, 0], [0, 10**400]]}]}, 422, "looks like pixels", "a"),
    ({"lines": [{"name": "a", "points": "no"}]}, 422, "write points as", "a"),
    ({"lines": [{"name": "", "points": POINTS}]}, 422, "name", ""),
    ({"lines": [{"name": "a\nb", "points": POINTS}]}, 422, "name", None),
    ({"lines": [{"points": POINTS}]}, 422, "line 1: name", None),
    ({"lines": ["no"]}, 422, "line 1: it must be a mapping", None),
    ({"lines": [{"name": str(k), "points": POINTS} for k in range(65)]}, 422, "at most 64", None),
    ({"lines": [{"name": "a", "points": POINTS, "wat": 1}]}, 422, "unknown setting 'wat'", "a"),
    ({"lines": {}}, 422, "lines", None),
    ({"curves": []}, 422, "curves", None),
    ([], 422, "", None),
    ("no", 422, "", None),
    (None, 422, "", None),
]


def test_bad_rules_are_one_line_by_name_and_change_nothing(client_of: Any) -> None:
    client = client_of()
    client.put(RULES, json=DRAWN)
    for rules, status, says, name in WRONG:
        answer = client.put(RULES, json=rules)
        assert (answer.status_code, answer.json().get("rule")) == (status, name), (rules, answer.text)
        assert says in answer.json()["error"] and "\n" not in answer.json()["error"], answer.text
    for body, status in ((b"{", 422), (b"[" * 100_000, 400), (b"x" * (1 << 21), 413), (b'{"lines": NaN}', 422)):
        answer = client.put(RULES, content=body, headers={"content-type": "application/json"})
        assert answer.status_code == status, (body[:20], answer.text)
    odd = b'{"lines": [{"name": "\\ud800", "points": [[0, 0], [1, 1]]}]}'
    answer = client.put(RULES, content=odd, headers={"content-type": "application/json"})
    assert answer.status_code == 422 and "rule" not in answer.json()
    assert client.get(RULES).json()["drawn"] == DRAWN
    assert client.put("/v1/streams/nobody/rules", json=DRAWN).status_code == 404
    late = client.put(RULES, json={}, headers={"If-Match": '"0123456789abcdef"'})
    assert late.status_code == 412 and "meanwhile" in late.json()["error"]
    assert client.get(RULES).json()["drawn"] == DRAWN
    foreign = client.put(RULES, json={}, headers={"Origin": "http://elsewhere.example"})
    assert foreign.status_code == 403 and client.get(RULES).json()["drawn"] == DRAWN


def test_the_operator_s_rules_stay_and_drawing_can_be_forbidden(client_of: Any, clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "fixed.yaml"
    path.write_text(json.dumps({"lines": [LINE]}))
    sources = {"walk": {"uri": str(clip), "rules": str(path)}}
    client = client_of(sources=sources)
    assert client.get(RULES).json()["fixed"] == {"lines": [LINE]}
    taken = client.put(RULES, json={"zones": [{**ZONE, "name": "gate"}]})
    assert taken.status_code == 422 and taken.json()["rule"] == "gate" and "operator" in taken.json()["error"]
    assert client.put(RULES, json={"zones": [ZONE]}).status_code == 200
    wait_for(lambda: set(numbers(client)) == {"gate", "yard"})

    client = client_of(sources=sources, draw_rules=False)
    assert client.get(RULES).json()["editable"] is False
    refused = client.put(RULES, json={})
    assert refused.status_code == 403 and "draw-rules" in refused.json()["error"]
    wait_for(lambda: set(numbers(client)) == {"gate", "yard"})


@pytest.mark.parametrize("drawn", [False, True])
def test_events_of_what_is_drawn_go_out_only_where_the_operator_says_so(
    client_of: Any, clip: Path, tmp_path: Path, drawn: bool
) -> None:
    path, events = tmp_path / "fixed.yaml", tmp_path / "events.jsonl"
    path.write_text(json.dumps({"lines": [LINE]}))
    sources = {"walk": {"uri": str(clip), "rules": str(path)}}
    client = client_of(sources=sources, events={"file": str(events), "drawn": drawn, "drain_s": 60})
    client.put(RULES, json={"lines": [{**LINE, "name": "drawn"}]})

    def told() -> list[str]:
        return [json.loads(line)["rule"] for line in events.read_text().splitlines()] if events.exists() else []

    wait_for(lambda: crossed(client, "drawn") >= 2)
    wait_for(lambda: told().count("gate") >= 2)
    if drawn:
        wait_for(lambda: told().count("drawn") >= 2)
    else:
        assert "drawn" not in told()


def test_another_model_that_lacks_what_they_look_at_leaves_them_out(
    client_of: Any, folder: Path, tmp_path: Path
) -> None:
    client = client_of()
    client.put(RULES, json={"lines": [{**LINE, "classes": ["red"]}], "zones": [ZONE]})
    blue = write_model(tmp_path / "blue.onnx", classes=["blue", "white"], detection=True)
    client = client_of(model=str(blue))
    found = client.get(RULES).json()
    assert list(found["faults"]) == ["gate"] and "no boxes of 'red'" in found["faults"]["gate"]
    assert found["drawn"]["lines"] == [{**LINE, "classes": ["red"]}]
    wait_for(lambda: set(numbers(client)) == {"yard"})
    # what is drawn already may stay, in whatever is drawn now
    more = {"lines": [{**LINE, "classes": ["red"]}, {**LINE, "name": "other"}]}
    assert client.put(RULES, json=more).json()["faults"] == found["faults"]
    refused = client.put(RULES, json={"lines": [{**LINE, "classes": ["red"], "hold_s": 1}]})
    assert refused.status_code == 422 and refused.json()["rule"] == "gate"
    client.put(RULES, json=DRAWN)
    masks = write_model(tmp_path / "masks.onnx")
    client = client_of(model=str(masks), stages=[])
    assert set(client.get(RULES).json()["faults"]) == {"gate", "yard"}
    answer = client.put(RULES, json={"lines": [{**LINE, "name": "new"}]})
    assert answer.status_code == 422 and "needs boxes" in answer.json()["error"]


def test_a_saved_file_that_is_damaged_is_left_out(client_of: Any, folder: Path, caplog: Any) -> None:
    client = client_of()
    client.put(RULES, json=DRAWN)
    [kept] = (folder / "rules").iterdir()
    kept.write_bytes(b'{"lines": [{"name"')
    client = client_of()
    assert client.get(RULES).json()["drawn"] == {}
    assert any("saved rules are left out" in record.getMessage() for record in caplog.records)
    kept.unlink()
    (folder / "rules").rmdir()
    (folder / "rules").write_bytes(b"in the way")
    answer = client.put(RULES, json=DRAWN)
    assert answer.status_code == 507 and str(folder) not in answer.text
    assert client.get(RULES).json()["drawn"] == {}


@pytest.fixture(scope="module")
def webcam_url(make: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    write_model(tmp_path_factory.getbasetemp() / "other.onnx")
    with served(create_app(make())) as address, httpx.Client(base_url=f"http://{address}", timeout=60) as client:
        wait_until_ready(client, 300)
        yield f"ws://{address}/v1/webcam"


def ask(client: ClientConnection, message: bytes | dict[str, Any]) -> tuple[list[dict[str, Any]], Any]:
    """What is said before the answer, and the answer: a result where it is binary."""
    client.send(json.dumps(message) if isinstance(message, dict) else message)
    said: list[dict[str, Any]] = []
    while True:
        answer = client.recv(timeout=60)
        if isinstance(answer, bytes):
            return said, unpack(answer)
        read = json.loads(answer)
        if read["type"] != "readings":
            return said, read
        said.append(read)


def test_a_webcam_has_rules_of_its_own_connection(webcam_url: str) -> None:
    big = square((128, 96))
    with connect(webcam_url, open_timeout=30, close_timeout=30) as client:
        told = {"type": "drawn", "faults": {}}
        assert ask(client, {"draw": {**DRAWN, "zones": [{**ZONE, "hold_s": 0}]}}) == ([], told)
        for number in range(1, 21):
            said, result = ask(client, frame(number, big))
            assert result.number == number and [each["frame"] for each in said] == [number]
            if number == 10:
                # settings of another kind change nothing of it
                ready = ask(client, {"map_cells": 0})[1]
                assert ready["type"] == "ready" and ready["faults"] == {}
        assert result.detections.track_ids.tolist() == [1]  # lines need tracks
        assert said[0]["rules"]["yard"]["inside"] == 1 and said[0]["active"] == ["yard"]
        last = said[0]["rules"]
        assert set(last) == {"gate", "yard"}
        for wrong, text, name in (
            ({"lines": [LINE, LINE]}, "two rules are called 'gate'", "gate"),
            ({"zones": [{**ZONE, "classes": "rad"}]}, "no boxes of 'rad'", "yard"),
            ({"curves": []}, "curves", None),
            ([], "mapping", None),
        ):
            answer = ask(client, {"draw": wrong})[1]
            assert answer["type"] == "refused" and text in answer["error"]
            assert answer.get("rule") == name
        assert "draw" in ask(client, {"draw": {}, "score": 0.5})[1]["error"]
        assert set(ask(client, frame(100, big))[0][0]["rules"]) == {"gate", "yard"}
        assert ask(client, {"draw": {}})[1] == told
        assert ask(client, frame(101, big))[0] == []
    with connect(webcam_url, open_timeout=30, close_timeout=30) as client:
        assert ask(client, frame(1, big))[0] == []


def test_drawing_is_a_switch_of_the_operator_s_file() -> None:
    from perception.server.settings import make_settings

    assert make_settings({}).draw_rules is True
    with pytest.raises(UsageError, match="draw_rules"):
        make_settings({"draw_rules": "perhaps"})
