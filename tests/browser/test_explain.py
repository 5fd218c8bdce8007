"""The Picture tab explains: a class that is in view, a point that is clicked, and what is missing for it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from perception.server.app import create_app
from perception.server.inference import explain_process
from perception.server.settings import make_settings
from tests.browser.conftest import SQUARE_XYXY, Site, pages, scene
from tests.browser.test_tabs import tab
from tests.models import write_model
from tests.server.served import served

PICTURE = """async (image) => { const canvas = Object.assign(document.createElement("canvas"),
    { width: image.naturalWidth, height: image.naturalHeight });
  canvas.getContext("2d").drawImage(image, 0, 0);
  return canvas.toDataURL("image/png"); }"""


def choose_picture(here: Any, folder: Path) -> None:
    """Have a picture predicted."""
    cv2.imwrite(str(folder / "in.png"), scene())
    here.locator(".pv-file").set_input_files(str(folder / "in.png"))
    here.locator(".pv-pair").wait_for()


def opened(page: Any, folder: Path) -> Any:
    """The part that explains, of a picture that was predicted."""
    page.get_by_role("button", name="Pause").click()
    here = tab(page, "Picture")
    choose_picture(here, folder)
    here.get_by_text("Explain: which pixels").click()
    return here


def shown(here: Any) -> np.ndarray:
    """The heat map, uint8 ``[H, W, 3]`` BGR."""
    here.locator(".pv-heat").wait_for()
    data = here.locator(".pv-heat img").evaluate(PICTURE)
    return cv2.imdecode(np.frombuffer(base64.b64decode(data.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.slow
def test_a_class_in_view_and_a_point(open_page: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed (extra train)")
    pytest.importorskip("captum", reason="captum is not installed (extra train)")
    page = open_page((390, 844))
    here = opened(page, tmp_path)
    here.locator(".pv-what optgroup").first.wait_for(state="attached")
    offered = here.locator(".pv-what option").all_inner_texts()
    assert offered == ["the surest", "blue", "yellow", "blue"]  # the box; then the pixels, most of them yellow
    here.locator(".pv-method").select_option("gradient")
    here.locator(".pv-what").select_option(index=3)  # its score is linear, so the gradient is not 0
    here.get_by_role("button", name="Explain", exact=True).click()
    image = shown(here)
    assert image.shape == (480, 640, 3)
    assert here.locator(".pv-heat figcaption").inner_text().startswith("gradient: blue (8%")
    x0, y0, x1, y1 = SQUARE_XYXY
    spread = np.ptp(image.astype(int), axis=2)  # colours over grey
    assert spread[y0 + 8 : y1 - 8, x0 + 8 : x1 - 8].mean() > 30
    assert spread[y1 + 20 :].max() == 0  # far away nothing mattered
    assert page.evaluate("document.documentElement.scrollWidth") <= 390

    first = here.locator(".pv-heat img").get_attribute("src")
    here.locator(".pv-what").select_option(index=0)
    box = here.locator(".pv-before").bounding_box()
    here.locator(".pv-before").click(position={"x": 0.9 * box["width"], "y": 0.9 * box["height"]})
    page.wait_for_function("(first) => document.querySelector('.pv-heat img').src !== first", arg=first)
    assert here.locator(".pv-heat figcaption").inner_text() == "gradient: yellow at the point"
    spread = np.ptp(shown(here).astype(int), axis=2)
    assert spread[400:460, 540:610].max() > 40
    assert spread[y0:y1, x0:x1].max() == 0

    here.locator(".pv-method").select_option("occlusion")
    here.get_by_role("button", name="Explain", exact=True).click()
    here.get_by_role("button", name="Cancel", exact=True).click()
    here.get_by_text("Cancelled.").wait_for()
    assert here.get_by_role("button", name="Explain", exact=True).is_enabled()


def test_without_torch_the_page_says_how_to_get_it(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain_process, "NEEDED", ("a_package_that_is_not_there",))
    model = write_model(tmp_path / "colors.onnx", detection=True, classes=4)
    sources = {"scene": "synthetic:?size=64x48&frames=0"}
    app = create_app(make_settings({"model": str(model), "data_dir": tmp_path / "data", "sources": sources}))
    with served(app) as address, pages(browser, Site(f"http://{address}/", app.state.service, tmp_path)) as open_one:
        page = open_one()
        here = tab(page, "Picture")
        button = here.get_by_role("button", name="Explain", exact=True)
        button.wait_for()  # at once, before there is a picture
        assert button.is_disabled()
        said = here.locator(".pv-lacking span").inner_text()
        assert said.startswith("explanations need a_package_that_is_not_there; install them with: pip install '")
        choose_picture(here, tmp_path)
        assert button.is_disabled() and here.locator(".pv-explain").is_hidden()
