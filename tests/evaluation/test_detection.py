"""Evaluation of boxes against pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import perception
from perception.errors import ModelError, SourceError, UsageError
from perception.evaluation.boxes import box_iou, compare
from perception.evaluation.coco import BoxedImage
from perception.evaluation.detection import SCORE_THRESHOLD, evaluate_detection
from perception.evaluation.precision import coco_precision
from perception.types import Detections
from tests.evaluation.scenes import CELL, GRAY, add_box, write_boxes
from tests.models import PALETTE, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "squares.onnx"
    return write_model(path, width=128, height=96, classes=4, segmentation=False, detection=True)


def oracle(truth: dict[str, Any], found: list[dict[str, Any]]) -> tuple[list[float], np.ndarray]:
    """The twelve numbers of pycocotools, and its precision [T, R, K] for all sizes and 100 boxes."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluator = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator.stats.tolist(), evaluator.eval["precision"][:, :, :, 0, -1]


def found_by(model: Path, folder: Path, truth: dict[str, Any]) -> list[dict[str, Any]]:
    """What the model finds, as a COCO result file has it, classes by name."""
    ids = {c["name"]: c["id"] for c in truth["categories"]}
    rows = []
    with perception.load_model(
        model, engine="onnxruntime", score_threshold=SCORE_THRESHOLD, max_detections=100
    ) as loaded:
        assert loaded.card.detection is not None
        names = loaded.card.detection.names
        for image in truth["images"]:
            detections = loaded.predict(cv2.imread(str(folder / "images" / image["file_name"]))).detections
            assert detections is not None
            rows += [
                {"image_id": image["id"], "category_id": ids[names[k]], "score": float(s),
                 "bbox": [float(b[0]), float(b[1]), float(b[2] - b[0]), float(b[3] - b[1])]}
                for b, s, k in zip(detections.boxes, detections.scores, detections.class_ids, strict=True)
                if names[k] in ids
            ]  # fmt: skip
    return rows


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_numbers_equal_pycocotools(tmp_path: Path, model: Path, seed: int) -> None:
    folder = write_boxes(tmp_path, images=12, seed=seed)
    truth = json.loads((folder / "boxes.json").read_text())
    result = evaluate_detection(model, folder / "images", folder / "boxes.json", precision="fp32")
    stats, precision = oracle(truth, found_by(model, folder, truth))
    data = json.loads(json.dumps(result.as_dict()))
    assert list(data) == ["map", "map50", "ap", "images", "ms_per_image"]
    assert 0.1 < data["map"] < 0.95
    assert data["map"] == pytest.approx(stats[0], abs=1e-6)
    assert data["map50"] == pytest.approx(stats[1], abs=1e-6)
    assert np.mean([ap["ap75"] for ap in data["ap"].values()]) == pytest.approx(stats[2], abs=1e-6)
    assert list(data["ap"]) == ["red", "green", "blue"]
    np.testing.assert_allclose([ap["ap"] for ap in data["ap"].values()], precision.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose([ap["ap50"] for ap in data["ap"].values()], precision[0].mean(0), atol=1e-6)
    assert data["images"] == 12
    assert data["ms_per_image"] > 0


@pytest.mark.parametrize("seed", range(5))
def test_precision_of_random_boxes_equals_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs, truth, found = [], {"images": [], "annotations": [], "categories": []}, []
    truth["categories"] = [{"id": k, "name": str(k)} for k in range(4)]  # class 3 is never in truth
    for i in range(15):
        truth["images"].append({"id": 100 + i, "width": 200, "height": 100})
        m = int(rng.integers(0, 8))
        boxes = _random_boxes(rng, m)
        ids, crowd = rng.integers(0, 3, m), rng.random(m) < 0.15
        for box, k, c in zip(boxes.tolist(), ids.tolist(), crowd.tolist(), strict=True):
            add_box(truth, i, k, [box[0], box[1], box[2] - box[0], box[3] - box[1]], c)
        # each object twice, the second time mostly of another class, and more boxes than COCO looks at in one picture
        other = _random_boxes(rng, 420 if i == 3 else 4)
        near = np.concatenate([boxes, boxes, other])
        classes = np.concatenate([ids, rng.integers(0, 4, m + len(other))])
        n = len(near)
        order = rng.permutation(n)
        near, classes = near[order], classes[order]
        near = (near + rng.uniform(-3, 3, near.shape)).astype(np.float32)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        scores = np.sort(rng.choice(np.linspace(0.01, 1, 40), n)).astype(np.float32)[::-1].copy()  # many ties
        areas = np.array([a["area"] for a in truth["annotations"] if a["image_id"] == 100 + i])
        pairs.append(((boxes, ids, crowd, areas.reshape(-1)), Detections(near, scores, classes.astype(np.int32))))
        found += [
            {"image_id": 100 + i, "category_id": int(k), "score": float(s),
             "bbox": [float(b[0]), float(b[1]), float(b[2]) - float(b[0]), float(b[3]) - float(b[1])]}
            for b, s, k in zip(near, scores, classes, strict=True)
        ]  # fmt: skip
    precision, scores = coco_precision([t for t, _ in pairs], [d for _, d in pairs], 4)
    np.testing.assert_allclose(precision, oracle(truth, found)[1], atol=1e-9)
    assert (precision[:, :, 3] == -1).all()
    assert (scores[:, :, 3] == -1).all()
    reached = scores[0, :, 0][precision[0, :, 0] > 0]
    assert len(reached) > 40
    assert (np.diff(reached) <= 0).all()  # more recall costs score


def _random_boxes(rng: np.random.Generator, n: int) -> np.ndarray:
    low = rng.uniform(0, [150, 60], (n, 2))
    return np.hstack([low, low + rng.uniform(4, 40, (n, 2))]).astype(np.float32)


def test_no_box_found_is_zero_and_no_error() -> None:
    truth = (np.array([[1, 1, 5, 5]], np.float32), np.zeros(1, np.int64), np.zeros(1, bool), np.ones(1))
    precision, _ = coco_precision([truth], [Detections.empty()], 1)
    assert (precision == 0).all()


def write_file(folder: Path, names: list[str], boxes: list[tuple[str, str]], size: tuple[int, int] = (128, 96)) -> Path:
    """One picture with squares; ``boxes``: the colour drawn and the name in the file, a row of squares."""
    (folder / "images").mkdir(exist_ok=True)
    picture = np.full((96, 128, 3), GRAY, np.uint8)
    data: dict[str, Any] = {
        "images": [{"id": 100, "file_name": "a.png", "width": size[0], "height": size[1]}],
        "annotations": [],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(names)],
    }
    for i, (color, name) in enumerate(boxes):
        picture[:CELL, i * CELL : (i + 1) * CELL] = PALETTE[color][::-1]
        add_box(data, 0, names.index(name) + 1, [i * CELL, 0, CELL, CELL])
    cv2.imwrite(str(folder / "images" / "a.png"), picture)
    path = folder / "boxes.json"
    path.write_text(json.dumps(data))
    return path


