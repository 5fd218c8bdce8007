"""The tour's pictures are made, of what is known, and say what is missing."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from perception.classics.tour.layers import _layers
from perception.classics.tour.pictures import COLORS, PICTURES, make, write
from perception.classics.tour.stop import Stop, stop_at
from perception.classics.tour.windows import _grid
from perception.commands.main import app
from perception.errors import ModelError, PerceptionError, SourceError, UsageError
from perception.explain.tiles import CAPTION, side_by_side

SCENE = "synthetic:?size=160x90&seed=3"


@pytest.fixture(scope="module")
def stop(tmp_path_factory: pytest.TempPathFactory) -> Stop:
    return stop_at(SCENE, "street", tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("name", ["upsampling", "resolution", "panoptic", "filters"])
def test_a_picture_is_made_of_what_everybody_has(name: str, stop: Stop, tmp_path: Path) -> None:
    assert make(tmp_path, stop, [name]) == []
    picture = cv2.imread(str(tmp_path / f"{name}.png"))
    assert picture is not None and min(picture.shape[:2]) > 60
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 8


@pytest.mark.parametrize("name", ["windows", "detector", "fcns", "learning"])
def test_what_is_not_trained_is_named(name: str, stop: Stop, tmp_path: Path) -> None:
    (fault,) = make(tmp_path, stop, [name])
    assert isinstance(fault, ModelError) and "trained yet" in str(fault) and "configs/classics/" in str(fault)
    assert list(tmp_path.iterdir()) == []


def test_layers_without_memory_are_the_layers() -> None:
    layers = _layers("torchvision:vgg16")
    assert sum(layer.parameters for layer in layers) == 138_357_544
    sides = [layer.field[0] for layer in layers if layer.kind == "Conv2d 3x3" and layer.field]
    assert sides == [3, 5, 10, 14, 24, 32, 40, 60, 76, 92, 132, 164, 196]


def test_the_scene_has_its_exact_truth() -> None:
    later = stop_at(SCENE, "street", Path(), 1.0)
    assert later.truth is not None
    detections, mask = later.truth
    assert mask.shape == later.frame.shape[:2] and len(detections) > 3
    # the truth is that of the very frame: things stand out from the scene a second before
    before = stop_at(SCENE, "street", Path(), 0.0)
    moved = np.abs(later.frame.astype(int) - before.frame).max(2) > 0
    assert before.truth is not None
    assert not moved[(mask < 8) & (before.truth[1] < 8)].any()


def test_filters_keep_their_signs() -> None:
    weights = np.zeros((2, 3, 3, 3), np.float32)
    weights[0, 0, 1, 1] = 1  # red in the middle
    weights[1, :, 0] = -1  # dark above
    tiles = _grid(weights, columns=2, side=30)
    assert tiles[17, 17].tolist() == [0, 0, 255]  # BGR
    assert tiles[5, 34 + 17].max() == 0 and tiles[25, 34 + 17].min() == 255


def test_tiles_stand_side_by_side() -> None:
    light, small = np.full((20, 30, 3), 200, np.uint8), np.full((10, 10, 3), 90, np.uint8)
    whole = side_by_side([("", light), ("", small), ("", light)], columns=2)
    assert whole.shape == (2 * (20 + CAPTION), 64, 3)
    assert (whole[CAPTION : CAPTION + 20, :30] == 200).all()
    assert (whole[CAPTION + 5 : CAPTION + 15, 44:54] == 90).all()


def test_drawings_are_small_and_photographs_keep_their_colours(tmp_path: Path) -> None:
    drawing = np.zeros((40, 60, 3), np.uint8)
    drawing[:20] = (10, 200, 30)
    write(tmp_path / "drawing.png", drawing, COLORS)
    assert np.array_equal(cv2.imread(str(tmp_path / "drawing.png")), drawing)
    photograph = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    write(tmp_path / "photograph.png", photograph)
    assert np.array_equal(cv2.imread(str(tmp_path / "photograph.png")), photograph)


def test_faults_are_one_line(tmp_path: Path) -> None:
    tour = ["classics", "tour", str(tmp_path)]
    missing = CliRunner().invoke(app, [*tour, "--video", "nope.mp4"])
    assert isinstance(missing.exception, SourceError) and "nope.mp4" in str(missing.exception)
    untrained = CliRunner().invoke(app, [*tour, "--only", "windows", "--runs", str(tmp_path), "--video", SCENE])
    assert untrained.exit_code == ModelError.exit_code
    (line,) = untrained.stderr.strip().splitlines()
    assert "lenet5-v2-mnist" in line
    unknown = CliRunner().invoke(app, [*tour, "--only", "window"])
    assert isinstance(unknown.exception, UsageError) and "did you mean 'windows'" in str(unknown.exception)
    with pytest.raises(PerceptionError, match=r"no frame|ends before"):
        stop_at(f"{SCENE}&frames=5", "street", tmp_path, 5.0)
    assert len(PICTURES) == 12
