"""COCO with identities: what CVAT exports is read, and what we write is read back as the same tracks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perception.errors import UsageError
from perception.evaluation.tracking import evaluate_tracking
from perception.sinks import open_sink
from perception.tracking.coco_tracks import read_coco_tracks
from perception.tracking.mot_text import read_mot
from perception.types import Detections, SourceInfo
from tests.sinks.samples import card, info, prediction


def scene(frames: int = 20) -> list[Detections]:
    """Two cars that cross, and a person who comes late."""
    made = []
    for t in range(frames):
        boxes = [[2 + 2 * t, 4, 12 + 2 * t, 14], [50 - 2 * t, 20, 60 - 2 * t, 33]]
        boxes += [[30, 2 * t / 3, 34, 12 + 2 * t / 3]] if t >= 12 else []
        ids = np.array([5, 2**40 + 1, 77][: len(boxes)], np.int64)
        classes = np.array([0, 0, 1][: len(boxes)], np.int32)
        scores = np.linspace(0.9, 0.7, len(boxes)).astype(np.float32)
        made.append(Detections(np.array(boxes, np.float32), scores, classes, ids))
    return made


def write(path: Path, kind: str, found: list[Detections], about: SourceInfo) -> None:
    with open_sink(path, kind=kind) as sink:
        sink.open(about, card())
        for index, one in enumerate(found):
            sink.write(prediction(index, detections=one))


def through_cvat(document: dict[str, Any]) -> dict[str, Any]:
    """The document as CVAT exports a video task with these tracks ("COCO 1.0").

    Images and categories are numbered from 1, images are called by their frames, boxes come by image, an identity is an
    attribute and counts from 0, there is no score, and each annotation says whether it is rotated.
    """
    tracks = {t: n for n, t in enumerate(dict.fromkeys(a["attributes"]["track_id"] for a in document["annotations"]))}
    images = [
        {"id": i["id"] + 1, "width": i["width"], "height": i["height"], "file_name": i["file_name"], "license": 0,
         "flickr_url": "", "coco_url": "", "date_captured": 0}
        for i in document["images"]
    ]  # fmt: skip
    annotations = [
        {
            "id": number, "image_id": a["image_id"] + 1, "category_id": a["category_id"], "segmentation": [],
            "area": a["area"], "bbox": a["bbox"], "iscrowd": 0,
            "attributes": {"occluded": False, "rotation": 0.0, "track_id": tracks[a["attributes"]["track_id"]],
                           "keyframe": a["image_id"] % 5 == 0},
        }
        for number, a in enumerate(document["annotations"], 1)
    ]  # fmt: skip
    categories = [{"id": c["id"], "name": c["name"], "supercategory": ""} for c in document["categories"]]
    return {"licenses": [], "info": {}, "categories": categories, "images": images, "annotations": annotations}


def test_what_we_write_is_what_cvat_imports_and_comes_back(tmp_path: Path) -> None:
    found = scene()
    about = info(kind="file")
    write(tmp_path / "out.json", "coco", found, about)
    write(tmp_path / "out.txt", "mot", found, about)
    document = json.loads((tmp_path / "out.json").read_text())
    assert [image["file_name"] for image in document["images"][:2]] == ["frame_000000.PNG", "frame_000001.PNG"]
    assert all(row["segmentation"] == [] and row["attributes"]["keyframe"] for row in document["annotations"])
    ours, text = read_coco_tracks(tmp_path / "out.json"), read_mot(tmp_path / "out.txt")
    np.testing.assert_array_equal(ours.frames, text.frames)
    np.testing.assert_array_equal(ours.ids, text.ids)
    np.testing.assert_allclose(ours.boxes, text.boxes, atol=0.011)
    (tmp_path / "cvat.json").write_text(json.dumps(through_cvat(document)))
    back = read_coco_tracks(tmp_path / "cvat.json")
    np.testing.assert_array_equal(back.frames, text.frames)
    np.testing.assert_allclose(back.boxes, ours.boxes)
    assert {*zip(text.ids.tolist(), back.ids.tolist(), strict=True)} == {(5, 0), (2**40 + 1, 1), (77, 2)}
    for truth, results in (("cvat.json", "out.json"), ("out.json", "cvat.json"), ("cvat.json", "out.txt")):
        measured = evaluate_tracking(tmp_path / truth, tmp_path / results)
        assert measured.hota == pytest.approx(1) and measured.idf1 == 1 and measured.switches == 0
        assert measured.clear_hits == 48


def test_what_we_write_is_read_by_the_library_that_cvat_reads_with(tmp_path: Path) -> None:
    """Through Datumaro and back: boxes, classes and identities stay."""
    datumaro = pytest.importorskip("datumaro", reason="install Datumaro, by which CVAT reads and writes its formats")
    (tmp_path / "in" / "annotations").mkdir(parents=True)
    (tmp_path / "in" / "images").mkdir()
    ours = tmp_path / "in" / "annotations" / "instances_default.json"
    write(ours, "coco", scene(), info(kind="file"))
    read = datumaro.Dataset.import_from(str(tmp_path / "in"), "coco_instances")
    names = [label.name for label in read.categories()[datumaro.AnnotationType.label]]
    found = sorted(
        (item.id, *(round(v, 2) for v in box.get_bbox()), names[box.label], box.attributes["track_id"])
        for item in read
        for box in item.annotations
    )
    document = json.loads(ours.read_text())
    kinds = {c["id"]: c["name"] for c in document["categories"]}
    assert found == sorted(
        (f"frame_{a['image_id']:06d}", *a["bbox"], kinds[a["category_id"]], a["track_id"])
        for a in document["annotations"]
    )
    read.export(str(tmp_path / "out"), "coco_instances")
    back = tmp_path / "out" / "annotations" / "instances_default.json"
    first, second = read_coco_tracks(ours), read_coco_tracks(back)
    np.testing.assert_array_equal(first.frames, second.frames)
    measured = evaluate_tracking(ours, back)
    assert measured.hota == pytest.approx(1) and measured.switches == 0 and measured.clear_hits == 48
    assert {*zip(first.ids.tolist(), [round(x) for x in first.boxes[:, 1]], strict=True)} == {
        *zip(second.ids.tolist(), [round(x) for x in second.boxes[:, 1]], strict=True)
    }


def test_an_identity_that_changes_is_seen(tmp_path: Path) -> None:
    write(tmp_path / "truth.json", "coco", scene(), info(kind="file"))
    document = json.loads((tmp_path / "truth.json").read_text())
    for row in document["annotations"]:
        if row["image_id"] >= 10 and row["track_id"] == 5:
            row["track_id"] = row["attributes"]["track_id"] = 6
    (tmp_path / "found.json").write_text(json.dumps(document))
    assert evaluate_tracking(tmp_path / "truth.json", tmp_path / "found.json").switches == 1


def test_pictures_of_a_folder_come_in_the_order_of_their_ids(tmp_path: Path) -> None:
    images = [{"id": i, "file_name": f"{n}.jpg"} for i, n in ((30, "c"), (10, "a"), (20, "b"))]
    rows = [{"image_id": i, "bbox": [i, 0, 5, 5], "attributes": {"track_id": 1}} for i in (20, 30, 10)]
    rows += [
        {"image_id": 20, "bbox": [0, 0, 1, 1]},
        {"image_id": 10, "bbox": [9, 9, 9, 9], "track_id": 4, "iscrowd": 1},
    ]
    (tmp_path / "a.json").write_text(json.dumps({"images": images, "annotations": rows}))
    found = read_coco_tracks(tmp_path / "a.json")
    assert found.frames.tolist() == [1, 1, 2, 2, 3]
    assert found.boxes[:, 0].tolist() == [10, 9, 20, 0, 30]
    assert found.ids.tolist() == [1, 4, 1, -1, 1] and found.scores.tolist() == [1, 0, 1, 0, 1]


IMAGE = {"id": 1, "file_name": "a.png"}


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("[", "is not JSON"),
        ([], "is no COCO"),
        ({"images": []}, "is no COCO"),
        ({"images": [1], "annotations": []}, "is no COCO"),
        ({"images": [{"id": "1"}], "annotations": []}, "each image needs an id"),
        ({"images": [IMAGE, IMAGE], "annotations": []}, "each image needs an id"),
        ({"images": [IMAGE], "annotations": [{"id": 7, "image_id": 2}]}, "annotation 7 is of an image"),
        ({"images": [IMAGE], "annotations": [{"image_id": 1, "bbox": [1, 2, 3]}]}, "place 0 has no box"),
        ({"images": [IMAGE], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, None]}]}, "has no box"),
        ({"images": [IMAGE], "annotations": [{"image_id": 1, "bbox": [1, 2, -3, 4]}]}, "must not be negative"),
        ({"images": [IMAGE], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4], "track_id": "x"}]}, "a track_id is"),
        ({"images": [IMAGE], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4], "track_id": -1}]}, "a track_id is"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path: Path, document: Any, told: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(UsageError, match=told) as error:
        read_coco_tracks(path)
    assert "a.json" in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        evaluate_tracking(tmp_path / "none.json", tmp_path / "none.json")
