"""The model that ships, on a real street: what the browser draws is what the file's own frames give."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from perception.errors import SourceError
from perception.server.app import create_app
from perception.server.settings import make_settings
from perception.server.viewers.messages import map_size
from perception.sources import open_source
from perception.sources.clips import find_clip
from tests.browser.conftest import WAIT_MS, launched, make_camera, start_camera
from tests.server.served import served

STATE = """() => {
  const { result, parts } = window.perception.live;
  const canvas = Object.assign(document.createElement("canvas"), { width: parts.video.videoWidth,
    height: parts.video.videoHeight });
  canvas.getContext("2d").drawImage(parts.video, 0, 0);
  const map = window.perception.live.overlay.map;
  return { picture: canvas.toDataURL("image/png"), map: map.toDataURL("image/png"), shares: [...result.shares] };
}"""


def read_png(url: str) -> np.ndarray:
    """uint8 ``[H, W, 3 or 4]``, BGR(A), of a data URL."""
    data = np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image


@pytest.mark.slow
def test_masks_over_the_camera_are_those_of_its_picture(tmp_path: Path, driver: Any) -> None:
    try:
        clip = find_clip("street")
    except SourceError as error:
        pytest.skip(str(error))
    with open_source(clip.uri, **{**clip.options, "max_frames": 50}) as source:
        camera = make_camera(tmp_path / "camera.mjpeg", [frame.image for frame in source])
    app = create_app(make_settings({"data_dir": tmp_path / "data", "sources": {"street": clip.uri}}))
    with served(app) as address, launched(driver, camera) as browser:
        page = browser.new_context(permissions=["camera"], viewport={"width": 1280, "height": 800}).new_page()
        page.set_default_timeout(2 * WAIT_MS)
        page.goto(f"http://{address}/", wait_until="domcontentloaded")
        page.wait_for_function("() => window.perception?.live")
        start_camera(page)
        page.get_by_role("button", name="Pause").click()
        page.wait_for_function("() => !window.perception.live.view.sent.size")
        page.wait_for_timeout(2000)  # the picture that stands still has its result
        state = page.evaluate(STATE)
        model = app.state.service.models.scheduler().model
        picture, colors = read_png(state["picture"])[:, :, :3], read_png(state["map"])
        prediction = model.predict(np.ascontiguousarray(picture))
    assert prediction.class_map is not None
    height, width = colors.shape[:2]
    assert (width, height) == map_size(picture.shape[1], picture.shape[0], width)
    palette = np.array([c.color[::-1] for c in model.card.segmentation.classes], np.uint8)
    expected = palette[prediction.class_map.resized(width, height)]
    assert (colors[:, :, :3] == expected).all(axis=2).mean() > 0.93  # a JPEG and the browser's own resize lie between
    assert np.abs(np.array(state["shares"]) - prediction.class_map.shares).max() < 0.03
