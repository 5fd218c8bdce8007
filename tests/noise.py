"""Random pictures, planes, boxes and logits for tests: the same ones for the same seed.

A ``seed`` may also be a generator, which then goes on.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from perception.types import Planes

Seed = int | np.random.Generator


def noise(*shape: int, seed: Seed = 0) -> np.ndarray:
    """uint8 of any shape."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def noise_frames(n: int, width: int = 64, height: int = 48, seed: Seed = 0) -> np.ndarray:
    """uint8 ``[n, height, width, 3]``: what a network is given."""
    return noise(n, height, width, 3, seed=seed)


def random_planes(
    width: int, height: int, seed: Seed = 0, *, pad: int = 0, chroma: tuple[int, int] = (0, 256), **kind: Any
) -> Planes:
    """I420 planes whose rows are followed by ``pad`` bytes of 77, as decoders pad them.

    A narrow range of ``chroma`` keeps most colours within BGR, so that they are not clipped. ``kind`` is the matrix
    and the range.
    """
    rng = np.random.default_rng(seed)

    def plane(w: int, h: int, low: int, high: int) -> np.ndarray:
        memory = np.full((h, w + pad), 77, np.uint8)
        memory[:, :w] = rng.integers(low, high, (h, w), np.uint8)
        return memory[:, :w]

    half = ((width + 1) // 2, (height + 1) // 2)
    return Planes(plane(width, height, 0, 256), plane(*half, *chroma), plane(*half, *chroma), **kind)


def random_boxes(n: int, seed: Seed = 0, *, size: float = 1000, side: float = 120) -> np.ndarray:
    """float32 ``[n, 4]`` xyxy: centres within ``size``, sides up to ``side``, so that some reach over the edge."""
    rng = np.random.default_rng(seed)
    centre, half = rng.uniform(0, size, (n, 2)), rng.uniform(1, side, (n, 2)) / 2
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def smooth_logits(seed: Seed, classes: int, h: int, w: int) -> np.ndarray:
    """float32 ``[classes, h, w]``: blobs a few cells wide, so that most cells hold one class and others two or more."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(classes, max(h // 4, 1) + 1, max(w // 4, 1) + 1)).astype(np.float32)
    fine = coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :h, :w]
    return np.ascontiguousarray(fine * 5 + rng.normal(size=fine.shape), np.float32)
