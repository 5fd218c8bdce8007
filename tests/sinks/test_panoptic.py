"""COCO panoptic folders, read back as COCO's own tools do."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from perception.errors import UsageError
from perception.postprocess.panoptic import Panoptic, panoptic
from perception.sinks import open_sink
from perception.types import Detections
from tests.sinks.samples import card, info, prediction

ROAD, SKY, TREE = range(3)


def view(seed: int = 0) -> Panoptic:
    rng = np.random.default_rng(seed)
    mask = np.kron(rng.integers(0, 3, (6, 8)), np.ones((8, 8))).astype(np.uint8)
    corners = rng.uniform(0, 40, (5, 2)).astype(np.float32)
    boxes = np.concatenate((corners, corners + 20), 1)
    found = Detections(boxes, np.linspace(0.9, 0.5, 5, dtype=np.float32), np.zeros(5, np.int32))
    return panoptic(mask, found, {TREE: [0]})


@pytest.mark.parametrize("seed", range(3))
def test_files_are_those_of_coco(tmp_path: Path, seed: int) -> None:
    one = view(seed)
    big = Panoptic(one.ids * 70000, [])  # ids beyond two bytes
    with open_sink(tmp_path / "out", kind="panoptic") as sink:
        sink.open(info(), card())
        sink.write(prediction(0, panoptic=one))
        sink.write(prediction(5, panoptic=big))
        assert not (tmp_path / "out" / "panoptic.json").exists()
    data = json.loads((tmp_path / "out" / "panoptic.json").read_text())
    assert [(i["id"], i["width"], i["height"]) for i in data["images"]] == [(0, 64, 48), (5, 64, 48)]
    assert [a["image_id"] for a in data["annotations"]] == [0, 5]
    for entry, expected in zip(data["annotations"], (one.ids, big.ids), strict=True):
        png = cv2.imread(str(tmp_path / "out" / "panoptic" / entry["file_name"])).astype(np.int64)
        assert np.array_equal(png[..., 2] + 256 * png[..., 1] + 65536 * png[..., 0], expected)
    infos = data["annotations"][0]["segments_info"]
    assert {i["id"] for i in infos} == set(np.unique(one.ids).tolist())
    for segment in infos:
        rows, columns = np.nonzero(one.ids == segment["id"])
        assert segment["area"] == len(rows)
        assert segment["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert segment["iscrowd"] == int(segment["category_id"] - 1 == TREE and "score" not in segment)
    assert any("score" in i for i in infos)


def test_categories_say_what_is_a_thing(tmp_path: Path) -> None:
    with open_sink(tmp_path, kind="panoptic") as sink:
        sink.open(info(), card())
        sink.write(prediction(0, panoptic=view()))
    data = json.loads((tmp_path / "panoptic.json").read_text())
    assert [(c["id"], c["name"], c["isthing"], tuple(c["color"])) for c in data["categories"]] == [
        (1, "road", 0, (128, 64, 128)),
        (2, "sky", 0, (70, 130, 180)),
        (3, "tree", 1, (0, 0, 142)),
    ]


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    for _ in range(2):
        with open_sink(tmp_path, kind="panoptic", overwrite=True) as sink:
            sink.open(info(), card())
            sink.write(prediction(0, panoptic=view()))
    with pytest.raises(UsageError, match=r"the file exists; .*overwrite=True"):
        open_sink(tmp_path, kind="panoptic")
    (tmp_path / "panoptic.json").unlink()
    with pytest.raises(UsageError, match=r"already has \.png files"):
        open_sink(tmp_path, kind="panoptic")
    with pytest.raises(UsageError, match="a file, not a folder"):
        open_sink(tmp_path / "panoptic" / "000000.png", kind="panoptic")


def test_after_an_error_it_is_valid_but_does_not_look_finished(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), open_sink(tmp_path, kind="panoptic") as sink:
        sink.open(info(), card())
        sink.write(prediction(0, panoptic=view()))
        raise RuntimeError
    assert not (tmp_path / "panoptic.json").exists()
    data = json.loads((tmp_path / "panoptic.json.part").read_text())
    assert len(data["annotations"]) == 1 and len(data["categories"]) == 3


def test_it_wants_segments(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not do segmentation"):
        open_sink(tmp_path / "a", kind="panoptic").open(info(), card(segmentation=False))
    with open_sink(tmp_path / "b", kind="panoptic") as sink:
        sink.open(info(), card())
        with pytest.raises(UsageError, match="PanopticStage"):
            sink.write(prediction(0))