def test_classes_that_one_side_lacks_are_left_out(tmp_path: Path, model: Path) -> None:
    # yellow is found but not in the file; "sign" is in the file but not in the model
    boxes = [("red", "red"), ("yellow", "sign"), ("green", "Green"), ("yellow", "sign")]
    result = evaluate_detection(
        model, tmp_path / "images", write_file(tmp_path, ["sign", "Green", "red"], boxes), precision="fp32"
    )
    data = result.as_dict()
    assert data["map"] == data["map50"] == 1
    assert list(data["ap"]) == ["green", "red"]
    assert result.left_out == {"sign": 2}
    assert ("left out: the model does not have these classes", [{"class": "sign", "boxes": 2}]) in result.tables()


def test_a_foreign_model_is_evaluated_by_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from perception.foreign import adapt
    from tests.foreign.test_adapt import color_detector, scene, write_card

    monkeypatch.setattr("perception.engines.cache.compiled_models_dir", lambda engine: tmp_path / "cache" / engine)
    model, card = color_detector().write(tmp_path / "theirs.onnx"), write_card(tmp_path / "card.yaml")
    adapt(model, card, tmp_path / "ours.onnx")
    path = write_file(tmp_path, ["red", "green", "blue"], [])
    cv2.imwrite(str(tmp_path / "images" / "a.png"), scene())
    data = json.loads(path.read_text())
    add_box(data, 0, 1, [0, 32, 32, 32])
    add_box(data, 0, 3, [96, 64, 32, 32])
    add_box(data, 0, 2, [0, 0, 32, 32])  # nothing is there
    path.write_text(json.dumps(data))
    parts = (tmp_path / "images", path)
    theirs = evaluate_detection(model, *parts, card=card, precision="fp32").as_dict()
    ours = evaluate_detection(tmp_path / "ours.onnx", *parts, precision="fp32").as_dict()
    assert theirs["ap"] == ours["ap"]
    assert theirs["map50"] == pytest.approx(2 / 3)


