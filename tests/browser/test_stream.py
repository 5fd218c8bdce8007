"""A source of the server's on the Live tab: video that plays, options that reach it, files that are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from tests.browser.conftest import SQUARE_XYXY, Site, choose, pages, recording_shown, set_slider
from tests.server.waiting import wait_for

X, Y = (SQUARE_XYXY[0] + SQUARE_XYXY[2]) // 2, (SQUARE_XYXY[1] + SQUARE_XYXY[3]) // 2
BLUE, HALF_YELLOW = (255, 0, 0), (80, 207, 207)  # BGR

COLOR_SHOWN = """([selector, x, y]) => {
  const shown = document.querySelector(selector);
  const canvas = Object.assign(document.createElement("canvas"), { width: 640, height: 480 });
  const context = canvas.getContext("2d");
  context.drawImage(shown, 0, 0, 640, 480);
  return [...context.getImageData(x, y, 1, 1).data].slice(0, 3).reverse();
}"""


@pytest.fixture(scope="module")
def page(browser: Any, site: Site) -> Iterator[Any]:
    """One page, as it opens, for all tests; each leaves it as it found it."""
    with pages(browser, site) as open_one:
        yield open_one()


def wait_for_picture(page: Any) -> None:
    """Until the annotated video plays on and its figures are shown."""
    page.wait_for_function("() => window.perception.live.parts.video.currentTime > 0.5")
    # Where the page has jumped to what is live there is nothing to see, until that is decoded.
    page.wait_for_function("() => window.perception.live.parts.video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA")
    page.wait_for_function("() => window.perception.live.status?.state === 'running'")


def background(page: Any) -> np.ndarray:
    """BGR of the video far from the square."""
    return np.array(page.evaluate(COLOR_SHOWN, [".pv-video", 80, 400]))


def test_the_first_source_of_the_operator_plays_by_itself(page: Any) -> None:
    wait_for_picture(page)
    wait_for(lambda: np.abs(np.array(page.evaluate(COLOR_SHOWN, [".pv-video", X, Y])) - BLUE).max() < 40)
    wait_for(lambda: np.abs(background(page) - HALF_YELLOW).max() < 40)
    legend = page.locator(".pv-legend").inner_text().split()
    assert legend[0] == "yellow" and "blue" in legend
    page.wait_for_function("() => parseFloat(document.querySelector('.pv-fps').innerText) > 0")
    assert "ms" in page.locator(".pv-p50").inner_text()
    assert "colors" in page.locator(".pv-engine").inner_text()


def test_opacity_and_classes_reach_the_stream_without_starting_anew(page: Any) -> None:
    wait_for_picture(page)
    page.evaluate("window.kept = window.perception.live.view.mediaSource")
    set_slider(page, "pv-opacity", "0")
    gray = f"() => Math.abs(({COLOR_SHOWN})(['.pv-video', 80, 400])[0] - 160) < 20"
    page.wait_for_function(gray)
    set_slider(page, "pv-opacity", "1")
    page.wait_for_function(f"() => ({COLOR_SHOWN})(['.pv-video', 80, 400])[0] < 40")
    page.locator(".pv-chip", has_text="yellow").click()
    page.wait_for_function(gray)
    assert page.evaluate("window.kept === window.perception.live.view.mediaSource")
    page.locator(".pv-chip", has_text="yellow").click()
    set_slider(page, "pv-opacity", "0.5")


def test_pause_and_go_on(page: Any) -> None:
    wait_for_picture(page)
    page.get_by_role("button", name="Pause").click()
    page.wait_for_timeout(500)
    at = page.evaluate("window.perception.live.parts.video.currentTime")
    page.wait_for_timeout(700)
    assert page.evaluate("window.perception.live.parts.video.currentTime") == at
    page.get_by_role("button", name="Resume").click()
    wait_for_picture(page)


def test_motion_jpeg_where_the_browser_plays_no_segments(page: Any) -> None:
    page.evaluate("window.perception.settings.transport = 'mjpeg'; window.perception.live.start()")
    page.wait_for_function("() => window.perception.live.parts.image.naturalWidth === 640")
    assert np.abs(np.array(page.evaluate(COLOR_SHOWN, [".pv-image", X, Y])) - BLUE).max() < 40
    page.wait_for_function("() => window.perception.live.status?.state === 'running'")
    page.get_by_role("button", name="Pause").click()
    page.wait_for_function("() => window.perception.live.parts.image.src.startsWith('data:')")
    page.evaluate("window.perception.settings.transport = ''; window.perception.live.start()")


def test_motion_jpeg_that_stands_still_is_connected_again(page: Any, site: Site) -> None:
    """To a browser its last picture is as good as any: no event says that the stream is gone."""
    page.evaluate("window.perception.settings.transport = 'mjpeg'; window.perception.live.start()")
    page.wait_for_function("() => window.perception.live.parts.image.naturalWidth === 640")
    wait_for(lambda: site.service.streams.get("street").viewers == 1)
    before = site.service.streams.get("street")
    page.evaluate("fetch('v1/streams/street', { method: 'DELETE' })")
    wait_for(lambda: before.over)
    wait_for(lambda: [(s.id, s.viewers) for s in site.service.streams.streams] == [("street", 1)])
    assert site.service.streams.get("street") is not before
    page.wait_for_function("() => document.querySelector('.pv-state').innerText === 'running'")
    page.evaluate("window.perception.settings.transport = ''; window.perception.live.start()")


def test_snapshot_and_recording(page: Any, tmp_path: Path) -> None:
    wait_for_picture(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Snapshot").click()
    image = cv2.imread(str(download.value.path()))
    assert image.shape == (480, 640, 3)
    assert np.abs(image[Y, X].astype(int) - BLUE).max() < 30
    page.get_by_role("button", name="Record").click()
    page.get_by_role("button", name="Stop recording").wait_for()
    recording_shown(page)
    page.wait_for_timeout(2000)
    with page.expect_download() as download:
        page.get_by_role("button", name="Stop recording").click()
    path = tmp_path / "recording.mp4"
    download.value.save_as(path)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    assert len(frames) >= 5
    assert np.abs(frames[-1][Y, X].astype(int) - BLUE).max() < 60


def test_a_recording_ends_with_the_page_or_its_source(page: Any, site: Site) -> None:
    wait_for_picture(page)
    states = lambda: [r.state for r in site.service.streams.recordings._recordings.values()]  # noqa: E731
    before = len(states())
    for leave in ("window.perception.live.select()", "location.reload()"):
        page.get_by_role("button", name="Record").click()
        page.get_by_role("button", name="Stop recording").wait_for()
        page.wait_for_timeout(1000)
        page.evaluate(leave)
        wait_for(lambda: "recording" not in states())
        page.wait_for_function("() => window.perception?.live")
        wait_for_picture(page)
    assert states()[before:] == ["finished", "finished"]


def test_a_lost_connection_comes_back(page: Any) -> None:
    wait_for_picture(page)
    page.evaluate("window.perception.live.view.socket.close()")
    page.wait_for_function("() => document.querySelector('.pv-state').innerText.startsWith('reconnecting')")
    page.wait_for_function("() => document.querySelector('.pv-state').innerText === 'running'")
    page.evaluate("window.at = window.perception.live.parts.video.currentTime")
    page.wait_for_function("() => window.perception.live.parts.video.currentTime !== window.at")


def test_an_address_that_is_not_allowed_is_refused_in_words(page: Any) -> None:
    choose(page, "pv-source", "stream URL")
    page.fill("#pv-url", "rtsp://elsewhere.test/1")
    page.press("#pv-url", "Enter")
    page.wait_for_function("() => /allow/.test(document.querySelector('.pv-message p').innerText)")
