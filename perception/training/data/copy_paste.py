"""Things of one picture with masks put into another (copy-paste, Ghiasi et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.training.data.boxes import BoxLabels
from perception.training.data.masks import Sample
from perception.training.recipes.segmentation_detection import CopyPasteConfig

EDGE = 0.6  # sigma in pixels of the soft edge of what is pasted: a hard one would give it away
GAINS = (0.5, 2.0)  # the least and most that brightness is changed by, to be that of the picture
MARGIN = 3  # pixels around a thing that its soft edge reaches


def copy_paste(
    sample: Sample,
    donor: Sample,
    config: CopyPasteConfig,
    rng: np.random.Generator,
    boxes_of: Callable[[NDArray[np.uint8]], BoxLabels] | None = None,
) -> Sample:
    """``sample`` with some connected components of ``donor`` in it.

    They keep their height in the picture, so that things far away stay small, are moved sideways at random, and are
    made as much brighter as the picture is than the donor.

    Args:
        sample: the picture; has labels.
        donor: where things come from; has labels, and is stretched to the size of ``sample``.
        config: of which classes, and how many.
        rng: source of all randomness.
        boxes_of: makes the boxes of the new labels, if the sample has boxes.
    """
    assert sample.labels is not None and donor.labels is not None
    height, width = sample.labels.shape
    their_image, their_labels = donor.image, donor.labels
    if their_labels.shape != (height, width):
        their_image = cv2.resize(their_image, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.uint8)
        their_labels = cv2.resize(their_labels, (width, height), interpolation=cv2.INTER_NEAREST).astype(np.uint8)
    things = _things(their_labels, config)
    if not things:
        return sample
    image, labels = sample.image.copy(), sample.labels.copy()
    light = np.clip(sample.image.mean() / max(their_image.mean(), 1.0), *GAINS)
    count = min(int(rng.integers(1, config.most + 1)), len(things))
    for i in rng.choice(len(things), count, replace=False).tolist():
        class_id, (left, top, right, bottom), mask = things[i]
        there = (slice(top, bottom), slice(left, right))
        x = int(rng.integers(0, width - (right - left) + 1))
        here = (slice(top, bottom), slice(x, x + right - left))
        piece, turned = their_image[there] * np.float32(light), mask
        if rng.random() < 0.5:
            piece, turned = piece[:, ::-1], mask[:, ::-1]
        weight = cv2.GaussianBlur(turned.astype(np.float32), (0, 0), EDGE)[..., None]
        image[here] = np.rint(image[here] + weight * (piece - image[here])).clip(0, 255).astype(np.uint8)
        labels[here][turned] = class_id
    boxes = boxes_of(labels) if boxes_of is not None and sample.boxes is not None else sample.boxes
    return replace(sample, image=image, labels=labels, boxes=boxes)


def _things(
    labels: NDArray[np.uint8], config: CopyPasteConfig
) -> list[tuple[int, tuple[int, int, int, int], NDArray[np.bool_]]]:
    """Class, xyxy of the surroundings and the mask in them of each component that is large enough."""
    height, width = labels.shape
    things = []
    for class_id in config.classes:
        _, numbered, stats, _ = cv2.connectedComponentsWithStats((labels == class_id).astype(np.uint8), connectivity=8)
        for number, (left, top, w, h, area) in enumerate(stats.tolist()):
            if number == 0 or area < config.min_area:  # the first is what lies around
                continue
            x1, y1 = max(left - MARGIN, 0), max(top - MARGIN, 0)
            x2, y2 = min(left + w + MARGIN, width), min(top + h + MARGIN, height)
            things.append((class_id, (x1, y1, x2, y2), numbered[y1:y2, x1:x2] == number))
    return things