def test_synonyms_join_classes(tmp_path: Path, model: Path) -> None:
    boxes = [("red", "crimson"), ("red", "scarlet"), ("green", "cold"), ("blue", "cold")]
    path = write_file(tmp_path, ["crimson", "scarlet", "cold"], boxes)
    synonyms = {"crimson": ["red"], "scarlet": ["red"], "cold": ["green", "blue"]}
    result = evaluate_detection(model, tmp_path / "images", path, synonyms=synonyms, precision="fp32")
    assert result.boxes == [2, 2]
    assert {name: ap["ap"] for name, ap in result.as_dict()["ap"].items()} == {"red": 1, "cold": 1}


def test_a_thing_found_as_two_classes_that_are_one_is_found_once(tmp_path: Path, model: Path) -> None:
    path = write_file(tmp_path, ["warm"], [("red", "warm"), ("red", "warm")])
    picture = np.full((96, 128, 3), GRAY, np.uint8)
    for i, orange in enumerate([(0, 128, 255), (0, 128, 220)]):  # BGR: a bit red, a bit yellow, the second less of both
        picture[:CELL, i * CELL : (i + 1) * CELL] = orange
    cv2.imwrite(str(tmp_path / "images" / "a.png"), picture)
    result = evaluate_detection(
        model, tmp_path / "images", path, synonyms={"warm": ["red", "yellow"]}, precision="fp32", engine="onnxruntime"
    )
    assert result.as_dict()["map"] == 1


def test_a_class_without_boxes_has_no_precision_and_is_in_no_mean(tmp_path: Path, model: Path) -> None:
    path = write_file(tmp_path, ["red", "green"], [("red", "red")])
    result = evaluate_detection(model, tmp_path / "images", path, precision="fp32")
    data = json.loads(json.dumps(result.as_dict()))
    assert data["ap"]["green"] == {"ap": None, "ap50": None, "ap75": None}
    assert data["map"] == 1
    assert [curve.name for curve in result.curves] == ["red, AP50 1.000"]
    assert result.tables()[0][1][1]["AP"] == "-"


def test_the_worst_pictures_and_the_confusion(tmp_path: Path, model: Path) -> None:
    folder = write_boxes(tmp_path, images=10, seed=4)
    result = evaluate_detection(model, folder / "images", folder / "boxes.json", worst=10)
    mistakes = [sum(map(int, e.caption.partition(":")[2].replace(",", "").split()[:3:2])) for e in result.examples]
    assert len(mistakes) == 10
    assert mistakes == sorted(mistakes, reverse=True)
    assert mistakes[0] > mistakes[-1]
    assert result.confusion[:-1].sum() == sum(result.boxes)
    rows = result.confusion.sum(1)[:-1].tolist()
    assert rows == result.boxes
    assert {panel.shape for e in result.examples for _, panel in e.panels} == {(96, 128, 3)}
    # the file says more than what is drawn, so the pictures differ from the plain one
    title, drawn = result.examples[0].panels[1]
    assert "truth" in title
    assert (drawn != result.examples[0].panels[0][1]).any()


