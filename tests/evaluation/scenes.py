"""Data sets drawn in the colours that the tiny models of `tests.models` know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tests.models import PALETTE

GRAY = (128, 128, 128)
CELL = 16
"""Side of a square in pixels, the anchor of the tiny detector."""


def write_labels(
    folder: Path, images: int = 6, classes: int = 3, seed: int = 0, size: tuple[int, int] = (64, 48)
) -> Path:
    """``folder/images`` and ``folder/labels``: blocks of palette colours, labels partly wrong, some 11 (void)."""
    rng = np.random.default_rng(seed)
    colors = np.array([c[::-1] for c in PALETTE.values()], np.uint8)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    width, height = size
    for i in range(images):
        blocks = rng.integers(0, classes, (height // 8, width // 8))
        ids = np.kron(blocks, np.ones((8, 8), int)).astype(np.uint8)
        cv2.imwrite(str(folder / "images" / f"{i:03d}.png"), colors[ids])
        # the later, the worse
        ids[rng.random(ids.shape) < 0.03 * i] = rng.integers(0, classes)
        ids[rng.random(ids.shape) < 0.1] = 11
        cv2.imwrite(str(folder / "labels" / f"{i:03d}.png"), ids)
    return folder


def write_boxes(
    folder: Path, images: int = 8, seed: int = 0, names: tuple[str, ...] = ("red", "green", "blue")
) -> Path:
    """``folder/images`` and ``folder/boxes.json``: squares on gray; the file lacks some, moves some, and has more."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 5 * i + 2, "name": name} for i, name in enumerate(names)],
    }
    for i in range(images):
        picture = np.full((96, 128, 3), GRAY, np.uint8)
        for cell in rng.choice(48, int(rng.integers(0, 9)), replace=False).tolist():
            x, y = cell % 8 * CELL, cell // 8 * CELL
            k = int(rng.integers(0, len(names)))
            picture[y : y + CELL, x : x + CELL] = PALETTE[names[k]][::-1]
            fate = rng.random()
            if fate < 0.15:
                continue
            shift = rng.uniform(-5, 5, 2) if fate < 0.5 else (0, 0)
            x0, y0 = np.clip([x + shift[0], y + shift[1]], 0, [128 - CELL, 96 - CELL]).tolist()
            add_box(data, i, 5 * k + 2, [x0, y0, CELL, CELL], crowd=fate > 0.93)
        add_box(data, i, int(rng.integers(0, len(names))) * 5 + 2, [*rng.uniform(0, 60, 2), *rng.uniform(3, 30, 2)])
        cv2.imwrite(str(folder / "images" / f"{i}.png"), picture)
        data["images"].append({"id": 100 + i, "file_name": f"{i}.png", "width": 128, "height": 96})
    (folder / "boxes.json").write_text(json.dumps(data))
    return folder


def add_box(data: dict[str, Any], image: int, category: int, box: list[float], crowd: bool = False) -> None:
    """One annotation, xywh."""
    data["annotations"].append(
        {"id": len(data["annotations"]) + 1, "image_id": 100 + image, "category_id": category,
         "bbox": [float(v) for v in box], "area": float(box[2] * box[3]), "iscrowd": int(crowd)}
    )  # fmt: skip
