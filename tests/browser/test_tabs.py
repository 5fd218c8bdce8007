"""The Video and Picture tabs, and how the page looks at the width of a desk and of a phone."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from tests.browser.conftest import SQUARE_XYXY, Site, choose, pages, scene, set_slider

X, Y = (SQUARE_XYXY[0] + SQUARE_XYXY[2]) // 2, (SQUARE_XYXY[1] + SQUARE_XYXY[3]) // 2
BLUE, HALF_YELLOW = (255, 0, 0), (80, 207, 207)  # BGR


@pytest.fixture(scope="module")
def page(browser: Any, site: Site) -> Iterator[Any]:
    """One page for all tests but those of its size."""
    with pages(browser, site) as open_one:
        opened = open_one()
        opened.get_by_role("button", name="Pause").click()  # of the Live tab: it is not what is tested here
        yield opened


def tab(page: Any, name: str) -> Any:
    page.get_by_role("tab", name=name).click()
    return page.locator(f"#pv-{name.lower()}")


def test_a_video_goes_up_and_comes_back(page: Any, site: Site, tmp_path: Path) -> None:
    here = tab(page, "Video")
    here.locator(".pv-file").set_input_files(str(site.video))
    here.get_by_role("button", name="Annotate", exact=True).click()
    here.locator(".pv-result").wait_for()
    with page.expect_download() as download:
        here.get_by_text("Video (MP4)").click()
    assert download.value.suggested_filename == "square-annotated.mp4"
    download.value.save_as(tmp_path / "o.mp4")
    with av.open(str(tmp_path / "o.mp4")) as container:
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    assert len(frames) == 50
    assert np.abs(frames[25][Y, X].astype(int) - BLUE).max() < 60
    with page.expect_download() as download:
        here.get_by_text("Data (JSON Lines)").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert len(lines) == 50 and json.loads(lines[0])["index"] == 0
    page.wait_for_function("() => document.querySelector('.pv-player').videoWidth === 640")


@pytest.mark.parametrize(("size", "words"), [(7, "7 bytes"), (12_340, "12.3 kB"), (3_000_000, "3 MB")])
def test_the_size_of_a_video_can_be_read(page: Any, tmp_path: Path, size: int, words: str) -> None:
    (tmp_path / "some.mp4").write_bytes(bytes(size))
    here = tab(page, "Video")
    here.locator(".pv-file").set_input_files(str(tmp_path / "some.mp4"))
    page.wait_for_function("(words) => document.querySelector('#pv-video .pv-note').innerText === words", arg=words)


@pytest.mark.parametrize(
    ("content", "words"), [(b"this is no video", "video"), (b"\0" * 6_000_000, "5 MB")], ids=["text", "large"]
)
def test_what_is_no_video_is_refused_in_words(page: Any, tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "no.mp4").write_bytes(content)
    here = tab(page, "Video")
    here.locator(".pv-file").set_input_files(str(tmp_path / "no.mp4"))
    here.get_by_role("button", name="Annotate", exact=True).click()
    page.wait_for_function(
        "(words) => document.querySelector('#pv-video .pv-note').innerText.includes(words)"
        " && document.querySelector('#pv-video .pv-cancel').hidden",
        arg=words,
    )
    assert here.get_by_role("button", name="Annotate", exact=True).is_enabled()


def reload(page: Any) -> Any:
    """The Video tab of the page, loaded anew."""
    page.reload(wait_until="domcontentloaded")
    page.wait_for_function("() => window.perception?.live")
    return tab(page, "Video")


def test_a_job_is_taken_up_again_after_a_reload(
    open_page: Callable[..., Any], site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it waits or runs, when it is done, and not at all when it is gone."""
    take = site.service.jobs.take
    go_on = threading.Event()
    monkeypatch.setattr(site.service.jobs, "take", lambda timeout_s: take(timeout_s) if go_on.wait(timeout_s) else None)
    page = open_page()
    here = tab(page, "Video")
    here.locator(".pv-file").set_input_files(str(site.video))
    here.get_by_role("button", name="Annotate", exact=True).click()
    page.wait_for_function("() => localStorage.getItem('perception.job')")
    job = page.evaluate("localStorage.getItem('perception.job')")
    sent: list[str] = []
    page.on("request", lambda asked: sent.append(asked.url) if asked.method == "POST" and "/v1/" in asked.url else None)

    here = reload(page)
    page.wait_for_function(
        "() => document.querySelector('#pv-video .pv-progress').checkVisibility()"
        " && document.querySelector('#pv-video .pv-note').innerText === 'square.mp4: waiting for other jobs'"
    )
    go_on.set()
    here.locator(".pv-result").wait_for()
    here = reload(page)
    here.locator(".pv-result").wait_for()
    assert f"/v1/jobs/{job}/video" in here.get_by_text("Video (MP4)").get_attribute("href")
    assert here.locator(".pv-cancel").is_hidden()
    assert not [url for url in sent if "/v1/jobs" in url]

    site.service.jobs.delete(job)
    here = reload(page)
    page.wait_for_function("() => !localStorage.getItem('perception.job')")
    assert here.locator(".pv-note").inner_text() == ""
    assert here.locator(".pv-result").is_hidden()
    assert here.locator(".pv-progress").is_hidden()


