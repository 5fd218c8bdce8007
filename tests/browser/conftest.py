"""A real browser in front of a real server: headless Chromium, its camera a clip made here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception.server.app import create_app
from perception.server.settings import make_settings
from tests.media import make_video
from tests.models import PALETTE, write_model
from tests.server.served import served

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
WAIT_MS = 90_000

GRAY = 160

SQUARE_XYXY = (320, 160, 480, 320)
"""Where the blue square is in the camera's picture of 640x480; one anchor of the model, two cells right of the left."""


def scene(color: str = "blue") -> np.ndarray:
    """uint8 ``[480, 640, 3]`` BGR: gray, which is nearest to yellow, with one square."""
    image = np.full((480, 640, 3), GRAY, np.uint8)
    x0, y0, x1, y1 = SQUARE_XYXY
    image[y0:y1, x0:x1] = PALETTE[color][::-1]
    return image


@dataclass
class Site:
    """A server with models whose answers are known."""

    url: str
    service: Any
    video: Path


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    video = make_video(
        folder / "square.mp4", images=[scene()] * 50, size_wh=(640, 480), fps=10, options={"preset": "ultrafast"}
    )
    settings = make_settings(
        {
            "model": str(write_model(folder / "colors.onnx", detection=True, classes=4)),
            "data_dir": folder / "data",
            "sources": {"street": str(video)},
            "allow": ["rtsp://cam1.test/*"],
            "limits": {"upload_bytes": 5_000_000},
        }
    )
    app = create_app(settings)
    with served(app) as address:
        yield Site(f"http://{address}/", app.state.service, video)


@pytest.fixture(scope="package")
def driver() -> Iterator[Any]:
    """Playwright's driver. One only: a second one in the same thread is refused while the first runs."""
    with playwright.sync_playwright() as started:
        yield started


@contextmanager
def launched(driver: Any, camera: Path) -> Iterator[Any]:
    """Chromium with a file of Motion JPEG for its camera."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here (`apt-get install chromium`, or set CHROMIUM to its path)")
    browser = driver.chromium.launch(
        executable_path=CHROMIUM,
        args=[
            "--no-sandbox",
            "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-video-capture={camera}",
        ],
    )
    try:
        yield browser
    finally:
        browser.close()


def make_camera(path: Path, images: list[np.ndarray]) -> Path:
    """Pictures of one size as what Chromium's fake camera plays, over and over."""
    height, width = images[0].shape[:2]
    return make_video(
        path, images=images, size_wh=(width, height), codec="mjpeg", pix_fmt="yuvj420p", options={"q": "2"}
    )


@pytest.fixture(scope="package")
def browser(driver: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with launched(driver, make_camera(tmp_path_factory.mktemp("camera") / "camera.mjpeg", [scene()] * 25)) as started:
        yield started


@contextmanager
def pages(browser: Any, site: Site) -> Iterator[Callable[..., Any]]:
    """Opens the page; at the end, no page may have failed or have asked anybody else for anything."""
    contexts: list[Any] = []
    faults: list[str] = []

    def open_one(
        size: tuple[int, int] = (1280, 800), scheme: str = "light", camera: bool = True, **options: Any
    ) -> Any:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,
            permissions=["camera"] if camera else [],
            accept_downloads=True,
            **options,
        )
        contexts.append(context)
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(f"error in the page: {error}"))
        page.on("console", lambda said: faults.append(said.text) if "Content Security Policy" in said.text else None)
        page.on("response", lambda got: faults.append(f"closed: {got.url}") if closed(got) else None)
        page.on("request", lambda asked: faults.append(f"asked for {asked.url}") if foreign(asked.url) else None)
        page.goto(site.url, wait_until="domcontentloaded")
        page.wait_for_function("() => window.perception?.live")
        return page

    def closed(got: Any) -> bool:
        """Whether the page asked for what the server does not have: a part of Gradio behind its edge."""
        return got.status in (404, 405) and "/v1/" not in got.url

    def foreign(url: str) -> bool:
        return not url.startswith((site.url, site.url.replace("http", "ws"), "blob:", "data:"))

    yield open_one
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture
def open_page(browser: Any, site: Site) -> Iterator[Callable[..., Any]]:
    """A page of its own for a test."""
    with pages(browser, site) as open_one:
        yield open_one


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser on a machine that is busy with other things may take its time."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(400))


def set_slider(page: Any, control: str, value: str) -> None:
    """Type a value into the number beside a slider."""
    page.fill(f"#{control} input[type=number]", value)
    page.press(f"#{control} input[type=number]", "Enter")


def choose(page: Any, control: str, option: str) -> None:
    """Take an option of one of the page's lists, by its text or its value."""
    page.select_option(f"#{control}", option)


def start_camera(page: Any) -> None:
    """Show the browser's camera, and wait until results are drawn over it."""
    page.click(".pv-camera")
    results(page, 3)


def results(page: Any, more: int) -> None:
    """Wait for so many more results to be drawn."""
    total = page.evaluate("window.perception.live.statistics.total")
    page.wait_for_function(f"() => window.perception.live.statistics.total >= {total + more}")


def overlay_at(page: Any, x: float, y: float) -> list[int]:
    """RGBA of what is drawn over the picture at a point given in parts of its width and height."""
    pixel: list[int] = page.evaluate(
        """([x, y]) => { const canvas = window.perception.live.parts.canvas;
        const at = [Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1];
        return [...canvas.getContext("2d").getImageData(...at).data]; }""",
        [x, y],
    )
    return pixel


def recording_shown(page: Any) -> None:
    """Wait until the page says how long and how large the recording is."""
    page.wait_for_function(
        "() => /^Recording [0-9:]+, [1-9][0-9.]* (bytes|kB|MB)$/"
        ".test(document.querySelector('.pv-live .pv-note').innerText)"
    )
