"""`perception eval propagation`: what is compared with what, and the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from perception.commands.main import app
from perception.evaluation.labelling import own_labelling
from perception.evaluation.propagation import measure_propagation
from perception.model import Model, load_model
from perception.propagation.key_frames import KeyFrames
from perception.types import Detections, Frame, Prediction
from tests.models import write_model
from tests.propagation.test_key_frames import HEIGHT, WIDTH, views

pytestmark = pytest.mark.usefixtures("own_cache_home")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "m.onnx"
    called = {"white": "sky", "black": "road"}
    return write_model(path, width=WIDTH, height=HEIGHT, classes=["white", "black"], called=called, detection=True)


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[Model]:
    with load_model(path, engine="openvino", precision="fp32") as loaded:
        yield loaded


def test_the_networks_own_results_as_truth_lose_what_propagation_does(model: Model) -> None:
    """Every frame seen is right by construction; the rest is counted here pixel by pixel."""
    frames = views(40)
    own = [model.predict(frame) for frame in frames]

    def truth(frame: Frame) -> tuple[Detections | None, np.ndarray]:
        prediction = own[frame.index]
        assert prediction.class_map is not None
        return prediction.detections, prediction.class_map.mask

    assert model.card.segmentation is not None
    labelling = own_labelling(model.card.segmentation, ())
    result = measure_propagation(model, [frames], "views", 0.05, truth, labelling, {0: 0, 1: 1})
    keys, other, seen_frames = KeyFrames(0.05), 0.0, 0
    both = np.zeros((2, 2), np.int64)
    made = []
    for frame, prediction in zip(frames, own, strict=True):
        step = keys.next(frame)
        seen_frames += step.seen
        made += keys.results(prediction if step.seen else Prediction(frame), step)
    for prediction, carried in zip(own, [*made, *keys.rest()], strict=True):
        assert carried.class_map is not None and prediction.class_map is not None
        right, said = prediction.class_map.mask, carried.class_map.mask
        other += float((right != said).mean()) / len(frames)
        np.add.at(both, (right.reshape(-1), said.reshape(-1)), 1)
    iou = np.diag(both) / (both.sum(0) + both.sum(1) - np.diag(both))
    assert result.frames == 40 and result.seen == pytest.approx(seen_frames / 40)
    assert result.judged == pytest.approx(1 - seen_frames / 40)
    assert result.other == pytest.approx(other)
    assert result.miou == pytest.approx((1.0, float(iou.mean())))
    assert 0 < other < 0.02
    if result.ap50 is not None:
        assert result.ap50[0] == pytest.approx(1.0) and 0 <= result.ap50[1] <= 1


def test_the_command_measures_labelled_pictures_and_videos(path: Path, tmp_path: Path) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    for number, frame in enumerate(views(4, step=60)):
        cv2.imwrite(str(images / f"{number}.png"), frame.image)
        cv2.imwrite(str(labels / f"{number}.png"), (frame.image[..., 0] < 128).astype(np.uint8))
    arguments = ["eval", "propagation", "synthetic:?size=320x192&frames=12", "-m", str(path), "--engine", "openvino"]
    arguments += ["--images", str(images), "--labels", str(labels), "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    street, pictures = json.loads(result.stdout)
    assert street["frames"] == 12 and 0 < street["seen"] <= 1
    assert pictures["frames"] == 2 + 3 + 4 + 2  # the last of five
    assert 0.5 < pictures["miou"] <= 1 and pictures["miou_propagated"] > 0.5


def test_what_to_measure_is_needed(path: Path) -> None:
    result = CliRunner().invoke(app, ["eval", "propagation", "-m", str(path)])
    assert result.exit_code and "give videos, or --images with --labels" in str(result.exception)
