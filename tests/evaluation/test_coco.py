"""Reading COCO files, whole and broken ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from perception.errors import SourceError
from perception.evaluation.coco import CocoFile
from perception.evaluation.faults import Fault


def write(folder: Path, **changes: Any) -> Path:
    """A data set of three blank pictures 64x48 without boxes; ``changes`` replace what the file says."""
    entries = [{"id": 10 + i, "file_name": f"{i}.png", "width": 64, "height": 48} for i in range(3)]
    for entry in entries:
        cv2.imwrite(str(folder / str(entry["file_name"])), np.zeros((48, 64, 3), np.uint8))
    data = {
        "images": entries,
        "categories": [{"id": 3, "name": "car"}, {"id": 7, "name": "bus"}],
        "annotations": [],
    } | changes
    path = folder / "annotations.json"
    path.write_text(json.dumps(data))
    return path


def box(image: int, bbox: Any, category: int = 3, **more: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 10 + image, "category_id": category, "bbox": bbox, "iscrowd": 0} | more


def test_images_and_boxes_as_pycocotools_reads_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    annotations = []
    for i in range(40):
        x, y = rng.uniform(0, 40), rng.uniform(0, 30)
        annotations.append(
            box(int(rng.integers(0, 3)), [x, y, *rng.uniform(1, 15, 2)], int(rng.choice([3, 7])), id=i + 1,
                area=float(i), iscrowd=int(i % 9 == 0))
        )  # fmt: skip
    path = write(tmp_path, annotations=annotations)
    read, oracle = CocoFile(path, tmp_path), COCO(path)
    assert read.faults == []
    assert read.categories == {3: "car", 7: "bus"}
    assert [image.id for image in read.images] == [10, 11, 12]
    for image in read.images:
        expected = oracle.loadAnns(oracle.getAnnIds(imgIds=[image.id]))
        sizes = image.boxes[:, 2:] - image.boxes[:, :2]
        np.testing.assert_allclose(np.hstack([image.boxes[:, :2], sizes]), [a["bbox"] for a in expected], atol=1e-5)
        assert image.category_ids.tolist() == [a["category_id"] for a in expected]
        assert image.crowd.tolist() == [bool(a["iscrowd"]) for a in expected]
        assert image.areas.tolist() == [a["area"] for a in expected]
    counted = {
        n: sum(a["category_id"] == i and not a["iscrowd"] for a in annotations) for i, n in read.categories.items()
    }
    faults, boxes = read.check()
    assert (faults, boxes) == ([], counted)


def test_boxes_that_cannot_be_are_named(tmp_path: Path) -> None:
    odd = {
        1: ([5, 5, 0, 9], "has no area"),
        2: ([5, 5, -3, 9], "has no area"),
        3: ([64, 5, 3, 3], "is outside its image, 64x48"),
        4: ([-9, 5, 9, 3], "is outside its image"),
        5: ([60, 40, 10, 5], "reaches outside its image"),
        6: ([1, 2, 3], "bbox must be 4 numbers"),
        7: ([1, 2, float("nan"), 4], "bbox must be 4 numbers"),
        8: (["1", 2, 3, 4], "bbox must be 4 numbers"),
        9: (None, "bbox must be 4 numbers"),
        10: ([1, 2, 10**400, 4], "bbox must be 4 numbers"),
    }
    # an evaluator would leave out boxes of a negative area, and count them all the same
    good = [box(1, [0, 0, 64, 48], id=20, area=-1), box(1, [-0.5, -1, 65, 50], id=21, area=10**400)]
    read = CocoFile(write(tmp_path, annotations=[*(box(1, b, id=i) for i, (b, _) in odd.items()), *good]), tmp_path)
    assert len(read.faults) == len(odd)
    for fault, (number, (_, message)) in zip(read.faults, odd.items(), strict=True):
        assert f"annotation {number} of 1.png: " in str(fault)
        assert message in fault.what
        assert not fault.fatal
    np.testing.assert_array_equal(read.images[1].boxes, [[60, 40, 64, 45], [0, 0, 64, 48], [-0.5, -1, 64.5, 49]])
    assert read.images[1].areas.tolist() == [20, 64 * 48, 65 * 50]


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        ({"annotations": [box(9, [1, 1, 2, 2])]}, "annotations[0] (id 1)", "unknown image_id 19"),
        ({"annotations": [box(0, [1, 1, 2, 2], 4)]}, "annotations[0] (id 1)", "unknown category_id 4"),
        (
            {"categories": [{"id": 3, "name": "car"}, {"id": 1 << 70, "name": "bus"}]},
            "categories[1]", "needs a whole id and a name",
        ),
        ({"annotations": [box(0, [1, 1, 2, 2], image_id="x")]}, "annotations[0] (id 1)", "unknown image_id 'x'"),
        ({"categories": [{"id": 3, "name": "car"}, {"id": 3, "name": "bus"}]}, "categories[1]", "id 3 is used twice"),
        ({"categories": [{"id": 3, "name": "car"}, {"id": 4}]}, "categories[1]", "needs a whole id and a name"),
        ({"images": [{"id": 10, "file_name": "0.png", "width": 64}]}, "images[0]", "needs a whole id, file_name"),
        ({"images": [{"id": 1, "file_name": "z.png", "width": 4, "height": 4}]}, "z.png", "missing image"),
        (
            {"images": [{"id": 1, "file_name": "0.png", "width": 64, "height": 48}] * 2},
            "images[1]", "id 1 is used twice",
        ),
    ],
)  # fmt: skip
def test_entries_that_do_not_fit_are_fatal(tmp_path: Path, change: dict[str, Any], where: str, what: str) -> None:
    read = CocoFile(write(tmp_path, **change), tmp_path)
    (fault,) = read.faults
    assert fault.fatal
    assert where in fault.where
    assert what in fault.what


def test_pictures_that_do_not_fit(tmp_path: Path) -> None:
    path = write(tmp_path)
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "2.png").write_bytes(b"no picture")
    seen: list[tuple[int, int]] = []
    faults, _ = CocoFile(path, tmp_path).check(lambda *done: seen.append(done))
    assert [str(f).removeprefix(f"{tmp_path}/") for f in faults] == [
        "0.png: the image is 30x20, annotations.json says 64x48",
        "2.png: corrupt image",
    ]
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_file_names_may_carry_the_folder(tmp_path: Path) -> None:
    write(tmp_path)
    entry = {"id": 1, "file_name": "val2017/0.png", "width": 64, "height": 48}
    path = tmp_path / "other.json"
    path.write_text(json.dumps({"images": [entry], "annotations": [], "categories": [{"id": 1, "name": "a"}]}))
    read = CocoFile(path, tmp_path)
    assert read.images[0].path == tmp_path / "0.png"
    assert not isinstance(read.read(read.images[0]), Fault)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("", "not JSON"),
        ("\xff\xfe", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1, 2]", "no list of 'images'"),
        ('{"images": [], "annotations": {}, "categories": []}', "no list of 'annotations'"),
        ('{"images": [3], "annotations": [], "categories": []}', "an entry of 'images' is not an object"),
        ('{"images": [], "annotations": [], "categories": []}', "no images"),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', "no categories"),
    ],
)
def test_files_that_are_no_coco_files(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content, "latin-1")
    with pytest.raises(SourceError, match=message) as caught:
        CocoFile(path, tmp_path)
    assert "a.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("image_id", "category_id"),
    [
        (lambda i: str(i), lambda i: str(i)),
        (lambda i: f"{i:06d}", lambda i: i),
        (float, float),
        (lambda i: f"{i}.0", str),
    ],
)
def test_ids_as_text_or_with_a_decimal_point(tmp_path: Path, image_id: Any, category_id: Any) -> None:
    rng = np.random.default_rng(0)
    annotations = [
        box(int(rng.integers(0, 3)), [*rng.uniform(0, 30, 2), 5, 6], int(rng.choice([3, 7])), id=i) for i in range(12)
    ]
    right = CocoFile(write(tmp_path, annotations=annotations), tmp_path)
    entries = [
        {"id": image_id(10 + i), "file_name": f"{i}.png", "width": image_id(64), "height": image_id(48)}
        for i in range(3)
    ]
    for entry in annotations:
        entry |= {"image_id": image_id(entry["image_id"]), "category_id": category_id(entry["category_id"])}
    categories = [{"id": category_id(3), "name": "car"}, {"id": category_id(7), "name": "bus"}]
    path = write(tmp_path, annotations=annotations, images=entries, categories=categories)
    read = CocoFile(path, tmp_path)
    assert read.faults == []
    assert read.categories == right.categories
    for ours, theirs in zip(read.images, right.images, strict=True):
        assert (ours.id, ours.width, ours.height) == (theirs.id, theirs.width, theirs.height)
        np.testing.assert_array_equal(ours.boxes, theirs.boxes)
        np.testing.assert_array_equal(ours.category_ids, theirs.category_ids)


def test_ids_that_are_none_are_refused_with_the_reason(tmp_path: Path) -> None:
    categories = [{"id": "car-1", "name": "car"}, {"id": 2.5, "name": "bus"}]
    with pytest.raises(SourceError, match=r"no categories.*needs a whole id and a name, has 'car-1' and 'car'"):
        CocoFile(write(tmp_path, categories=categories), tmp_path)


@pytest.mark.parametrize("name", [r"..\images\{}", r"C:\data\set 1\{}", r"sub\{}", "..\\images/{}", "/data/images/{}"])
def test_names_of_windows(tmp_path: Path, name: str) -> None:
    entries = [{"id": 10 + i, "file_name": name.format(f"{i}.png"), "width": 64, "height": 48} for i in range(3)]
    path = write(tmp_path)
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"images": entries}))
    read = CocoFile(path, tmp_path)
    assert read.faults == []
    assert [image.path.name for image in read.images] == ["0.png", "1.png", "2.png"]


def test_a_folder_named_with_a_backslash(tmp_path: Path) -> None:
    path = write(tmp_path)
    data = json.loads(path.read_text())
    (tmp_path / "train").mkdir()
    cv2.imwrite(str(tmp_path / "train" / "0.png"), np.full((48, 64, 3), 9, np.uint8))
    data["images"][0]["file_name"] = r"train\0.png"
    path.write_text(json.dumps(data))
    assert CocoFile(path, tmp_path).images[0].path == tmp_path / "train" / "0.png"


@pytest.mark.parametrize("seed", range(4))
def test_polygons_without_boxes_get_the_box_around_them(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    annotations, boxes = [], []
    for i in range(10):
        points = rng.uniform(2, 45, (int(rng.integers(3, 9)), 2))
        parts = [points[:4].ravel().tolist(), points.ravel().tolist()][: 1 + i % 2]
        used = np.concatenate([np.reshape(part, (-1, 2)) for part in parts])
        boxes.append([*used.min(0), *used.max(0)])
        annotations.append({"id": i, "image_id": 10, "category_id": 3, "segmentation": parts})
        if i % 3 == 0:
            annotations[-1]["bbox"] = []
    read = CocoFile(write(tmp_path, annotations=annotations), tmp_path)
    assert read.faults == []
    np.testing.assert_allclose(read.images[0].boxes, np.clip(boxes, 0, [64, 48, 64, 48]), atol=1e-3)


@pytest.mark.parametrize("segmentation", [[], [[1, 2, 3]], [["a", "b"]], {"counts": [1, 2], "size": [3, 4]}, 5, [5]])
def test_what_is_no_polygon_is_named(tmp_path: Path, segmentation: Any) -> None:
    annotation = {"id": 4, "image_id": 10, "category_id": 3, "segmentation": segmentation}
    read = CocoFile(write(tmp_path, annotations=[annotation]), tmp_path)
    assert [fault.what for fault in read.faults] == ["bbox must be 4 numbers (x, y, width, height), not None; left out"]
