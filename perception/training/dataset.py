"""Pictures to train on: folders of images and label PNGs, checked and decoded once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.errors import SourceError
from perception.evaluation.faults import Fault, refuse
from perception.evaluation.folders import LabelFolder
from perception.training.boxes import BoxLabels


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One picture with its labels, of one kind or both.

    Attributes:
        name: the file's stem.
        image: uint8 ``[H, W, 3]`` BGR.
        labels: uint8 ``[H, W]`` class ids, or None where nobody labelled pixels.
        boxes: or None where nobody labelled boxes.
    """

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8] | None
    boxes: BoxLabels | None = None


class SegmentationFolder:
    """All samples of a folder, in memory, ordered by name.

    Construction is the check: every fault of every file is collected and told at once.

    Args:
        images: folder of pictures.
        labels: folder of single-channel PNGs with the same stems; values are class ids.
        classes: number of classes; ids must be below it or equal ``ignore``.
        ignore: id of pixels that count for nothing.

    Raises:
        SourceError: Missing folder, no images, or faulty files (each named with what is wrong).
    """

    def __init__(self, images: Path, labels: Path, classes: int, ignore: int) -> None:
        self.images = images
        self.classes = classes
        self.ignore = ignore
        for folder in (images, labels):
            if not folder.is_dir():
                raise SourceError("no such folder; check data.root in the recipe", folder)
        files = LabelFolder(images, labels, classes, (ignore,))
        self.samples: list[Sample] = []
        self.boxes_of: Callable[[NDArray[np.uint8]], BoxLabels] | None = None
        faults = list(files.faults)
        for sample in files:
            if isinstance(sample, Fault):
                faults.append(sample)
            else:
                self.samples.append(Sample(sample.name, sample.image, sample.labels))
        refuse(faults, len(files), images)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def add_boxes(self, boxes_of: Callable[[NDArray[np.uint8]], BoxLabels]) -> None:
        """Give every sample boxes, made from its labels by ``boxes_of``."""
        self.boxes_of = boxes_of
        made = []
        for sample in self.samples:
            assert sample.labels is not None
            made.append(replace(sample, boxes=boxes_of(sample.labels)))
        self.samples = made

    def class_pixels(self) -> NDArray[np.int64]:
        """Pixels of each class, int64 ``[classes]``; ignored pixels are not among them."""
        counts = np.zeros(256, np.int64)
        for sample in self.samples:
            assert sample.labels is not None
            counts += np.bincount(sample.labels.ravel(), minlength=256)
        return counts[: self.classes]
