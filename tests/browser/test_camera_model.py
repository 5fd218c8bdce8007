"""Before a camera the page takes the model for that; what somebody chooses instead is remembered by kind of source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception.server.app import create_app
from perception.server.settings import make_settings
from tests.browser.conftest import Site, choose, launched, pages, results, scene, start_camera
from tests.media import make_video
from tests.models import write_model
from tests.server.served import served

ROOM = {"red": "person", "blue": "furniture", "yellow": "wall", "green": "plant"}
STREET = {"red": "car", "blue": "sky", "yellow": "road", "green": "tree"}
SELECTED = "document.querySelector('#pv-model').value"


def person_clip() -> list[np.ndarray]:
    """A person (red) walks through a room (gray, which is nearest to its walls): uint8 ``[480, 640, 3]`` BGR each."""
    return [np.roll(scene("red"), 8 * step, axis=1) for step in range(-8, 8)]


def write_y4m(path: Path, images: list[np.ndarray], fps: int = 10) -> Path:
    """Uncompressed video, YUV 4:2:0, as Chromium's fake camera takes it (full range is not known there)."""
    height, width = images[0].shape[:2]
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F{fps}:1 Ip A1:1 C420mpeg2\n".encode())
        for image in images:
            blue, green, red = (image[..., i].astype(np.float64) for i in range(3))
            planes = (  # ITU-R BT.601, studio range
                16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255,
                128 + (-37.797 * red - 74.203 * green + 112 * blue) / 255,
                128 + (112 * red - 93.786 * green - 18.214 * blue) / 255,
            )
            file.write(b"FRAME\n")
            for number, plane in enumerate(planes):
                small = plane if number == 0 else plane.reshape(height // 2, 2, width // 2, 2).mean((1, 3))
                file.write(small.round().astype(np.uint8).tobytes())
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server whose default model knows streets, and another among the user's own that is for cameras."""
    folder = tmp_path_factory.mktemp("rooms")
    (folder / "perception" / "models").mkdir(parents=True)
    write_model(folder / "perception" / "models" / "rooms.onnx", detection=True, classes=4, called=ROOM, name="rooms")
    model = write_model(folder / "outside.onnx", detection=True, classes=4, called=STREET, name="outside")
    video = make_video(folder / "square.mp4", images=[scene()] * 50, size_wh=(640, 480))
    values = {
        "model": str(model), "camera_model": "rooms", "data_dir": folder / "data", "sources": {"street": str(video)}
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder))
        app = create_app(make_settings(values))
        with served(app) as address:
            yield Site(f"http://{address}/", app.state.service, video)


@pytest.fixture(scope="module")
def page(driver: Any, site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A page whose camera shows the clip of the person."""
    clip = write_y4m(tmp_path_factory.mktemp("clip") / "person.y4m", person_clip())
    with launched(driver, clip) as browser, pages(browser, site) as open_one:
        yield open_one()


def legend_says(page: Any, *words: str) -> None:
    page.wait_for_function(
        "(words) => words.every((word) => document.querySelector('.pv-legend')?.innerText.includes(word))",
        arg=list(words),
    )


def test_a_camera_begins_with_its_model_and_a_choice_is_remembered_by_source(page: Any) -> None:
    assert page.evaluate(SELECTED) == "outside"  # the server's clip
    start_camera(page)
    assert page.evaluate(SELECTED) == "rooms"
    legend_says(page, "person", "wall")
    shown = page.locator(".pv-legend").inner_text()
    assert not any(name in shown for name in STREET.values()), shown
    page.wait_for_function("() => window.perception.live.result.scores.length === 1")
    assert page.evaluate("window.perception.live.view.model.model") == "rooms"

    choose(page, "pv-source", "street")
    page.wait_for_function(f"() => {SELECTED} === 'outside'")
    choose(page, "pv-source", "this browser's camera")
    page.wait_for_function(f"() => {SELECTED} === 'rooms'")

    choose(page, "pv-model", "outside")
    page.click(".pv-start")
    results(page, 3)
    legend_says(page, "car", "road")
    choose(page, "pv-source", "street")
    choose(page, "pv-model", "rooms")
    for _ in range(2):
        page.reload()
        page.wait_for_function("() => window.perception?.live")
        choose(page, "pv-source", "street")
        page.wait_for_function(f"() => {SELECTED} === 'rooms'")
        choose(page, "pv-source", "this browser's camera")
        page.wait_for_function(f"() => {SELECTED} === 'outside'")
    page.click(".pv-start")
    legend_says(page, "car", "road")
