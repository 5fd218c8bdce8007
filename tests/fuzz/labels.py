"""Labels of data sets: COCO JSON, panoptic and not, their pictures, label PNGs, arrays, and tracks as text."""

from __future__ import annotations

import io
import json
import zipfile
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from perception.errors import PerceptionError
from perception.evaluation.coco import CocoFile
from perception.evaluation.faults import Fault
from perception.evaluation.folders import LabelFolder
from perception.evaluation.labelled import open_labelled
from perception.evaluation.panoptic_folder import PanopticFolder
from perception.tracking.files import detections_of, track_frames
from perception.tracking.mot_text import read_mot
from tests.fuzz import pieces
from tests.fuzz.family import Family, pack, random_for, unpack
from tests.fuzz.mutate import mutated, odd_tree

COCO: dict[str, Any] = {
    "images": [
        {"id": 1, "file_name": "a.png", "width": 64, "height": 48},
        {"id": "2", "file_name": "sub\\b.png", "width": 64.0, "height": "48"},
    ],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 10.5, 20], "area": 210.0, "iscrowd": 0, "score": 0.5},
        {"id": 2, "image_id": 1, "category_id": 4, "segmentation": [[1, 1, 9, 1, 9, 9]], "iscrowd": 1},
        {"id": 3, "image_id": 2, "category_id": 3, "bbox": [60, 40, 20, 20]},
    ],
    "categories": [{"id": 3, "name": "car", "isthing": 1}, {"id": 4, "name": "road", "isthing": 0}],
}
PANOPTIC: dict[str, Any] = COCO | {
    "annotations": [
        {
            "image_id": 1,
            "file_name": "a.png",
            "segments_info": [
                {"id": 257, "category_id": 3, "iscrowd": 0, "bbox": [0, 0, 9, 9], "area": 81},
                {"id": 2, "category_id": 4, "iscrowd": 1},
            ],
        }
    ]
}
MOT = "1,1,10,20,30,40,0.9,1,-1,-1\n1,2,50,20,30,40,0.8,1,-1,-1\n2,1,12,21,30,40,0.9,1,-1,-1\n"


class Inputs(Family):
    """Every reader that an evaluation or a training begins with."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._data = folder.parent / "data"  # nobody's leavings
        (self._data / "images").mkdir(parents=True, exist_ok=True)
        (self._data / "segments").mkdir(exist_ok=True)
        picture = np.full((48, 64, 3), 60, np.uint8)
        for name in ("a.png", "b.png"):
            cv2.imwrite(str(self._data / "images" / name), picture)
        segments = np.zeros((48, 64, 3), np.uint8)
        segments[:9, :9] = (0, 1, 1)
        segments[20:] = (0, 0, 2)
        cv2.imwrite(str(self._data / "segments" / "a.png"), segments)

    @cached_property
    def _files(self) -> dict[str, bytes]:
        ids = np.random.default_rng(0).integers(0, 4, (48, 64), dtype=np.uint8)
        arrays, archive = io.BytesIO(), io.BytesIO()
        np.savez_compressed(arrays, images=np.zeros((2, 8, 8, 3), np.uint8), labels=np.arange(2))
        with zipfile.ZipFile(archive, "w") as file:
            for name in ("car/a.png", "road/b.png"):
                file.writestr(name, cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
        return {"png": cv2.imencode(".png", ids)[1].tobytes(), "npz": arrays.getvalue(), "zip": archive.getvalue()}

    def make(self, seed: int, index: int) -> bytes:
        random = random_for("labels", seed, index)
        kind = random.choice(("coco", "coco", "panoptic", "png", "npz", "zip", "mot"))
        if kind in ("coco", "panoptic"):
            tree = COCO if kind == "coco" else PANOPTIC
            body = json.dumps(odd_tree(random, tree, 4)).encode()
            if random.random() < 0.2:
                body = mutated(random, body)
            if random.random() < 0.03:
                body = b"[" * random.choice((500, 5000, 200_000))
        elif kind == "mot":
            body = mutated(random, MOT.encode() * random.choice((1, 3)))
            if random.random() < 0.5:
                words = MOT.split(",")
                words[random.randrange(len(words))] = random.choice(
                    ("nan", "inf", "-inf", "1e308", "1e999", "-1", "0", "", "x", "9" * 400, "1e-320", "2147483648")
                )
                body = ",".join(words).encode()
        else:
            body = mutated(random, self._files[kind], pieces.chunks(self._files[kind]) if kind == "png" else ())
            if kind == "png" and random.random() < 0.7:
                body = pieces.with_sums(body)
        return pack(body, kind=kind)

    def eat(self, data: bytes) -> bool:
        head, body = unpack(data)
        kind = head["kind"]
        suffix = {"coco": "json", "panoptic": "json", "mot": "txt"}.get(kind, kind)
        path = self.folder / f"labels.{suffix}"
        if kind == "png":
            path = self._data / "labels" / "a.png"
            path.parent.mkdir(exist_ok=True)
        path.write_bytes(body)
        try:
            return self._read(kind, path)
        finally:
            path.unlink()

    def _read(self, kind: str, path: Path) -> bool:
        images = self._data / "images"
        if kind == "coco":
            faults, _ = CocoFile(path, images).check()
            return self._told(faults)
        if kind == "panoptic":
            folder = PanopticFolder(path, images, self._data / "segments")
            classes = {key: number for number, key in enumerate(folder.categories)}
            read = [folder.read(image, classes) for image in folder.images]
            return self._told([*folder.faults, *(one for one in read if isinstance(one, Fault))])
        if kind == "png":
            faults, _ = LabelFolder(images, path.parent, 4, (255,), partly_labelled=True).check()
            return self._told(faults)
        if kind == "mot":
            rows = read_mot(path)
            if rows.last_frame > 100_000:
                return True  # so many frames take their time
            detections, classes = detections_of(rows)
            list(track_frames(detections, classes, 30.0))
            return True
        labelled = open_labelled(path)
        return self._told([one for i in range(min(len(labelled), 20)) if isinstance(one := labelled.read(i), Fault)])

    @staticmethod
    def _told(faults: list[Fault]) -> bool:
        if any(fault.fatal for fault in faults):
            raise PerceptionError(str(faults[0]))
        return True
