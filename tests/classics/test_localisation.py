"""Localisation and window detectors: data, loss, training, the exported files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import yaml  # noqa: E402

from perception.classics.localisation.recipe import LocalisationLossConfig, WindowsConfig  # noqa: E402
from perception.classics.localisation.task import LocalisationLoss, LocalisationTask, iou, largest  # noqa: E402
from perception.classics.localisation.windows import WindowMaker  # noqa: E402
from perception.classics.train import row as classics_row  # noqa: E402
from perception.errors import PerceptionError  # noqa: E402
from perception.model import load_model  # noqa: E402
from perception.training.data.boxes import BoxLabels  # noqa: E402
from perception.training.data.masks import Sample  # noqa: E402
from perception.training.data.pictures import PictureBatch  # noqa: E402
from perception.training.export.release import release  # noqa: E402
from perception.training.recipes.read import parse_config, read_config  # noqa: E402
from perception.training.run.loop import train  # noqa: E402
from tests.training.pictures import write_boxes  # noqa: E402

CLASSICS = Path(__file__).parents[2] / "configs" / "classics"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_boxes(tmp_path_factory.mktemp("boxes"), train=16, val=6)


def content(folder: Path, root: Path, **changes: Any) -> dict[str, Any]:
    recipe: dict[str, Any] = {
        "task": "localisation", "name": "places", "output": str(folder / "run"), "epochs": 4, "batch": 8,
        "precision": "fp32", "ema_decay": 0.5, "evaluate_every": 4,
        "data": {
            "root": str(root), "size": [96, 64],
            "train": {"images": "boxes/images", "annotations": "boxes/annotations.json"},
            "val": {"images": "boxes-val/images", "annotations": "boxes-val/annotations.json"},
            "classes": [{"name": "box", "color": [220, 60, 40]}, {"name": "ball", "color": [40, 120, 220]}],
        },
        "network": {"stride": 16, "maps": 8, "hidden": 16, "dropout": 0.0, "pretrained": False},
        "optimiser": {"learning_rate": 0.004, "backbone_factor": 1.0, "warmup_epochs": 0.2},
        "model": {"licence": "free"},
    }  # fmt: skip
    for key, value in changes.items():
        recipe[key] = {**recipe.get(key, {}), **value} if isinstance(value, dict) else value
    return recipe


def write(folder: Path, root: Path, **changes: Any) -> Path:
    path = folder / "places.yaml"
    path.write_text(yaml.safe_dump(content(folder, root, **changes)))
    return path


def test_the_largest_object_is_the_target(data: Path, tmp_path: Path) -> None:
    task = LocalisationTask(parse_config(content(tmp_path, data), "test"))
    for index, sample in zip(task.measured, task.held_out(), strict=True):
        labels = task.val.labels[index]
        areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in labels.boxes.tolist()]
        assert sample.label == labels.class_ids[int(np.argmax(areas))]
        assert sample.image.shape == (64, 96, 3)
        np.testing.assert_allclose(sample.box * [96, 72, 96, 72], labels.boxes[int(np.argmax(areas))], atol=1e-3)


def test_ignored_objects_are_never_the_largest() -> None:
    known = np.ones(2, bool)
    boxes = np.array([[0, 0, 50, 50], [0, 0, 10, 10], [0, 0, 12, 10]], np.float32)
    labels = BoxLabels(boxes, np.array([-1, 0, 1]), np.zeros((3, 2), bool), known)
    assert largest(labels) == 2
    assert largest(BoxLabels.empty(known)) is None


def test_the_loss_is_weighted_as_the_recipe_says() -> None:
    rng = torch.Generator().manual_seed(0)
    logits, found = torch.randn(5, 3, generator=rng), torch.rand(5, 4, generator=rng).sort(1).values
    truth, labels = torch.rand(5, 4, generator=rng).sort(1).values, torch.tensor([0, 1, -1, 1, -1])
    confidence = torch.randn(5, 1, generator=rng)
    batch = PictureBatch(torch.empty(0), labels, truth, [])
    config = LocalisationLossConfig(class_weight=0.8, box_weight=0.2, box="mse", confidence_weight=0.5)
    outputs = {"class_logits": logits, "box": found, "confidence_logits": confidence}
    losses = LocalisationLoss(config, 2)(outputs, batch)
    probabilities = logits.softmax(1).numpy()
    named = [0, 1, 2, 1, 2]  # nothing is the last class
    assert float(losses["classes"]) == pytest.approx(
        0.8 * -np.mean([np.log(probabilities[i, c]) for i, c in enumerate(named)]), rel=1e-5
    )
    there = [0, 1, 3]
    assert float(losses["boxes"]) == pytest.approx(0.2 * float(((found - truth)[there] ** 2).mean()), rel=1e-5)
    sure = confidence.sigmoid().squeeze(1).numpy()
    entropy = [-np.log(p if label >= 0 else 1 - p) for p, label in zip(sure, labels.tolist(), strict=True)]
    assert float(losses["confidence"]) == pytest.approx(0.5 * np.mean(entropy), rel=1e-5)
    # without a class for nothing, empty windows do not count for the classes
    two = LocalisationLoss(config, 2)({"class_logits": logits[:, :2], "box": found}, batch)
    probabilities = logits[:, :2].softmax(1).numpy()
    assert float(two["classes"]) == pytest.approx(
        0.8 * -np.mean([np.log(probabilities[i, int(labels[i])]) for i in there]), rel=1e-5
    )
    assert set(two) == {"classes", "boxes"}


def test_a_batch_of_nothing_costs_nothing_for_boxes() -> None:
    batch = PictureBatch(torch.empty(0), torch.tensor([-1, -1]), torch.zeros(2, 4), [])
    outputs = {"class_logits": torch.randn(2, 2, requires_grad=True), "box": torch.rand(2, 4, requires_grad=True)}
    losses = LocalisationLoss(LocalisationLossConfig(), 2)(outputs, batch)
    assert float(sum(losses.values()).detach()) == 0
    sum(losses.values()).backward()


@pytest.mark.parametrize("seed", range(4))
def test_windows_hold_one_whole_object_or_none(seed: int) -> None:
    """A bright object on a dark ground is found in the window where its label says."""
    rng = np.random.default_rng(seed)
    maker = WindowMaker(WindowsConfig(side=64, fill=(0.4, 0.9)))
    known = np.ones(1, bool)
    for _ in range(15):
        image = np.zeros((180, 240, 3), np.uint8)
        w, h = (int(v) for v in rng.integers(24, 90, 2))
        x, y = int(rng.integers(0, 240 - w)), int(rng.integers(0, 180 - h))
        image[y : y + h, x : x + w] = 255
        boxes = BoxLabels(np.array([[x, y, x + w, y + h]], np.float32), np.array([0]), np.zeros((1, 1), bool), known)
        sample = Sample("s", image, None, boxes)
        window = maker(sample, rng, background=False)
        assert window.image.shape == (64, 64, 3)
        assert window.label == 0
        sides = (window.box[2:] - window.box[:2]) * 64
        assert 0.2 * 64 <= sides.max() <= 0.9 * 64 + 1e-3
        rows, columns = np.nonzero(window.image[..., 0] > 200)
        found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        np.testing.assert_allclose(window.box * 64, found, atol=1.6)
        empty = maker(sample, rng, background=True)
        if empty.label == -1:
            assert np.all(empty.box == 0)
            rows, columns = np.nonzero(empty.image[..., 0] > 200)
            extent = max(np.ptp(columns), np.ptp(rows)) + 1 if len(rows) else 0
            whole = extent / 64 >= 0.4 and len(rows) > 0.5 * extent**2  # a corner of a large object may be seen
            assert not whole or len(rows) < 0.26 * 64 * 64


def test_a_picture_without_large_objects_gives_background() -> None:
    known = np.ones(1, bool)
    small = BoxLabels(np.array([[5, 5, 9, 9]], np.float32), np.array([0]), np.zeros((1, 1), bool), known)
    maker = WindowMaker(WindowsConfig(side=64))
    image = np.zeros((90, 120, 3), np.uint8)
    for boxes in (small, BoxLabels.empty(known)):
        window = maker(Sample("s", image, None, boxes), np.random.default_rng(0), background=False)
        assert window.label == -1


def test_a_localiser_learns_is_exported_and_gives_one_box(data: Path, tmp_path: Path) -> None:
    result = train(write(tmp_path, data))
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert {"accuracy", "iou_mean", "loss_classes", "loss_boxes"} <= set(rows[-1])
    output = tmp_path / "run" / "best.onnx"
    card = release(result.best, output)
    assert card.metrics["places_val_iou_mean"] == pytest.approx(rows[-1]["iou_mean"], abs=0.05)
    assert classics_row(read_config(tmp_path / "places.yaml"))["iou_mean"] == card.metrics["places_val_iou_mean"]
    with load_model(output, engine="onnxruntime") as model:
        prediction = model.predict(np.random.default_rng(0).integers(0, 256, (72, 96, 3), np.uint8))
    assert prediction.detections is not None
    assert len(prediction.detections) == 1


def test_windows_become_a_detector_of_scenes(data: Path, tmp_path: Path) -> None:
    windows = {"side": 32, "scales": [1.0, 0.75], "per_image": 2, "score_threshold": 0.01}
    path = write(tmp_path, data, epochs=1, windows=windows, data={"size": [96, 72]}, evaluate_every=1)
    result = train(path)
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert {"background", "loss_confidence"} <= set(rows[0])
    card = release(result.best, tmp_path / "run" / "best.onnx")
    assert {"places_val_map", "places_val_map50"} <= set(card.metrics)
    assert card.detection is not None and card.detection.class_agnostic  # a thing is a car or a truck
    with load_model(tmp_path / "run" / "best.onnx", engine="onnxruntime") as model:
        assert model.size == (96, 72)
        found = model.predict(np.random.default_rng(0).integers(0, 256, (144, 192, 3), np.uint8)).detections
    assert found is not None and len(found) > 0
    assert found.boxes[:, 2].max() <= 192


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": {"stride": 32}, "data": {"size": [96, 72]}}, "stride 32 does not divide the input"),
        ({"windows": {"side": 40}}, "stride 16 does not divide"),
        ({"windows": {"scales": [0.0]}}, "scales must be above 0"),
        ({"data": {"classes": [{"name": "box", "color": [1, 2, 3]}]}}, "unknown class 'ball'"),
    ],
)
def test_faults_are_one_line(changes: dict[str, Any], message: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(PerceptionError, match=message) as error:
        train(write(tmp_path, data, **changes))
    assert "\n" not in str(error.value)


def test_boxes_overlap_as_torchvision_says() -> None:
    ops = pytest.importorskip("torchvision").ops
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = (np.sort(rng.random((2, 2)), 0).astype(np.float32).reshape(4) for _ in range(2))
        expected = float(ops.box_iou(torch.tensor(a)[None], torch.tensor(b)[None]))
        assert iou(a, b) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("path", sorted(CLASSICS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_of_the_classics_is_valid(path: Path) -> None:
    config = read_config(path)
    assert config.name == path.stem
    assert config.output == Path("runs/classics") / path.stem
