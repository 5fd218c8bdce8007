"""A drawn data set: boxes (1) and balls (2) on the ground (0), with an ignored frame (255)."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

SIZE = (96, 72)


def draw_sample(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 ``[72, 96, 3]`` BGR and labels uint8 ``[72, 96]``."""
    width, height = SIZE
    image = rng.integers(80, 110, (height, width, 3), np.uint8)
    labels = np.zeros((height, width), np.uint8)
    x, y = int(rng.integers(4, 40)), int(rng.integers(4, 30))
    for target, color in ((image, (40, 60, 220)), (labels, (1,))):
        cv2.rectangle(target, (x, y), (x + 30, y + 24), color, -1)
    x, y = int(rng.integers(30, 80)), int(rng.integers(40, 60))
    for target, color in ((image, (220, 120, 40)), (labels, (2,))):
        cv2.circle(target, (x, y), 11, color, -1)
    labels[:2] = 255
    return image, labels


def write_folder(root: Path, train: int = 16, val: int = 4, seed: int = 0) -> Path:
    """Write ``root/{train,val}/{images,labels}``; returns ``root``."""
    rng = np.random.default_rng(seed)
    for part, count in (("train", train), ("val", val)):
        for kind in ("images", "labels"):
            (root / part / kind).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image, labels = draw_sample(rng)
            cv2.imwrite(str(root / part / "images" / f"{i:03d}.png"), image)
            cv2.imwrite(str(root / part / "labels" / f"{i:03d}.png"), labels)
    return root


def write_boxes(root: Path, train: int = 24, val: int = 4, seed: int = 7) -> Path:
    """Write ``root/{boxes,boxes-val}/{images,annotations.json}``, COCO files of the same scenes; returns ``root``."""
    rng = np.random.default_rng(seed)
    for part, count in (("boxes", train), ("boxes-val", val)):
        (root / part / "images").mkdir(parents=True)
        data: dict[str, list[dict[str, object]]] = {
            "categories": [{"id": 5, "name": "box"}, {"id": 9, "name": "ball"}],
            "images": [],
            "annotations": [],
        }
        for i in range(count):
            image, labels = draw_sample(rng)
            cv2.imwrite(str(root / part / "images" / f"{i:03d}.png"), image)
            data["images"].append({"id": i, "file_name": f"{i:03d}.png", "width": SIZE[0], "height": SIZE[1]})
            for class_id, category in ((1, 5), (2, 9)):
                x, y, w, h = cv2.boundingRect((labels == class_id).astype(np.uint8))
                entry = {"image_id": i, "category_id": category, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
                data["annotations"].append({"id": len(data["annotations"]) + 1, **entry})
        (root / part / "annotations.json").write_text(json.dumps(data))
    return root
