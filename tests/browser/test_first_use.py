"""What a page says while its server prepares, and when it has stopped."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from perception.server.app import create_app
from perception.server.inference.models import Models
from perception.server.settings import make_settings
from tests.browser.conftest import Site, choose, pages, results
from tests.models import write_model
from tests.server.served import served

PICTURE = "getComputedStyle(document.querySelector('.pv-live .pv-video')).filter"


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A service with a small model, and another one among the user's own."""
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: str(tmp_path / "user"))
    (tmp_path / "user" / "models").mkdir(parents=True)
    write_model(tmp_path / "user" / "models" / "other.onnx", detection=True, classes=3)
    model = write_model(tmp_path / "colors.onnx", detection=True, classes=4)
    sources = {"scene": "synthetic:?size=64x48&frames=0"}
    return create_app(make_settings({"model": str(model), "data_dir": tmp_path / "data", "sources": sources}))


@pytest.mark.parametrize("source", ["scene", "webcam"])
def test_it_says_that_the_model_is_being_prepared(
    browser: Any, app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    go_on = threading.Event()
    load = Models._load
    monkeypatch.setattr(Models, "_load", lambda models, name: (go_on.wait(60), load(models, name))[1])
    with served(app) as address, pages(browser, Site(f"http://{address}/", app.state.service, tmp_path)) as open_one:
        page = open_one()
        if source == "webcam":
            page.get_by_role("button", name="Use my camera").click()
        page.get_by_text("The server is preparing its model.").wait_for()
        go_on.set()
        page.wait_for_function("() => document.querySelector('.pv-state').innerText === 'running'")
        page.locator(".pv-message").wait_for(state="hidden")


@pytest.mark.parametrize("source", ["scene", "webcam"])
def test_it_says_that_another_model_is_being_prepared(
    browser: Any, app: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """The camera's picture goes on with the model before it until then."""
    go_on = threading.Event()
    load = Models._load

    def slow(models: Models, name: str) -> Any:
        assert name != "other" or go_on.wait(200)
        return load(models, name)

    monkeypatch.setattr(Models, "_load", slow)
    with served(app) as address, pages(browser, Site(f"http://{address}/", app.state.service, tmp_path)) as open_one:
        page = open_one()
        if source == "webcam":
            page.get_by_role("button", name="Use my camera").click()
        page.wait_for_function("() => parseFloat(document.querySelector('.pv-fps').innerText) > 0")
        choose(page, "pv-model", "other")
        said = page.get_by_text("The server is preparing other.")
        said.wait_for()
        if source == "webcam":
            results(page, 2)
            assert said.is_visible()
        go_on.set()
        said.wait_for(state="hidden")
        page.wait_for_function("() => document.querySelector('.pv-state').innerText === 'running'")
        assert "other" in app.state.service.models.loaded()


@pytest.mark.parametrize("source", ["scene", "webcam"])
def test_a_stopped_server_dims_the_picture_and_clears_the_figures(
    browser: Any, app: Any, tmp_path: Path, source: str
) -> None:
    site = Site("", app.state.service, tmp_path)
    with served(app) as address:
        site.url = f"http://{address}/"
        opened = pages(browser, site)
        page = opened.__enter__()()
        if source == "webcam":
            page.get_by_role("button", name="Use my camera").click()
        page.wait_for_function("() => parseFloat(document.querySelector('.pv-fps').innerText) > 0")
        page.wait_for_function("() => document.querySelector('.pv-legend li')")
        assert page.evaluate(PICTURE) == "none"
    page.wait_for_function("() => document.querySelector('.pv-state').innerText.startsWith('reconnecting')")
    page.wait_for_function(f"() => {PICTURE}.includes('brightness(0.4)')")
    figures = page.locator(".pv-statistics dd")
    assert figures.all_inner_texts() == ["–"] * 4
    assert page.locator(".pv-legend li").count() == 0
    drawn = page.evaluate(
        """() => { const { canvas } = window.perception.live.parts;
        return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean); }"""
    )
    assert not drawn  # boxes of long ago
    choose(page, "pv-source", "a video file")
    page.wait_for_function(f"() => {PICTURE} === 'none'")
    opened.__exit__(None, None, None)
