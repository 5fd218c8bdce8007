"""Folders of images and label PNGs, checked and decoded once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.errors import SourceError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
FAULTS_SHOWN = 20


@dataclass(frozen=True)
class Sample:
    """One picture with its labels.

    Attributes:
        name: the file's stem.
        image: uint8 ``[H, W, 3]`` BGR.
        labels: uint8 ``[H, W]`` class ids.
    """

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]


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
        paths = sorted(p for p in images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not paths:
            raise SourceError(f"no images ({', '.join(IMAGE_SUFFIXES)}) in this folder", images)
        self.samples: list[Sample] = []
        faults: list[str] = []
        for path in paths:
            result = self._read(path, labels / f"{path.stem}.png")
            if isinstance(result, Sample):
                self.samples.append(result)
            else:
                faults.append(result)
        if faults:
            more = f"; and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
            raise SourceError(
                f"{len(faults)} of {len(paths)} samples are faulty: {'; '.join(faults[:FAULTS_SHOWN])}{more}", images
            )

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

    def _read(self, image_path: Path, label_path: Path) -> Sample | str:
        """A sample, or what is wrong with it."""
        image = cv2.imread(str(image_path), cv2.IMREAD_COLOR)
        if image is None:
            return f"{image_path}: corrupt image"
        if not label_path.is_file():
            return f"{label_path}: missing label"
        labels = cv2.imread(str(label_path), cv2.IMREAD_UNCHANGED)
        if labels is None:
            return f"{label_path}: corrupt label"
        if labels.ndim != 2 or labels.dtype != np.uint8:
            return f"{label_path}: a label must be 8-bit with one channel, not {labels.dtype} {labels.shape}"
        if labels.shape != image.shape[:2]:
            (h, w), (height, width) = labels.shape, image.shape[:2]
            return f"{label_path}: label is {w}x{h}, the image {width}x{height}"
        unknown = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)[self.classes :]) + self.classes
        unknown = unknown[unknown != self.ignore]
        if unknown.size:
            return f"{label_path}: unknown class ids {unknown.tolist()}"
        return Sample(image_path.stem, image.astype(np.uint8), labels.astype(np.uint8))
