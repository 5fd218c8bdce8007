"""The page under a path of a real nginx: styles, scripts, stream, uploads and the login, as a browser finds them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perception.server.app import create_app
from perception.server.settings import make_settings
from tests.browser.conftest import WAIT_MS, Site, pages, results, scene, start_camera
from tests.media import make_video
from tests.models import write_model
from tests.server.proxies import nginx
from tests.server.served import served

TOKEN = "a-token-for-people"


def settings(folder: Path, **more: Any) -> Any:
    video = make_video(
        folder / "square.mp4", images=[scene()] * 50, size_wh=(640, 480), options={"preset": "ultrafast"}
    )
    model = write_model(folder / "colors.onnx", detection=True, classes=4)
    return make_settings(
        {
            "model": str(model), "data_dir": folder / "data", "sources": {"street": str(video)},
            "root_path": "/perception", **more,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server found at ``http://127.0.0.1:PORT/perception/`` and nowhere else."""
    folder = tmp_path_factory.mktemp("site")
    app = create_app(settings(folder))
    with served(app) as server, nginx(folder, server) as address:
        yield Site(f"http://{address}/perception/", app.state.service, folder / "square.mp4")


def test_the_page_is_whole_under_the_path(browser: Any, behind: Site) -> None:
    missing: list[str] = []
    with pages(browser, behind) as open_one:  # fails where anything outside of the path is asked for, or is not there
        page = open_one()
        page.on("response", lambda got: missing.append(got.url) if got.status >= 400 else None)
        sheets = page.evaluate("[...document.styleSheets].map((s) => s.href).filter(Boolean)")
        assert any("/perception/theme.css" in sheet for sheet in sheets), sheets
        assert page.evaluate("getComputedStyle(document.body).getPropertyValue('--primary-500')") != ""
        assert page.evaluate("getComputedStyle(document.querySelector('#pv-page')).display") == "flex"
        page.wait_for_function("() => window.perception.live.parts.video.currentTime > 0.5")  # a socket
        page.wait_for_function("() => window.perception.live.status?.state === 'running'")  # the API
        start_camera(page)  # another socket
        results(page, 2)
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("tab", name="Video").click()
        here = page.locator("#pv-video")
        here.locator(".pv-file").set_input_files(str(behind.video))
        here.get_by_role("button", name="Annotate", exact=True).click()
        here.locator(".pv-result").wait_for()
        page.wait_for_function("() => document.querySelector('.pv-player').videoWidth === 640")
        with page.expect_download() as download:
            here.get_by_text("Data (JSON Lines)").click()
        assert len(Path(download.value.path()).read_text().splitlines()) == 50
    assert missing == []


def test_the_login_leads_back_to_the_page(browser: Any, tmp_path: Path) -> None:
    with served(create_app(settings(tmp_path, token=TOKEN))) as server, nginx(tmp_path, server) as address:
        context = browser.new_context()
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        page.goto(f"http://{address}/perception")
        assert page.url == f"http://{address}/perception/"
        page.fill("input[name=token]", TOKEN)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_function("() => window.perception?.live")
        page.wait_for_function("() => window.perception.live.parts.video.currentTime > 0.2")
        assert page.url == f"http://{address}/perception/"
        (cookie,) = context.cookies()
        assert cookie["path"] == "/perception" and cookie["httpOnly"]
        page.goto(f"http://{address}/perception/logout")
        page.wait_for_selector("input[name=token]")
        assert context.cookies() == []
        context.close()
