"""Boxes from masks: one around each connected component that is plausibly one whole object."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.training.data.boxes import BoxLabels
from perception.training.recipes.detection import MaskBoxesConfig


def boxes_from_mask(
    labels: NDArray[np.uint8], config: MaskBoxesConfig, segments: Sequence[str], classes: Sequence[str]
) -> BoxLabels:
    """Find the objects in a mask of classes.

    Args:
        labels: uint8 ``[H, W]`` segmentation class ids.
        config: which classes make boxes, and what a whole object looks like.
        segments: names of the segmentation classes, in the order of their ids.
        classes: names of the detection classes, in the order of their ids.

    Returns:
        Boxes of whole objects, and ignored regions where components touch, are too small or oddly shaped.
    """
    index = {name: i for i, name in enumerate(classes)}
    known = np.zeros(len(classes), bool)
    known[[index[c.name] for c in config.components.values()]] = True
    known[[index[name] for name in config.absent]] = True
    boxes, ids, unsure = [], [], []
    for segment, rules in config.components.items():
        mask = (labels == segments.index(segment)).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
        stats = stats[1:]  # the first is what lies around
        left, top, width, height, area = (stats[:, i] for i in range(5))
        found = np.stack((left, top, left + width, top + height), 1).astype(np.float32)
        aspect = width / height
        whole = (aspect >= rules.aspect[0]) & (aspect <= rules.aspect[1])
        whole &= (area >= rules.fill * width * height) & (area >= rules.min_area)
        # Specks do not make their neighbour doubtful, other objects do.
        whole &= ~_has_neighbour(found, rules.gap, area >= rules.min_area)
        boxes.append(found)
        ids.append(np.where(whole, index[rules.name], -1))
        row = np.zeros(len(classes), bool)
        row[[index[name] for name in rules.unsure]] = True
        unsure.append(np.repeat(row[None], len(found), 0))
    return BoxLabels(np.concatenate(boxes), np.concatenate(ids).astype(np.int64), np.concatenate(unsure), known)


def _has_neighbour(boxes: NDArray[np.float32], gap: int, counted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return whether each box ``[M, 4]`` comes nearer than ``gap`` pixels to another that is counted."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    near: NDArray[np.bool_] = np.all(low - high < gap, axis=2)
    near &= counted & ~np.eye(len(boxes), dtype=np.bool_)
    return np.asarray(near.any(1))
