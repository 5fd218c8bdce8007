"""Explanations over HTTP: the map is that of `perception.explain`, and nothing else waits for it."""

from __future__ import annotations

import importlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

import cv2
import httpx
import numpy as np
import psutil
import pytest

from perception.server.inference import explain_process
from perception.server.inference.explain_process import MAX_SIDE, METHODS
from tests.fixtures import skip_without
from tests.models import PALETTE

skip_without("torch", "torch is not installed (extra train)")
skip_without("captum", "captum is not installed (extra train)")

pytestmark = pytest.mark.timeout(400)


def scene(width: int = 64, height: int = 48) -> np.ndarray:
    """Gray with a red square in the second cell of the second row."""
    image = np.full((48, 64, 3), 128, np.uint8)
    image[16:32, 16:32] = PALETTE["red"][::-1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST)


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def ask(client: httpx.Client, image: bytes, timeout: float = 300, **params: object) -> httpx.Response:
    headers = {"content-type": "image/png"}
    return client.post("/v1/explain", content=image, headers=headers, params=params, timeout=timeout)


def workers() -> list[psutil.Process]:
    """The processes that explain now."""
    found = []
    for child in psutil.Process().children():
        try:
            if any(explain_process.__name__ in part for part in child.cmdline()):
                found.append(child)
        except psutil.Error:  # it has just ended
            pass
    return found


def until_none(seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while workers():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_map_is_the_networks(server: httpx.Client, colors: Path) -> None:
    explain = importlib.import_module("perception.explain.maps").explain
    image = scene()
    answer = ask(server, png(image), class_name="red", task="segmentation", method="gradient")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    expected = explain(colors, image, class_name="red", task="segmentation", method="gradient")
    assert unquote(answer.headers["x-explained"]) == expected.what
    made = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(made, expected.picture())


def test_a_point_of_a_large_picture(server: httpx.Client) -> None:
    """It is made smaller, and the point moves along."""
    scale = 40
    assert 64 * scale > MAX_SIDE
    large = scene(64 * scale, 48 * scale)
    large[-200:] = np.random.default_rng(0).integers(0, 256, large[-200:].shape)
    image = png(large)  # also more bytes than a pipe holds
    assert len(image) > 1 << 20
    answer = ask(server, image, x=24.5 * scale, y=24.5 * scale, task="detection", method="gradient")
    assert answer.status_code == 200, answer.text
    assert unquote(answer.headers["x-explained"]).startswith("red box")
    made = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert made.shape == (MAX_SIDE * 3 // 4, MAX_SIDE, 3)
    beside = ask(server, image, x=64 * scale, y=5)
    assert beside.status_code == 422
    assert f"outside the picture of {64 * scale}x{48 * scale}" in beside.json()["error"]


@pytest.mark.parametrize(
    ("params", "status", "says"),
    [
        ({"class_name": "unicorn"}, 422, "no class 'unicorn'"),
        ({"method": "tea leaves"}, 422, "method"),
        ({"x": 3}, 422, "both or neither"),
        ({"x": -1, "y": 2}, 422, "x"),
        ({"model": "nothing"}, 404, "nothing"),
        ({"model": "/etc/passwd"}, 404, "no model"),
    ],
    ids=range(6),
)
def test_what_is_refused(server: httpx.Client, params: dict, status: int, says: str) -> None:
    answer = ask(server, png(scene()), **params)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    assert says in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def test_limits_are_those_of_pictures(server: httpx.Client) -> None:
    before = workers()
    assert ask(server, b"").status_code == 422
    assert ask(server, b"no picture").status_code == 422
    wide = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (65_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0" + bytes(4)
    assert ask(server, wide).status_code in (413, 422)
    assert workers() == before == []


def test_one_at_a_time_and_nothing_waits_for_it(server: httpx.Client) -> None:
    """Who leaves ends it, too."""
    with ThreadPoolExecutor(1) as pool:
        begun = threading.Event()

        def leave() -> None:
            begun.set()
            with pytest.raises(httpx.ReadTimeout):
                ask(server, png(scene()), timeout=1.5, method="occlusion")

        leaving = pool.submit(leave)
        begun.wait()
        end = time.monotonic() + 60
        while not workers() and not leaving.done():
            assert time.monotonic() < end
            time.sleep(0.01)
        assert workers()
        busy = ask(server, png(scene()))
        assert busy.status_code == 503
        assert int(busy.headers["retry-after"]) >= 1
        assert "too many explanations" in busy.json()["error"]
        assert server.get("/healthz").status_code == 200
        seen = server.post("/v1/predict", content=png(scene()), headers={"content-type": "image/png"})
        assert seen.status_code == 200
        leaving.result(60)
    until_none()
    end = time.monotonic() + 60
    while (again := ask(server, png(scene()), model="nothing")).status_code == 503:  # until the place is free again
        assert time.monotonic() < end
        time.sleep(0.1)
    assert again.status_code == 404


def test_without_torch_it_says_how_to_get_it(server: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain_process, "NEEDED", ("numpy", "a_package_that_is_not_there"))
    answer = ask(server, png(scene()))
    assert answer.status_code == 501
    said = answer.json()["error"]
    assert said.startswith("explanations need a_package_that_is_not_there; install them with: pip install '")
    assert "perception" not in said


def test_a_process_that_dies_is_told(
    server: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(explain_process, "__name__", "a_module_that_is_not_there")
    answer = ask(server, png(scene()))
    assert answer.status_code == 503
    assert "log" in answer.json()["error"]
    assert "a_module_that_is_not_there" in caplog.text


def test_one_that_takes_too_long_is_ended(server: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain_process, "TIMEOUT_S", 0.3)
    answer = ask(server, png(scene()))
    assert answer.status_code == 503
    assert "longer than 0.3 s" in answer.json()["error"]
    assert workers() == []


def test_methods_are_those_that_there_are() -> None:
    assert importlib.import_module("perception.explain.maps").METHODS == METHODS