def test_what_cannot_be_measured(tmp_path: Path, model: Path) -> None:
    images = tmp_path / "images"
    path = write_file(tmp_path, ["red"], [("red", "red")])
    masks = write_model(tmp_path / "masks.onnx")
    with pytest.raises(ModelError, match=r"masks\.onnx: this model does not do detection, only segmentation"):
        evaluate_detection(masks, images, path)
    with pytest.raises(UsageError, match=r"no class in common: red, green.* against bicycle"):
        evaluate_detection(model, images, write_file(tmp_path, ["bicycle"], [("red", "bicycle")]))
    with pytest.raises(UsageError, match=r"the model has no class 'rad'; did you mean 'red'"):
        evaluate_detection(model, images, path, synonyms={"bicycle": ["rad"]})
    with pytest.raises(SourceError, match="no boxes of the classes red"):
        evaluate_detection(model, images, write_file(tmp_path, ["red"], []))
    with pytest.raises(
        SourceError, match=r"1 of 1 images are faulty: .*a\.png: the image is 128x96, boxes\.json says 9x9"
    ):
        evaluate_detection(model, images, write_file(tmp_path, ["red"], [("red", "red")], size=(9, 9)))


def image_of(boxes: list[list[float]], ids: list[int], crowd: list[bool] | None = None) -> BoxedImage:
    crowd = crowd or [False] * len(ids)
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return BoxedImage(
        1,
        Path("x"),
        100,
        100,
        array,
        np.array(ids, np.int64),
        np.array(crowd, bool),
        np.ones(len(ids)),
        np.ones(len(ids), np.float32),
    )


def boxes_of(*rows: tuple[list[float], float, int]) -> Detections:
    return Detections(
        np.array([r[0] for r in rows], np.float32).reshape(-1, 4),
        np.array([r[1] for r in rows], np.float32),
        np.array([r[2] for r in rows], np.int32),
    )


def test_pairs_by_score_then_overlap() -> None:
    truth = image_of([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]], [0, 1, 0, 1])
    found = boxes_of(
        ([0, 0, 10, 9], 0.9, 0),  # right
        ([0, 0, 10, 10], 0.8, 0),  # a second box on the same object
        ([20, 0, 30, 8], 0.7, 0),  # the wrong class
        ([40, 0, 50, 4.9], 0.6, 0),  # overlaps by less than half
        ([80, 80, 90, 90], 0.5, 1),  # nothing there
    )
    result = compare(truth, found, 2)
    assert result.found.tolist() == [True, False, False, False]
    assert result.right.tolist() == [True, False, False, False, False]
    assert result.confusion.tolist() == [[1, 0, 1], [1, 0, 1], [2, 1, 0]]
    assert (result.missed, result.wrong, result.mistakes) == (3, 4, 7)


def test_a_box_of_the_right_class_comes_before_a_better_one_of_another() -> None:
    truth = image_of([[0, 0, 10, 10]], [0])
    result = compare(truth, boxes_of(([0, 0, 10, 10], 0.9, 1), ([0, 0, 10, 8], 0.3, 0)), 2)
    assert result.found.tolist() == [True]
    assert result.right.tolist() == [False, True]
    assert result.confusion.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_boxes_in_a_crowd_do_not_count() -> None:
    truth = image_of([[0, 0, 50, 50]], [0], [True])
    result = compare(truth, boxes_of(([5, 5, 10, 10], 0.9, 0), ([5, 5, 10, 10], 0.9, 1)), 2)
    assert result.found.tolist() == [True]
    assert result.right.tolist() == [True, False]
    assert result.confusion.tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_nothing_against_nothing() -> None:
    result = compare(image_of([], []), Detections.empty(), 3)
    assert result.mistakes == 0
    assert result.confusion.tolist() == np.zeros((4, 4), int).tolist()


def test_iou_equals_counting_pixels() -> None:
    rng = np.random.default_rng(0)
    low = rng.integers(0, 12, (30, 2))
    boxes = np.hstack([low, low + rng.integers(1, 9, (30, 2))]).astype(np.float32)
    masks = np.zeros((30, 24, 24), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.astype(int), strict=True):
        mask[y0:y1, x0:x1] = True
    common = (masks[:, None] & masks[None]).sum((2, 3))
    union = (masks[:, None] | masks[None]).sum((2, 3))
    np.testing.assert_allclose(box_iou(boxes, boxes), common / union)
