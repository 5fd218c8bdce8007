"""Short sequences made of labelled pictures: what a camera that moves would have seen before each of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import cv2
import numpy as np

from perception.evaluation.faults import Fault, refuse
from perception.evaluation.folders import LabelFolder, Sample
from perception.types import U8, Frame

NEIGHBOURS = 5
"""Frames that are made of each labelled picture: the last one is the picture itself."""

FPS = 25
SHIFT, ZOOM, TURN = 0.012, 0.01, 0.3
"""Most that the picture moves from one of them to the next: part of its width, part of its size, degrees."""
MARGIN = 0.08
"""Part of the picture on each side from which frames before it are filled in, so that no frame has a made-up rim."""
GRAIN = 4.0
"""Standard deviation of the noise of each frame, in grey levels."""


class MovingCamera:
    """Gives for each picture of a folder frames of a camera that moves, the last of which is the picture.

    Args:
        folder: of pictures and labels. Those that are damaged are passed over; see `refuse_faults`.
        varying: sequences have two to four frames in turn, not `NEIGHBOURS` each.
    """

    def __init__(self, folder: LabelFolder, varying: bool = False) -> None:
        self._folder = folder
        self._varying = varying
        self._faults: list[Fault] = []
        self._labels: U8 | None = None

    def __iter__(self) -> Iterator[Iterator[Frame]]:
        """Iterate over the sequences, each of which is taken whole before the next one."""
        self._faults = list(self._folder.faults)
        for number, sample in enumerate(self._folder):
            if isinstance(sample, Sample):
                self._labels = middle(sample.labels)
                skipped = NEIGHBOURS - 2 - number % 3 if self._varying else 0
                yield islice(moving_to(sample.image, number), skipped, None)
            else:
                self._faults.append(sample)

    def labels_of(self, frame: Frame) -> U8 | None:
        """Label ids uint8 ``[H, W]`` of a frame of the present sequence; None for all but the last one."""
        return self._labels if frame.index == NEIGHBOURS - 1 else None

    def refuse_faults(self) -> None:
        """Name what was passed over.

        Raises:
            SourceError: pictures or labels are damaged, or do not fit each other.
        """
        refuse(self._faults, len(self._folder), self._folder.images)


def moving_to(image: U8, seed: int) -> Iterator[Frame]:
    """Make frames of a camera that moves, and whose last one is the middle of a picture.

    Args:
        image: uint8 ``[H, W, 3]`` BGR.
        seed: of the motion and of the noise.

    Yields:
        `NEIGHBOURS` frames of the size of the picture without its margins, see `middle`.
    """
    rng = np.random.default_rng(seed)
    height, width = image.shape[:2]
    shift = rng.uniform(-SHIFT, SHIFT, 2) * width
    zoom, turn = 1 + rng.uniform(-ZOOM, ZOOM), rng.uniform(-TURN, TURN)
    for index in range(NEIGHBOURS):
        back = NEIGHBOURS - 1 - index
        to = cv2.getRotationMatrix2D((width / 2, height / 2), turn * back, zoom**back)
        to[:, 2] += shift * back
        moved = cv2.warpAffine(image, to, (width, height), borderMode=cv2.BORDER_REFLECT) if back else image
        seen = middle(np.asarray(moved, np.uint8))
        seen = np.clip(seen + rng.normal(0, GRAIN, seen.shape), 0, 255).astype(np.uint8)
        yield Frame(seen, index=index, time=index / FPS)


def middle(picture: U8) -> U8:
    """A picture, or its labels, without the margins."""
    height, width = picture.shape[:2]
    top, left = round(MARGIN * height), round(MARGIN * width)
    return np.ascontiguousarray(picture[top : height - top, left : width - left])
