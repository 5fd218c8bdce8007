"""The browser's own camera on the Live tab: results at the right place, controls that act, files that are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from tests.browser.conftest import (
    SQUARE_XYXY,
    Site,
    choose,
    overlay_at,
    pages,
    recording_shown,
    results,
    scene,
    set_slider,
    start_camera,
)

CENTER = (400 / 640, 240 / 480)  # of the square, unmirrored
MIRRORED = (1 - CENTER[0], CENTER[1])
BLUE, YELLOW = (0, 0, 255), (255, 255, 0)
HALF_YELLOW = (80, 207, 207)  # BGR, over gray


def near(pixel: list[int], rgb: tuple[int, int, int], opacity: float) -> bool:
    """Colours that are not opaque lose some bits in a canvas."""
    return abs(pixel[3] - 255 * opacity) < 6 and all(abs(a - b) < 12 for a, b in zip(pixel, rgb, strict=False))


@pytest.fixture(scope="module")
def page(browser: Any, site: Site) -> Iterator[Any]:
    """One page with the camera running, for all tests that leave it as they found it."""
    with pages(browser, site) as open_one:
        opened = open_one()
        start_camera(opened)
        yield opened


def check_places(page: Any) -> None:
    """Mask and box lie over the square, mirrored as the picture is; leaves it unmirrored."""
    assert near(overlay_at(page, *MIRRORED), BLUE, 0.5)
    assert near(overlay_at(page, *CENTER), YELLOW, 0.5)  # of the four colours the nearest to gray
    page.click("#pv-mirror input")
    results(page, 2)
    assert near(overlay_at(page, *CENTER), BLUE, 0.5)
    assert near(overlay_at(page, *MIRRORED), YELLOW, 0.5)
    box = page.evaluate("[...window.perception.live.result.boxes]")
    scale = 640 / page.evaluate("window.perception.live.result.width")
    assert np.allclose(np.array(box) * scale, SQUARE_XYXY, atol=4)
    left = (SQUARE_XYXY[0] + 1) / 640  # on the box's own line
    assert near(overlay_at(page, left, CENTER[1]), BLUE, 1)
    stage = page.locator(".pv-stage").bounding_box()
    assert stage["width"] / stage["height"] == pytest.approx(4 / 3, rel=0.01)


def test_mask_and_box_lie_where_the_square_is(page: Any) -> None:
    check_places(page)
    page.click("#pv-mirror input")
    results(page, 2)


def test_boxes_are_followed_until_the_switch_is_off(page: Any) -> None:
    tracks = "[...window.perception.live.result.trackIds]"
    page.wait_for_function(f"() => String({tracks}) === '1'")
    results(page, 5)
    assert page.evaluate(tracks) == [1]
    page.click("#pv-track input")
    page.wait_for_function(f"() => {tracks}.length === 0 && window.perception.live.result.scores.length === 1")
    page.click("#pv-track input")
    page.wait_for_function(f"() => {tracks}.length === 1")


def test_the_same_on_a_phone(open_page: Callable[..., Any]) -> None:
    page = open_page((390, 844))
    start_camera(page)
    check_places(page)


def test_controls_act_on_what_is_drawn(page: Any) -> None:
    set_slider(page, "pv-opacity", "0.2")
    results(page, 2)
    assert near(overlay_at(page, *MIRRORED), BLUE, 0.2)
    page.get_by_label("Masks").uncheck()
    results(page, 2)
    assert overlay_at(page, *MIRRORED)[3] == 0
    page.get_by_label("Masks").check()
    page.get_by_label("Legend").uncheck()
    page.wait_for_function("() => !document.querySelector('.pv-legend li')")
    page.get_by_label("Legend").check()
    page.wait_for_selector(".pv-legend li")
    set_slider(page, "pv-opacity", "0.5")


def test_confidence_goes_to_the_server_and_acts_on_the_next_frames(page: Any) -> None:
    assert page.evaluate("window.perception.live.result.scores.length") == 1
    set_slider(page, "pv-score", "1")
    page.wait_for_function("() => window.perception.live.result.scores.length === 0")
    set_slider(page, "pv-score", "0.3")
    page.wait_for_function("() => window.perception.live.result.scores.length === 1")


def test_classes_on_and_off_and_the_legend_of_what_is_in_view(page: Any, site: Site) -> None:
    page.wait_for_function("() => document.querySelector('.pv-legend')?.innerText.includes('×1')")
    words = page.locator(".pv-legend").inner_text().split()
    assert [words[0], words[2], words[4:]] == ["yellow", "blue", ["×1"]]
    shares = site.service.models.scheduler().model.predict(scene()).class_map.shares
    assert int(words[1][:-1]) == pytest.approx(100 * shares[3], abs=1.5)
    assert int(words[3][:-1]) == pytest.approx(100 * shares[2], abs=1.5)
    page.locator(".pv-chip", has_text="blue").click()
    results(page, 2)
    assert overlay_at(page, *MIRRORED)[3] == 0 and near(overlay_at(page, *CENTER), YELLOW, 0.5)
    page.wait_for_function("() => !document.querySelector('.pv-legend').innerText.includes('blue')")
    page.get_by_role("button", name="none").click()
    results(page, 2)
    assert overlay_at(page, *CENTER)[3] == 0
    page.get_by_role("button", name="all").click()
    results(page, 2)
    assert near(overlay_at(page, *MIRRORED), BLUE, 0.5)


def test_pause(page: Any) -> None:
    page.get_by_role("button", name="Pause").click()
    page.wait_for_timeout(1000)  # what is in flight still comes, and the picture that stands still
    total = page.evaluate("window.perception.live.statistics.total")
    page.wait_for_timeout(1000)
    assert page.evaluate("window.perception.live.statistics.total") == total
    assert near(overlay_at(page, *MIRRORED), BLUE, 0.5)
    page.get_by_role("button", name="Resume").click()
    results(page, 3)


def test_snapshot_is_the_picture_with_the_results_over_it(page: Any) -> None:
    with page.expect_download() as download:
        page.get_by_role("button", name="Snapshot").click()
    image = cv2.imread(str(download.value.path()))
    assert download.value.suggested_filename.endswith(".png") and image.shape == (480, 640, 3)
    x, y = (np.array(MIRRORED) * (640, 480)).astype(int)
    assert np.abs(image[y, x].astype(int) - (255, 0, 0)).max() < 30  # blue over blue
    x, y = (np.array(CENTER) * (640, 480)).astype(int)
    assert np.abs(image[y, x].astype(int) - HALF_YELLOW).max() < 30


def test_record(page: Any, tmp_path: Path) -> None:
    page.get_by_role("button", name="Record").click()
    recording_shown(page)
    page.wait_for_timeout(2500)
    with page.expect_download() as download:
        page.get_by_role("button", name="Stop recording").click()
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    assert len(frames) >= 5 and frames[-1].shape == (480, 640, 3)
    x, y = (np.array(MIRRORED) * (640, 480)).astype(int)
    assert np.abs(frames[-1][y, x].astype(int) - (255, 0, 0)).max() < 60


def test_what_is_recorded_is_kept_when_the_source_goes(page: Any) -> None:
    page.get_by_role("button", name="Record").click()
    page.wait_for_timeout(1500)
    with page.expect_download() as download:
        page.evaluate("window.perception.live.view.stream.getVideoTracks()[0].dispatchEvent(new Event('ended'))")
    assert download.value.path().stat().st_size > 1000
    assert page.evaluate("window.perception.live.recording") is None
    assert page.locator(".pv-record").inner_text() == "Record"
    page.get_by_role("button", name="Try again").click()
    results(page, 3)


def test_an_answer_of_the_model_before_is_not_taken_for_one_of_the_new_one(page: Any) -> None:
    page.evaluate(
        """() => new Promise((done) => { const { live } = window.perception; const { view } = live;
        const receive = view.socket.onmessage;
        view.socket.onmessage = (message) => {
          if (message.data instanceof ArrayBuffer) {
            view.socket.onmessage = receive;
            const other = { ...view.model, model: "other", detection: [] };
            view.pump = () => {}; // no frame is sent that the server would answer with boxes that "other" has not
            receive({ data: JSON.stringify({ type: "ready", ...other }) });
            window.drawn = live.statistics.total;
            receive(message);
            window.drawn = live.statistics.total - window.drawn;
            live.redraw();
            live.showLegend();
            view.configure(); // what is true again
            done();
          } else receive(message);
        }; })"""
    )
    assert page.evaluate("window.drawn") == 0
    page.wait_for_function("() => window.perception.live.view.model.model !== 'other'")
    page.evaluate("() => { delete window.perception.live.view.pump; window.perception.live.view.pump(); }")
    results(page, 3)


def test_a_setting_acts_on_a_paused_picture_though_the_server_hung_up(page: Any) -> None:
    page.get_by_role("button", name="Pause").click()
    page.evaluate(
        """() => { const { view } = window.perception.live; view.asleep = true;
        view.socket.onclose = null; view.socket.close(); }"""
    )
    total = page.evaluate("window.perception.live.statistics.total")
    set_slider(page, "pv-score", "1")
    page.wait_for_function(f"() => window.perception.live.statistics.total > {total}")
    page.wait_for_function("() => window.perception.live.result.scores.length === 0")
    page.reload()
    page.wait_for_function("() => window.perception?.live")
    start_camera(page)


def test_a_camera_that_is_denied_is_said_in_words(open_page: Callable[..., Any]) -> None:
    page = open_page(camera=False)
    choose(page, "pv-source", "this browser's camera")
    page.click(".pv-start")
    page.wait_for_function("() => document.querySelector('.pv-message').innerText.includes('denied')")
    assert page.get_by_role("button", name="Try again").is_visible()


def test_a_camera_that_is_unplugged(page: Any) -> None:
    page.evaluate("window.perception.live.view.stream.getVideoTracks()[0].dispatchEvent(new Event('ended'))")
    page.wait_for_function("() => document.querySelector('.pv-message').innerText.includes('disconnected')")
    page.get_by_role("button", name="Try again").click()
    results(page, 3)


def test_a_second_frame_goes_where_the_way_is_long_and_only_there(open_page: Callable[..., Any]) -> None:
    page = open_page()
    start_camera(page)
    page.evaluate(
        """() => { const { view } = window.perception.live; const { socket, pacing } = view; window.sends = [];
        const send = socket.send.bind(socket); const receive = socket.onmessage;
        socket.send = (m) => { window.sends.push([pacing.inFlight.size, pacing.aloneMs / pacing.frameMs]); send(m); };
        socket.onmessage = (m) => setTimeout(() => receive(m), window.delay ?? 0); }"""
    )
    results(page, 10)
    page.evaluate("window.delay = 300")
    page.wait_for_function("() => window.sends.filter(([size]) => size === 2).length > 5")
    sends = page.evaluate("window.sends")
    assert all(size == 1 or (size == 2 and frames >= 1.2) for size, frames in sends)
    page.evaluate("window.delay = 0")
    quick = "window.perception.live.view.pacing.aloneMs < 200"  # some frames go alone, so that it shows
    page.wait_for_function(f"() => {quick}")


def test_a_lost_connection_comes_back(page: Any) -> None:
    page.evaluate("window.perception.live.view.socket.close()")
    page.wait_for_function("() => document.querySelector('.pv-state').innerText.startsWith('reconnecting')")
    page.wait_for_function("() => document.querySelector('.pv-state').innerText === 'running'")
    results(page, 3)


def test_a_file_is_played_and_analysed(page: Any, site: Site) -> None:
    choose(page, "pv-source", "a video file")
    page.set_input_files(".pv-live .pv-file", str(site.video))
    results(page, 3)
    assert near(overlay_at(page, *CENTER), BLUE, 0.5)  # a file is never mirrored


def test_a_file_that_is_no_video(page: Any, tmp_path: Path) -> None:
    (tmp_path / "no.mp4").write_bytes(b"nothing")
    page.set_input_files(".pv-live .pv-file", str(tmp_path / "no.mp4"))
    page.wait_for_function("() => document.querySelector('.pv-message').innerText.includes('no.mp4')")
