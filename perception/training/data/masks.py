"""Pictures to train on: folders of images and label PNGs, checked and decoded once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.errors import SourceError
from perception.evaluation.faults import Fault, refuse
from perception.evaluation.folders import LabelFolder
from perception.evaluation.sets import FolderConfig
from perception.training.data.boxes import BoxLabels
from perception.training.recipes.data import MaskSetConfig


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One picture with its labels, of one kind or both.

    Attributes:
        name: the file's stem.
        image: uint8 ``[H, W, 3]`` BGR.
        labels: uint8 ``[H, W]`` class ids, or None where nobody labelled pixels.
        boxes: or None where nobody labelled boxes.
        known: bool ``[C]``: classes that the labels decide between; None for all.
        weight: of its pixels in the loss.
        distilled: whether its mask is also learnt from the teacher, if there is one.
    """

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8] | None
    boxes: BoxLabels | None = None
    known: NDArray[np.bool_] | None = None
    weight: float = 1.0
    distilled: bool = True


class SegmentationFolder:
    """All samples of a folder, in memory, ordered by name.

    Construction is the check: every fault of every file is collected and told at once.

    Args:
        config: the folders, and what the ids of their labels mean.
        root: base of the folders.
        names: class names in the order of our ids.
        ignore: our id of pixels that count for nothing.

    Attributes:
        title: what the set is called.
        labelled: bool ``[C]``: classes that the labels decide between.

    Raises:
        SourceError: Missing folder, no images, or faulty files (each named with what is wrong).
    """

    def __init__(self, config: FolderConfig, root: Path, names: Sequence[str], ignore: int = 255) -> None:
        self.title = config.title
        self.images = root / config.images
        self.classes = len(names)
        self.ignore = ignore
        labels_folder = config.labels_in(root)
        for folder in (self.images, labels_folder):
            if not folder.is_dir():
                raise SourceError("no such folder; check data.root in the recipe", folder)
        ignored = [ignore] if config.ignore is None else config.ignore
        ids = config.ids or dict(enumerate(names))
        ours = np.full(256, ignore, np.uint8)  # our id by the set's
        ours[list(ids)] = [names.index(name) for name in ids.values()]
        ours[list(ignored)] = ignore
        self.labelled = np.isin(names, names if config.labelled is None else config.labelled)
        known = None if self.labelled.all() else self.labelled
        weight, distilled = (config.weight, config.distil) if isinstance(config, MaskSetConfig) else (1.0, True)
        files = LabelFolder(
            self.images, labels_folder, ids, ignored, select=config.takes, partly_labelled=config.partly_labelled
        )
        self.samples: list[Sample] = []
        self.boxes_of: Callable[[NDArray[np.uint8]], BoxLabels] | None = None
        faults = list(files.faults)
        for sample in files:
            if isinstance(sample, Fault):
                faults.append(sample)
                continue
            labels = np.ascontiguousarray(ours[sample.labels])
            if known is not None:
                labels[~np.append(known, np.zeros(256 - len(known), np.bool_))[labels]] = ignore
            self.samples.append(Sample(sample.name, sample.image, labels, None, known, weight, distilled))
        refuse(faults, len(files), self.images)

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

    def take_boxes(self, boxes: Mapping[str, BoxLabels]) -> None:
        """Give the samples of those names boxes that somebody labelled."""
        self.samples = [replace(sample, boxes=boxes.get(sample.name)) for sample in self.samples]

    def class_pixels(self) -> NDArray[np.int64]:
        """Pixels of each class, int64 ``[classes]``; ignored pixels are not among them."""
        counts = np.zeros(256, np.int64)
        for sample in self.samples:
            assert sample.labels is not None
            counts += np.bincount(sample.labels.ravel(), minlength=256)
        return counts[: self.classes]
