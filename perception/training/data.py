"""All the pictures of a recipe, checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar, cast

import numpy as np
from torch.utils.data import ConcatDataset, Dataset

from perception.errors import PerceptionError, SourceError
from perception.training.coco import CocoFolder
from perception.training.components import boxes_from_mask
from perception.training.config import TrainConfig
from perception.training.dataset import Sample, SegmentationFolder

Set = TypeVar("Set")


class TrainingData:
    """The pictures that a recipe names. Construction is the check, before any work is done on some of them.

    Attributes:
        masks, masks_val: pictures with labels; those to train on have boxes too, if the recipe makes them.
        boxes: pictures with boxes alone, or None without a detection head.
        boxes_val: pictures to measure detection on, or None.

    Raises:
        SourceError: A set is missing, empty or faulty (each fault is named with its file), or no training picture
            has a class of the recipe. Faults of several sets are told together.
    """

    def __init__(self, config: TrainConfig) -> None:
        root, detection = config.data.root, config.detection
        faults: list[PerceptionError] = []
        masks = [_opened(faults, _open_masks, config, part) for part in ("train", "val")]
        boxes = []
        if detection is not None:
            sets = [*detection.train, detection.val]
            boxes = [_opened(faults, CocoFolder, root, part, detection.names) for part in sets]
        if len(faults) == 1:
            raise faults[0]
        if faults:
            raise SourceError("; ".join(str(fault) for fault in faults))
        self.masks, self.masks_val = cast("list[SegmentationFolder]", masks)
        self.boxes: Dataset[Sample] | None = None
        self.boxes_val: CocoFolder | None = None
        absent = _without(self.masks.class_pixels(), [c.name for c in config.data.classes])
        if absent:
            raise SourceError(f"no training pixel has the class {', '.join(absent)}", root)
        if detection is None:
            return
        *folders, self.boxes_val = cast("list[CocoFolder]", boxes)
        self.boxes = ConcatDataset(cast("list[Dataset[Sample]]", folders))
        counts = np.sum([folder.class_boxes() for folder in folders], 0)
        if detection.from_masks is not None:
            segments = [c.name for c in config.data.classes]
            make = partial(boxes_from_mask, config=detection.from_masks, segments=segments, classes=detection.names)
            self.masks.add_boxes(make)
            for sample in self.masks.samples:
                assert sample.boxes is not None
                ids = sample.boxes.class_ids
                counts += np.bincount(ids[ids >= 0], minlength=len(counts))
        absent = _without(counts, detection.names)
        if absent:
            raise SourceError(f"no training box has the class {', '.join(absent)}", root)


def _open_masks(config: TrainConfig, part: str) -> SegmentationFolder:
    data = config.data
    folder = data.train if part == "train" else data.val
    return SegmentationFolder(data.root / folder.images, data.root / folder.labels, len(data.classes), data.ignore)


def _opened(faults: list[PerceptionError], opener: Callable[..., Set], *arguments: object) -> Set | None:
    """What ``opener`` gives, or None after its fault was added to ``faults``."""
    try:
        return opener(*arguments)
    except PerceptionError as error:
        faults.append(error)
        return None


def _without(counts: np.ndarray, names: Sequence[str]) -> list[str]:
    return [name for name, count in zip(names, counts.tolist(), strict=True) if count == 0]