@pytest.mark.parametrize("kept", ["../../healthz", "0" * 32, "nonsense"])
def test_what_is_no_job_is_forgotten(open_page: Callable[..., Any], kept: str) -> None:
    page = open_page()
    page.evaluate("(kept) => localStorage.setItem('perception.job', kept)", kept)
    here = reload(page)
    page.wait_for_function("() => !localStorage.getItem('perception.job')")
    assert here.locator(".pv-note").inner_text() == ""


def test_a_picture_before_and_after(page: Any, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), scene())
    here = tab(page, "Picture")
    here.locator(".pv-file").set_input_files(str(tmp_path / "in.png"))
    here.locator(".pv-pair").wait_for()
    with page.expect_download() as download:
        here.get_by_text("Annotated picture (PNG)").click()
    image = cv2.imread(str(download.value.path()))
    assert image.shape == (480, 640, 3)
    assert np.abs(image[400, 80].astype(int) - HALF_YELLOW).max() < 5
    before, after = (here.locator(f".pv-{name}").bounding_box() for name in ("before", "after"))
    assert before["y"] == after["y"] and before["width"] == after["width"]  # side by side
    words = here.locator(".pv-legend").inner_text().split()
    assert [words[0], words[2], words[3]] == ["blue", "×1", "yellow"]
    with page.expect_download() as download:
        here.get_by_text("Data (JSON)").click()
    assert download.value.suggested_filename.endswith(".json")
    data = json.loads(Path(download.value.path()).read_text())
    assert [found["class"] for found in data["detections"]] == ["blue"] and data["size"] == [640, 480]
    assert words[4] == f"{round(100 * data['shares']['yellow'])}%"
    first = page.evaluate("document.querySelector('.pv-after').src")
    set_slider(page, "pv-opacity", "1")
    page.wait_for_function("(first) => document.querySelector('.pv-after').src !== first", arg=first)


def test_a_picture_chosen_before_the_script_has_come_is_taken(open_page: Callable[..., Any], tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), scene())
    page = open_page()
    asked = []
    page.route("**/picture.js", lambda route: asked.append(route))  # held back
    page.reload(wait_until="domcontentloaded")
    here = tab(page, "Picture")
    here.locator(".pv-file").set_input_files(str(tmp_path / "in.png"))
    while not asked:
        page.wait_for_timeout(20)
    asked[0].continue_()
    here.locator(".pv-pair").wait_for()


def test_controls_follow_the_model_and_the_source(open_page: Callable[..., Any]) -> None:
    """In the browser alone: no call of Gradio's is needed, and none is open."""
    page = open_page()
    calls: list[str] = []
    page.on("request", lambda asked: calls.append(asked.url) if "gradio_api" in asked.url else None)
    page.get_by_role("button", name="Pause").click()
    score, address = page.locator("#pv-score"), page.locator("#pv-url")
    assert score.is_visible() and not address.is_visible()
    set_slider(page, "pv-score", "0.9")
    choose(page, "pv-model", "camvid")  # which has no boxes
    score.wait_for(state="hidden")
    choose(page, "pv-model", "colors")
    score.wait_for(state="visible")
    page.wait_for_function(
        "() => document.querySelector('#pv-score input[type=number]').value === '0.3'"
        " && window.perception.settings.score === 0.3 && window.perception.settings.model === 'colors'"
    )
    choose(page, "pv-source", "stream URL")
    address.wait_for(state="visible")
    choose(page, "pv-source", "street")
    address.wait_for(state="hidden")
    assert calls == []


def test_what_is_no_picture_is_refused_in_words(page: Any, tmp_path: Path) -> None:
    (tmp_path / "no.png").write_bytes(b"nothing")
    tab(page, "Picture").locator(".pv-file").set_input_files(str(tmp_path / "no.png"))
    page.wait_for_function("() => document.querySelector('#pv-picture .pv-note').innerText.includes('not an image')")


@pytest.mark.parametrize(
    ("size", "scheme"), [((1280, 800), "light"), ((390, 844), "dark")], ids=["desk, light", "phone, dark"]
)
def test_nothing_is_wider_than_the_window(open_page: Callable[..., Any], size: tuple[int, int], scheme: str) -> None:
    page = open_page(size, scheme)
    for name in ("Live", "Video", "Picture"):
        tab(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        assert page.locator("#pv-opacity").is_visible()
    background = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)")
    assert (max(background[:3]) < 60) == (scheme == "dark")
