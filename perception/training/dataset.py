"""Folders of images and label PNGs, checked and decoded once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.errors import SourceError
from perception.evaluation.faults import Fault, refuse
from perception.evaluation.folders import LabelFolder, Sample

__all__ = ["Sample", "SegmentationFolder"]


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
        faults = list(files.faults)
        for sample in files:
            if isinstance(sample, Fault):
                faults.append(sample)
            else:
                self.samples.append(sample)
        refuse(faults, len(files), images)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def class_pixels(self) -> NDArray[np.int64]:
        """Pixels of each class, int64 ``[classes]``; ignored pixels are not among them."""
        counts = np.zeros(256, np.int64)
        for sample in self.samples:
            counts += np.bincount(sample.labels.ravel(), minlength=256)
        return counts[: self.classes]
