"""Pictures in notebooks: the demo in a real kernel, `show`, and what predictions show of themselves."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import perception
from perception.errors import UsageError
from perception.notebook import _png, show
from perception.picture.sketch import sketch_boxes, to_png
from perception.types import Detections, Frame, Prediction
from tests.models import write_model

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "demos" / "notebook.ipynb"
SCENE = "synthetic:?size=160x120&frames=3&fps=25"


def decoded(png: bytes | None) -> np.ndarray:
    assert png is not None
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[perception.Model]:
    path = write_model(tmp_path_factory.mktemp("models") / "colors.onnx", detection=True)
    with perception.load_model(path) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def prediction(model: perception.Model) -> Prediction:
    image = np.full((48, 64, 3), 128, np.uint8)
    image[8:40, 8:40] = (0, 0, 255)
    return model.predict(image)


def some(count: int = 2, tracks: bool = False) -> Detections:
    boxes = np.array([[10, 10, 60, 40], [30, 20, 90, 70]], np.float32)[:count]
    ids = np.arange(count, dtype=np.int64) + 7 if tracks else None
    return Detections(boxes, np.array([0.9, 0.5], np.float32)[:count], np.array([0, 3], np.int32)[:count], ids)


def test_a_prediction_shows_its_frame_with_what_was_found(prediction: Prediction) -> None:
    shown = decoded(prediction._repr_png_())
    assert shown.shape == (48, 64, 3) and prediction.detections is not None and len(prediction.detections)
    assert (shown != prediction.frame.image).any()
    assert (prediction.frame.image[0, 0] == 128).all()  # nothing was written into the frame


def test_a_prediction_without_results_shows_its_frame() -> None:
    image = np.random.default_rng(1).integers(0, 255, (20, 30, 3), np.uint8)
    np.testing.assert_array_equal(decoded(Prediction(Frame(image))._repr_png_()), image)


def test_a_rendered_prediction_shows_what_was_rendered(prediction: Prediction) -> None:
    from dataclasses import replace

    picture = np.random.default_rng(2).integers(0, 255, (48, 64, 3), np.uint8)
    np.testing.assert_array_equal(decoded(replace(prediction, picture=picture)._repr_png_()), picture)


def test_detections_show_themselves_on_white() -> None:
    shown = decoded(some(tracks=True)._repr_png_())
    assert shown.shape == (78, 98, 3)  # as far as they reach, and a margin
    assert (shown[0, 0] == 255).all() and (shown[69, 89] != 255).any()
    assert Detections.empty()._repr_png_() is None


@pytest.mark.parametrize("box", [[np.nan] * 4, [0, 0, np.inf, 9], [-9, -9, -1, -1]])
def test_boxes_that_cannot_be_drawn(box: list[float]) -> None:
    found = Detections(np.array([box], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32))
    assert found._repr_png_() is None


def test_huge_and_tiny_boxes_are_small_pictures() -> None:
    for size in (1e-3, 1.0, 1e6, 1e30):
        found = Detections(np.array([[0, 0, size, size]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32))
        assert max(decoded(found._repr_png_()).shape) <= 700


def test_a_box_is_where_it_belongs() -> None:
    image = np.zeros((100, 100, 3), np.uint8)
    sketch_boxes(image, np.array([[20, 40, 80, 90]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32))
    ys, xs = np.nonzero(image[45:].any(axis=2))  # below the label
    assert (xs.min(), xs.max(), ys.max() + 45) == (20, 79, 89)


def test_large_pictures_are_made_smaller() -> None:
    assert decoded(to_png(np.zeros((100, 5000, 3), np.uint8))).shape == (26, 1280, 3)
    assert decoded(to_png(np.zeros((9000, 1, 3), np.uint8))).shape == (1280, 1, 3)


def test_with_a_model_it_is_what_the_annotator_draws(prediction: Prediction, model: perception.Model) -> None:
    wanted = perception.to_bgr(perception.Annotator(model.card, opacity=0.2)(prediction))
    for given in (model, model.card):
        np.testing.assert_array_equal(decoded(_png(prediction, given, {"opacity": 0.2})), wanted)


def test_a_name_is_looked_at(model: perception.Model) -> None:
    with perception.open_source(SCENE) as source:
        first = next(iter(perception.predict(source, model)))
        wanted = perception.to_bgr(perception.Annotator(model.card)(first))
    np.testing.assert_array_equal(decoded(_png(SCENE, model, {})), wanted)


def test_pictures_are_shown_as_they_are() -> None:
    image = np.random.default_rng(3).integers(0, 255, (20, 30, 3), np.uint8)
    for given in (image, Frame(image)):
        np.testing.assert_array_equal(decoded(_png(given, None, {})), image)


@pytest.mark.parametrize(
    ("what", "model", "drawing", "said"),
    [
        (3, None, {}, "cannot show int"),
        (np.zeros((4, 4), np.uint8), None, {}, "cannot show ndarray"),
        (np.zeros((0, 4, 3), np.uint8), None, {}, "cannot show ndarray"),
        (Detections.empty(), None, {}, "no boxes"),
        (some(), "street-open", {}, "is for files"),
        (some(), None, {"opacity": 1}, "opacity: only for"),
        ("no.mp4", None, {}, "no.mp4"),
    ],
)
def test_what_cannot_be_shown_is_said(what: Any, model: Any, drawing: dict[str, Any], said: str) -> None:
    with pytest.raises(perception.PerceptionError, match=said):
        _png(what, model, drawing)


def test_without_a_notebook_and_a_screen_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform in ("darwin", "win32"):
        pytest.skip("has a screen")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UsageError, match="neither a notebook nor a screen"):
        show(some())


@pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="BROWSER is for desktops of Linux")
def test_on_a_desktop_it_opens_a_file(tmp_path: Path) -> None:
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}\n')
    browser.chmod(0o755)
    script = "import numpy, perception; perception.show(numpy.full((20, 30, 3), 7, numpy.uint8))"
    environment = {**os.environ, "DISPLAY": ":0", "BROWSER": f"{browser} %s", "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=60)
    address = opened.read_text()
    assert address.startswith("file://")
    assert (cv2.imread(address.removeprefix("file://")) == 7).all()


def test_the_notebook_is_saved_without_results() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert len(cells) > 8
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")


@pytest.mark.slow
def test_the_notebook_runs_in_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))  # whose python3 is this Python
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    words = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": words, "display_name": "P", "language": "python"}))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=90, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [
        decoded(base64.b64decode(output["data"]["image/png"]))
        for cell in notebook.cells if cell.cell_type == "code"
        for output in cell.outputs if "image/png" in output.get("data", {})
    ]  # fmt: skip
    assert [picture.shape for picture in pictures[:3]] == [(360, 640, 3)] * 3 and len(pictures) == 4
    assert len((tmp_path / "found.jsonl").read_text().splitlines()) == 50
    assert any("video/mp4" in json.dumps(cell.get("outputs", [])) for cell in notebook.cells)
