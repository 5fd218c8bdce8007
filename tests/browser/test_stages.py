"""A stage that the operator's file of settings names is seen in the page, and the panoptic view can be chosen there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from perception.server.app import create_app
from perception.server.settings import make_settings, read_settings
from tests.browser.conftest import SQUARE_XYXY, Site, choose, pages, results, scene, set_slider, start_camera
from tests.media import make_video
from tests.models import write_model
from tests.own_stages import own_stages
from tests.server.served import served
from tests.server.waiting import wait_for

X, TOP = (SQUARE_XYXY[0] + SQUARE_XYXY[2]) // 2, SQUARE_XYXY[1]

PIXELS = """([selector, x, y, width, height]) => {
  const shown = document.querySelector(selector);
  const canvas = Object.assign(document.createElement("canvas"), { width: 640, height: 480 });
  const context = canvas.getContext("2d");
  context.drawImage(shown, 0, 0, 640, 480);
  return [...context.getImageData(x, y, width, height).data];
}"""


def pixels(page: Any, selector: str, x: int, y: int, width: int, height: int) -> np.ndarray:
    """RGB of a part of what is shown, ``[height, width, 3]``."""
    data = page.evaluate(PIXELS, [selector, x, y, width, height])
    return np.array(data, np.int64).reshape(height, width, 4)[:, :, :3]


def whitest(region: np.ndarray) -> int:
    """The darkest channel of the whitest pixel: class colours have one of 0, and half of one on gray of 80."""
    return int(region.min(axis=2).max())


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server whose settings are a file that names a stage, which puts one red box around the left half."""
    folder = tmp_path_factory.mktemp("staged")
    video = make_video(
        folder / "square.mp4", images=[scene()] * 50, size_wh=(640, 480), options={"preset": "ultrafast"}
    )
    model = write_model(folder / "colors.onnx", detection=True, classes=4)
    path = folder / "live.yaml"
    path.write_text(
        f"model: {model}\ndata-dir: {folder / 'data'}\nsources: {{street: {video}}}\nstages: ['stages_of_page:mark']\n"
    )
    with own_stages(folder, "stages_of_page"):
        app = create_app(make_settings(read_settings(path), path))
        with served(app) as address:
            yield Site(f"http://{address}/", app.state.service, video)


@pytest.fixture
def staged_page(browser: Any, staged: Site) -> Iterator[Any]:
    with pages(browser, staged) as open_one:
        yield open_one()


def test_a_stage_of_the_settings_is_seen_in_the_page(staged_page: Any) -> None:
    page = staged_page
    page.wait_for_function("() => window.perception.live.parts.video.currentTime > 0.5")

    def edge() -> bool:
        """A red line down the middle, where the stage's box ends, and none around the square."""
        line = pixels(page, ".pv-video", 312, 300, 16, 40).astype(int)
        red = (line[:, :, 0] > 150) & (line[:, :, 1] < 110)
        return bool(red.any(axis=1).all())

    wait_for(edge)
    page.wait_for_function("() => window.perception.live.status?.boxes === 1")


def test_a_stage_is_seen_over_the_camera_of_the_browser(staged_page: Any) -> None:
    page = staged_page
    start_camera(page)
    page.wait_for_function("() => window.perception.live.result?.classIds.length === 1")
    box = page.evaluate("[...window.perception.live.result.boxes, ...window.perception.live.result.classIds]")
    width, height = page.evaluate("[window.perception.live.result.width, window.perception.live.result.height]")
    assert box == [0, 0, width // 2, height, 0]
    assert "red" in page.locator(".pv-legend").inner_text()


def test_the_panoptic_view_of_a_stream(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.wait_for_function("() => window.perception.live.parts.video.currentTime > 0.5")
    set_slider(page, "pv-opacity", "0")  # gray and blue, and what is drawn
    region = (X - 20, TOP - 6, 40, 12)
    wait_for(lambda: whitest(pixels(page, ".pv-video", 80, 400, 8, 8)) > 130)
    wait_for(lambda: whitest(pixels(page, ".pv-video", *region)) < 190)
    page.locator("#pv-view").get_by_label("outlines (panoptic)").check()
    wait_for(lambda: whitest(pixels(page, ".pv-video", *region)) > 210)  # the rim of an outline
    with page.expect_download() as download:
        page.get_by_role("button", name="Snapshot").click()
    shown = cv2.imread(str(download.value.path()))
    assert whitest(shown[TOP - 6 : TOP + 6, X - 20 : X + 20].astype(int)) > 230
    page.locator("#pv-view").get_by_label("boxes").check()
    wait_for(lambda: whitest(pixels(page, ".pv-video", *region)) < 190)


def test_the_panoptic_view_of_a_picture_and_of_a_video(
    open_page: Callable[..., Any], site: Site, tmp_path: Path
) -> None:
    page = open_page()
    cv2.imwrite(str(tmp_path / "square.png"), scene())
    page.locator("#pv-view").get_by_label("outlines (panoptic)").check()
    page.get_by_role("tab", name="Picture").click()
    page.locator("#pv-picture .pv-file").set_input_files(str(tmp_path / "square.png"))
    page.wait_for_function("() => document.querySelector('.pv-after').naturalWidth === 640")
    assert whitest(pixels(page, ".pv-after", X - 20, TOP - 6, 40, 12)) > 230
    page.locator("#pv-view").get_by_label("boxes").check()
    wait_for(lambda: whitest(pixels(page, ".pv-after", X - 20, TOP - 6, 40, 12)) < 190)
    page.locator("#pv-view").get_by_label("outlines (panoptic)").check()
    page.get_by_role("tab", name="Video").click()
    page.locator("#pv-video .pv-file").set_input_files(str(site.video))
    with page.expect_request(lambda asked: "/v1/jobs?" in asked.url) as sent:
        page.locator("#pv-video").get_by_role("button", name="Annotate", exact=True).click()
    assert "view=panoptic" in sent.value.url
    page.locator("#pv-video .pv-result").wait_for()


def test_the_camera_of_the_browser_goes_on_with_boxes(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.locator("#pv-view").get_by_label("outlines (panoptic)").check()
    start_camera(page)
    results(page, 3)
    assert page.locator(".pv-note").inner_text() == ""


def test_the_view_is_offered_where_the_model_has_masks_and_boxes(open_page: Callable[..., Any], site: Site) -> None:
    page = open_page()
    page.locator("#pv-view").wait_for()
    choose(page, "pv-model", "camvid")
    page.locator("#pv-view").wait_for(state="hidden")
    choose(page, "pv-model", "colors")
    page.locator("#pv-view").wait_for()
