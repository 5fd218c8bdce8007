import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from perception.sinks import open_sink
from tests.sinks.samples import card, class_map, detections, info, prediction


def test_boxes_load_into_the_reference_api(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    given = {i: detections(n, seed=i, tracks=i == 2) for i, n in enumerate((2, 0, 3))}
    with open_sink(path) as sink:
        sink.open(info(), card())
        for index, found in given.items():
            sink.write(prediction(index, detections=found))
    data = COCO(str(path))
    assert sorted(data.getImgIds()) == [0, 1, 2]
    assert data.imgs[1]["time"] == 0.04
    assert (data.imgs[1]["width"], data.imgs[1]["height"]) == (64, 48)
    assert {c["id"]: c["name"] for c in data.dataset["categories"]} == {1: "car", 2: "person"}
    assert min(data.getAnnIds()) == 1
    for index, found in given.items():
        rows = data.loadAnns(data.getAnnIds(imgIds=[index]))
        boxes = np.array([r["bbox"] for r in rows]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_allclose(boxes, found.boxes, atol=0.011)
        assert [r["category_id"] - 1 for r in rows] == found.class_ids.tolist()
        np.testing.assert_allclose([r["score"] for r in rows], found.scores, atol=0.000051)
        areas = (found.boxes[:, 2] - found.boxes[:, 0]) * (found.boxes[:, 3] - found.boxes[:, 1])
        np.testing.assert_allclose([r["area"] for r in rows], areas, atol=0.0051)
        assert [r.get("track_id") for r in rows] == ([100, 101, 102] if index == 2 else [None] * len(rows))
        assert [r.get("attributes", {}).get("track_id") for r in rows] == [r.get("track_id") for r in rows]
        assert all(r["attributes"]["keyframe"] is True for r in rows if "attributes" in r)  # CVAT needs both
    results = data.loadRes(data.dataset["annotations"])
    assert len(results.getAnnIds()) == 5


@pytest.mark.parametrize("detection", [True, False])
def test_masks_decode_to_the_class_mask(tmp_path: Path, detection: bool) -> None:
    rng = np.random.default_rng(0)
    mask = np.kron(rng.integers(0, 3, (6, 8)), np.ones((8, 8))).astype(np.uint8)
    path = tmp_path / "out.json"
    # Without detection masks are what there is to write, and come unasked.
    with open_sink(path, masks=True if detection else None) as sink:
        sink.open(info(), card(detection=detection))
        sink.write(prediction(4, class_map=class_map(mask)))
    data = COCO(str(path))
    names = {c["id"]: c["name"] for c in data.dataset["categories"]}
    assert len(names) == (5 if detection else 3)
    rows = data.loadAnns(data.getAnnIds(imgIds=[4]))
    assert [names[r["category_id"]] for r in rows] == ["road", "sky", "tree"]
    for class_id, row in enumerate(rows):
        one = mask == class_id
        np.testing.assert_array_equal(data.annToMask(row), one)
        assert row["area"] == one.sum()
        x, y, w, h = row["bbox"]
        assert one[y : y + h, x : x + w].sum() == one.sum()
        assert one[y].any() and one[y + h - 1].any() and one[:, x].any() and one[:, x + w - 1].any()


def test_masks_are_left_out_beside_boxes(tmp_path: Path) -> None:
    with open_sink(tmp_path / "out.json") as sink:
        sink.open(info(), card())
        sink.write(prediction(0, detections=detections(1), class_map=class_map(np.zeros((48, 64), np.uint8))))
    annotations = json.loads((tmp_path / "out.json").read_text())["annotations"]
    assert len(annotations) == 1
    assert annotations[0]["segmentation"] == []


def test_no_frames_make_an_empty_data_set(tmp_path: Path) -> None:
    with open_sink(tmp_path / "out.json") as sink:
        sink.open(info(), card())
    data = COCO(str(tmp_path / "out.json"))
    assert data.getImgIds() == []
    assert data.dataset["annotations"] == []
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]


def test_after_an_error_it_is_valid_but_does_not_look_finished(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("the old one")
    with pytest.raises(RuntimeError), open_sink(path, overwrite=True) as sink:
        sink.open(info(), card())
        sink.write(prediction(0, detections=detections(2)))
        raise RuntimeError
    assert path.read_text() == "the old one"
    assert len(json.loads((tmp_path / "out.json.part").read_text())["annotations"]) == 2
