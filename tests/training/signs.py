"""A drawn set of pictures with one class each: what shape is it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

NAMES = ("ball", "box", "cross")


def draw_sign(label: int, rng: np.random.Generator, side: int = 32) -> np.ndarray:
    """uint8 ``[side, side, 3]`` BGR: a bright shape of class ``label`` somewhere on a dark, noisy ground."""
    image = rng.integers(0, 60, (side, side, 3), np.uint8)
    color = tuple(int(v) for v in rng.integers(150, 256, 3))
    x, y = (int(v) for v in rng.integers(side * 3 // 8, side * 5 // 8, 2))
    r = int(rng.integers(side // 5, side // 3))
    if label == 0:
        cv2.circle(image, (x, y), r, color, -1)
    elif label == 1:
        cv2.rectangle(image, (x - r, y - r), (x + r, y + r), color, -1)
    else:
        cv2.line(image, (x - r, y - r), (x + r, y + r), color, 3)
        cv2.line(image, (x - r, y + r), (x + r, y - r), color, 3)
    return image


def write_signs(root: Path, each: int = 30, seed: int = 0, side: int = 32) -> Path:
    """Write ``root/NAME/000.png``...; returns ``root``."""
    rng = np.random.default_rng(seed)
    for label, name in enumerate(NAMES):
        (root / name).mkdir(parents=True)
        for i in range(each):
            cv2.imwrite(str(root / name / f"{i:03d}.png"), draw_sign(label, rng, side))
    return root
