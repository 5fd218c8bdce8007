"""All the pictures of a recipe, checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from perception.errors import PerceptionError, SourceError
from perception.evaluation.sets import BoxFileConfig, CocoConfig, FolderConfig
from perception.training.data.coco import CocoFolder
from perception.training.data.components import boxes_from_mask
from perception.training.data.masks import SegmentationFolder
from perception.training.data.sets import MaskSets, SampleSets
from perception.training.pseudo_labels.record import check_labels, check_teachers
from perception.training.recipes.data import MaskSetConfig
from perception.training.recipes.detection import DetectionConfig
from perception.training.recipes.segmentation_detection import SegmentationDetectionConfig

Set = TypeVar("Set")


class TrainingData:
    """The pictures that a recipe names. Construction is the check, before any work is done on some of them.

    Attributes:
        masks: pictures with labels to train on; they have boxes too, where the recipe says so.
        masks_val: the sets to measure masks on, the recipe's ``val`` first.
        boxes: pictures with boxes alone, or None without a detection head.
        boxes_val: the sets to measure detection on, the recipe's ``val`` first; empty without a detection head.

    Raises:
        SourceError: A set is missing, empty or faulty (each fault is named with its file), or no training picture
            has a class of the recipe. Faults of several sets are told together.
    """

    def __init__(self, config: SegmentationDetectionConfig) -> None:
        data, detection = config.data, config.detection
        root, names = data.root, data.names
        faults: list[PerceptionError] = []
        for part in data.train:
            labels, ids = part.labels_in(root), data.ids_of(part)
            _opened(faults, check_labels, labels, ids, part.label_recipe, root)
            if config.model.commercial_use:
                _opened(faults, check_teachers, labels)
        _refuse(faults)
        parts: list[FolderConfig] = [*data.train, data.val, *data.dev]
        masks = [_opened(faults, SegmentationFolder, part, root, names, data.ignore) for part in parts]
        boxes, beside = [], []
        if detection is not None:
            sets = [*detection.train, detection.val, *detection.dev]
            boxes = [_opened(faults, CocoFolder, root, part, detection.names) for part in sets]
            beside = [
                _opened(faults, CocoFolder, root, boxes_beside(part), detection.names)
                for part in data.train
                if isinstance(part.boxes, BoxFileConfig)
            ]
        _refuse(faults)
        folders = cast("list[SegmentationFolder]", masks)
        self.masks = MaskSets(folders[: len(data.train)], [part.share for part in data.train])
        self.masks_val = folders[len(data.train) :]
        self.boxes: SampleSets | None = None
        self.boxes_val: list[CocoFolder] = []
        absent = [name for name in _without(self.masks.class_pixels(), names) if name not in data.unlabelled]
        if absent:
            raise SourceError(f"no training pixel has the class {', '.join(absent)}", root)
        if detection is None:
            return
        opened = cast("list[CocoFolder]", boxes)
        coco, self.boxes_val = opened[: len(detection.train)], opened[len(detection.train) :]
        self.boxes = SampleSets(coco, [part.share for part in detection.train])
        counts = np.sum([folder.class_boxes() for folder in coco], 0) + self._add_boxes(
            config, detection, cast("list[CocoFolder]", beside)
        )
        absent = _without(counts, detection.names)
        if absent:
            raise SourceError(f"no training box has the class {', '.join(absent)}", root)

    def _add_boxes(
        self, config: SegmentationDetectionConfig, detection: DetectionConfig, beside: list[CocoFolder]
    ) -> NDArray[np.int64]:
        """Give pictures with masks the boxes that the recipe says; returns how many of each class."""
        counts = np.zeros(len(detection.names), np.int64)
        files = iter(beside)
        for folder, part in zip(self.masks.folders, config.data.train, strict=True):
            if isinstance(part.boxes, BoxFileConfig):
                coco = next(files)
                stems = [image.path.stem for image in coco.file.images]
                folder.take_boxes(dict(zip(stems, coco.labels, strict=True)))
            elif part.boxes == "masks" and detection.from_masks is not None:
                folder.add_boxes(
                    partial(
                        boxes_from_mask,
                        config=detection.from_masks,
                        segments=config.data.names,
                        classes=detection.names,
                    )
                )
            for sample in folder.samples:
                if sample.boxes is not None:
                    ids = sample.boxes.class_ids
                    counts += np.bincount(ids[ids >= 0], minlength=len(counts))
        return counts


def boxes_beside(part: MaskSetConfig) -> CocoConfig:
    """Return the boxes of a set with masks, as a set of boxes."""
    assert isinstance(part.boxes, BoxFileConfig)
    return CocoConfig(images=part.images, name=part.title, only=part.only, exclude=part.exclude, **dict(part.boxes))


def _opened(faults: list[PerceptionError], opener: Callable[..., Set], *arguments: object) -> Set | None:
    """Call ``opener``; None after its fault was added to ``faults``."""
    try:
        return opener(*arguments)
    except PerceptionError as error:
        faults.append(error)
        return None


def _refuse(faults: Sequence[PerceptionError]) -> None:
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise SourceError("; ".join(str(fault) for fault in faults))


def _without(counts: NDArray[Any], names: Sequence[str]) -> list[str]:
    return [name for name, count in zip(names, counts.tolist(), strict=True) if count == 0]
