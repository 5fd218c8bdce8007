"""Two drawn sets of pictures with different labels, and a recipe that trains on both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from tests.training.pictures import draw_sample, write_boxes, write_folder

SMOKE = Path(__file__).parents[2] / "configs" / "train" / "street-smoke.yaml"
NAMES = ["ground", "box", "ball"]
PLAIN = {"images": "train/images", "labels": "train/labels"}


def write_sets(root: Path) -> Path:
    """The drawn data set, and another: other ids, balls not labelled, COCO boxes beside its masks."""
    write_boxes(write_folder(root, train=8, val=3), train=8, val=3)
    rng = np.random.default_rng(11)
    for part in ("town", "far"):
        for kind in ("images", "labels"):
            (root / part / kind).mkdir(parents=True)
        data: dict[str, Any] = {
            "categories": [{"id": 1, "name": "box"}, {"id": 2, "name": "ball"}],
            "images": [],
            "annotations": [],
        }
        for i in range(6):
            image, labels = draw_sample(rng)
            theirs = np.full_like(labels, 9)  # what it does not label
            theirs[labels == 0], theirs[labels == 1] = 40, 41
            cv2.imwrite(str(root / part / "images" / f"{part}{i}.png"), image)
            cv2.imwrite(str(root / part / "labels" / f"{part}{i}.png"), theirs)
            if i == 5:
                continue  # nobody looked for boxes in the last
            data["images"].append({"id": i, "file_name": f"{part}{i}.png", "width": 96, "height": 72})
            for class_id in (1, 2):
                x, y, w, h = cv2.boundingRect((labels == class_id).astype(np.uint8))
                entry = {"image_id": i, "category_id": class_id, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0}
                entry |= {"id": len(data["annotations"]) + 1, "score": 0.9 if class_id == 1 else 0.3}
                data["annotations"].append(entry)
        (root / part / "boxes.json").write_text(json.dumps(data))
    return root


TOWN = {
    "images": "town/images",
    "labels": "town/labels",
    "ids": {40: "ground", 41: "box"},
    "ignore": [9],
    "labelled": ["ground", "box"],
    "share": 1.0,
    "weight": 0.5,
    "boxes": {"annotations": "town/boxes.json", "names": {"box": "crate", "ball": "ball"}, "min_score": 0.5},
}
FAR = {k: TOWN[k] for k in ("ids", "ignore", "labelled")} | {"images": "far/images", "labels": "far/labels"}


def recipe(folder: Path, **changes: Any) -> Path:
    """The smoke recipe with a second set to train on and one to measure on, two epochs of few steps."""
    folder.mkdir(exist_ok=True)
    content = yaml.safe_load(SMOKE.read_text())
    content |= {"output": str(folder / "run"), "epochs": 2, "steps": 3, "evaluate_every": 1}
    content["augment"]["crops"] = [{"start": 0, "size": [64, 64]}]
    content["data"] |= {"train": [{**content["data"]["train"], "share": 3.0}, TOWN], "dev": [{**FAR, "name": "far"}]}
    for key, value in changes.items():
        *parents, last = key.split("__")
        part = content
        for name in parents:
            part = part[name]
        part[last] = value
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path
