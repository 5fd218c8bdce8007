"""Evaluation of masks against counting pixel by pixel."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

import perception
from perception.errors import ModelError, SourceError, UsageError
from perception.evaluation.pictures import read_labels
from perception.evaluation.segmentation import evaluate_segmentation
from tests.evaluation.scenes import write_labels
from tests.models import PALETTE, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "colors.onnx", classes=4)


def slow(model: Path, folder: Path, void: tuple[int, ...]) -> tuple[list[float], float, float]:
    """IoU of each class, their mean, pixel accuracy, from single pixels."""
    hits, present, found = [0] * 4, [0] * 4, [0] * 4
    right = total = 0
    with perception.load_model(model, engine="onnxruntime") as loaded:
        for path in sorted((folder / "images").iterdir()):
            class_map = loaded.predict(cv2.imread(str(path))).class_map
            assert class_map is not None
            truth = read_labels(folder / "labels" / f"{path.stem}.png")
            for p, t in zip(class_map.mask.ravel().tolist(), truth.ravel().tolist(), strict=True):
                if t in void:
                    continue
                total += 1
                right += p == t
                hits[t] += p == t
                present[t] += 1
                found[p] += 1
    iou = [h / (p + f - h) if p + f else math.nan for h, p, f in zip(hits, present, found, strict=True)]
    counted = [x for i, x in enumerate(iou) if not math.isnan(x) and i not in void]
    return iou, sum(counted) / len(counted), right / total


@pytest.mark.parametrize("size", [(64, 48), (128, 96)])
@pytest.mark.parametrize("seed", [0, 1])
def test_numbers_equal_counting_pixels(tmp_path: Path, model: Path, seed: int, size: tuple[int, int]) -> None:
    # class 3 never occurs and is never found
    folder = write_labels(tmp_path, seed=seed, size=size)
    progress: list[tuple[int, int]] = []
    result = evaluate_segmentation(
        model, folder / "images", folder / "labels", ignore=[11], precision="fp32",
        progress=lambda *done: progress.append(done),
    )  # fmt: skip
    data = json.loads(json.dumps(result.as_dict()))
    assert list(data) == ["miou", "iou", "pixel_accuracy", "images", "ms_per_image"]
    iou, mean, accuracy = slow(model, folder, (11,))
    assert list(data["iou"]) == list(PALETTE)[:4]
    assert data["iou"]["yellow"] is None
    np.testing.assert_allclose(list(data["iou"].values())[:3], iou[:3])
    assert 0.3 < data["miou"] < 0.99
    assert data["miou"] == pytest.approx(mean)
    assert data["pixel_accuracy"] == pytest.approx(accuracy)
    assert data["images"] == 6
    assert data["ms_per_image"] > 0
    assert progress == [(i, 6) for i in range(1, 7)]
    assert "OpenVINO" in result.facts()["engine"]


def test_an_ignored_class_is_left_out(tmp_path: Path, model: Path) -> None:
    folder = write_labels(tmp_path)
    result = evaluate_segmentation(model, folder / "images", folder / "labels", ignore=[11, 0], precision="fp32")
    iou, mean, accuracy = slow(model, folder, (11, 0))
    data = result.as_dict()
    assert data["iou"]["red"] is None
    assert data["iou"]["green"] == pytest.approx(iou[1])
    assert data["miou"] == pytest.approx(mean)
    assert data["pixel_accuracy"] == pytest.approx(accuracy)


def test_perfect_masks_are_perfect(tmp_path: Path, model: Path) -> None:
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for i, name in enumerate(["red", "green", "blue", "yellow"]):
        cv2.imwrite(str(tmp_path / "images" / f"{name}.png"), np.full((48, 64, 3), PALETTE[name][::-1], np.uint8))
        cv2.imwrite(str(tmp_path / "labels" / f"{name}.png"), np.full((48, 64), i, np.uint8))
    result = evaluate_segmentation(model, tmp_path / "images", tmp_path / "labels", worst=2)
    assert result.confusion.counts.tolist() == np.diag([48 * 64] * 4).tolist()
    assert result.as_dict()["miou"] == result.as_dict()["pixel_accuracy"] == 1


def test_the_worst_pictures_come_first(tmp_path: Path, model: Path) -> None:
    folder = write_labels(tmp_path, images=7)
    result = evaluate_segmentation(model, folder / "images", folder / "labels", ignore=[11], worst=3)
    scores = []
    for path in sorted((folder / "images").iterdir()):
        one = tmp_path / path.stem
        for kind in ("images", "labels"):
            (one / kind).mkdir(parents=True)
            (one / kind / path.name).write_bytes((folder / kind / path.name).read_bytes())
        alone = evaluate_segmentation(model, one / "images", one / "labels", ignore=[11])
        scores.append((alone.as_dict()["miou"], path.stem))
    expected = [f"{name}: mIoU {miou:.3f}" for miou, name in sorted(scores)[:3]]
    assert [example.caption for example in result.examples] == expected
    titles = [title for title, _ in result.examples[0].panels]
    assert titles == ["image", "truth", "prediction", "mistakes"]
    assert all(panel.shape == (48, 64, 3) and panel.dtype == np.uint8 for _, panel in result.examples[0].panels)


def test_every_fault_is_named_though_the_first_ends_it(tmp_path: Path, model: Path) -> None:
    folder = write_labels(tmp_path, images=9)
    (folder / "labels" / "000.png").unlink()
    cv2.imwrite(str(folder / "labels" / "004.png"), np.full((48, 64), 7, np.uint8))
    (folder / "images" / "008.png").write_bytes(b"nothing")
    with pytest.raises(SourceError) as caught:
        evaluate_segmentation(model, folder / "images", folder / "labels", ignore=[11])
    message = str(caught.value)
    assert "3 of 9 samples are faulty" in message
    for part in ("000.png: missing label", "004.png: unknown class ids [7]", "008.png: corrupt image"):
        assert part in message


def test_what_cannot_be_measured(tmp_path: Path, model: Path) -> None:
    folder = write_labels(tmp_path)
    other = write_model(tmp_path / "boxes.onnx", segmentation=False, detection=True)
    parts = (folder / "images", folder / "labels")
    with pytest.raises(ModelError, match=r"boxes\.onnx: this model does not do segmentation, only detection"):
        evaluate_segmentation(other, *parts)
    with pytest.raises(UsageError, match="256"):
        evaluate_segmentation(model, *parts, ignore=[256])
    with pytest.raises(UsageError, match="every pixel"):
        evaluate_segmentation(model, *parts, ignore=[0, 1, 2, 11])
