"""``perception bench live``: what it feeds the camera with, and one whole run."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from perception.bench.live_browser import engine_fps, live_rows, write_camera
from perception.model import load_model
from tests.browser.conftest import CHROMIUM
from tests.media import corners, make_video, quadrants
from tests.models import write_model


def test_the_camera_shows_the_middle_of_the_clip(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "wide.mp4", images=[quadrants((320, 120))] * 5, size_wh=(320, 120))
    write_camera(clip, tmp_path / "camera.mjpeg")
    with av.open(str(tmp_path / "camera.mjpeg")) as container:
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in frames] == [(480, 640, 3)] * 5
    assert corners(frames[2]) == corners(quadrants())
    assert abs(int(np.argmax(frames[2][10, :, 1] > 128)) - 320) < 8  # where green begins: the middle is the middle


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_a_whole_run(tmp_path: Path) -> None:
    clip = make_video(tmp_path / "clip.mp4", images=[quadrants((640, 480))] * 50, size_wh=(640, 480))
    path = write_model(tmp_path / "colors.onnx", detection=True)
    with load_model(path) as model:
        write_camera(clip, tmp_path / "camera.mjpeg")
        assert engine_fps(model, tmp_path / "camera.mjpeg", 0.2) > 0
        tables = dict(live_rows(str(path), model, clip, seconds=3))
    (webcam,), viewers = tables.values()
    assert webcam["results_fps"] > 0 and 0 < webcam["without_engine_ms"] <= webcam["round_trip_ms"]
    assert webcam["without_engine_ms"] <= webcam["without_engine_p95_ms"]
    assert [row["viewers"] for row in viewers] == [1, 4]
    assert all(row["slowest_fps"] > 0 and row["server_cores"] > 0 for row in viewers)
