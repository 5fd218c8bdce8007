"""Pictures with boxes from a COCO file, with their classes called as in the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.errors import SourceError
from perception.evaluation.coco import BoxedImage, CocoFile
from perception.evaluation.faults import Fault, refuse
from perception.evaluation.sets import CocoConfig
from perception.training.data.boxes import BoxLabels
from perception.training.data.masks import Sample


class CocoFolder:
    """Pictures and boxes, ordered as in the file; pictures are read from disk when they are asked for.

    Construction is the check: every fault is collected and told at once.

    Args:
        root: base of the paths in ``config``.
        config: the picture folder, the JSON file, and how its classes are called here.
        classes: our class names, in the order of their ids.

    Attributes:
        file: the file as it was read.
        class_ids: our class id by the file's category id; -1 for ignored classes; dropped ones are not in it.
        known: bool ``[C]``: classes of which the file has every object; it says nothing about the others.

    Raises:
        SourceError: A missing folder or file, no pictures, or faults: missing and corrupt pictures, pictures of
            another size than the file says, unknown classes. Boxes of no area or outside their picture are left
            out and named in a warning.
    """

    def __init__(self, root: Path, config: CocoConfig, classes: Sequence[str]) -> None:
        self.classes = list(classes)
        self.title = config.title
        self.min_score = config.min_score
        in_root = root / config.annotations
        # What a detector has labelled lies with the runs, not with the data.
        self.file = CocoFile(in_root if in_root.exists() else config.annotations, root / config.images)
        if not self.file.images:  # each has a fault, which is the reason
            refuse(self.file.faults, self.file.entries, self.file.path, "images")
        self.file.images = [image for image in self.file.images if config.takes(image.path.stem)]
        if not self.file.images:
            raise SourceError("none of its images was selected", self.file.path)
        unknown = self._match_classes(config)
        faults, _ = self.file.check()
        refuse([*unknown, *faults], self.file.entries, self.file.path, "images")
        self.labels = [self._labels(image) for image in self.file.images]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        image = self.file.images[index]
        picture = self.file.read(image)
        if isinstance(picture, Fault):  # it could be read when it was checked
            raise SourceError(picture.what, picture.where)
        return Sample(image.path.stem, picture, None, self.labels[index])

    def class_boxes(self) -> NDArray[np.int64]:
        """Count the boxes of each class, int64 ``[C]``, without ignored ones."""
        ids = np.concatenate([labels.class_ids for labels in self.labels])
        return np.bincount(ids[ids >= 0], minlength=len(self.classes)).astype(np.int64)

    def _match_classes(self, config: CocoConfig) -> list[Fault]:
        faults = []
        self.class_ids: dict[int, int] = {}
        self.known = np.zeros(len(self.classes), np.bool_)
        for category, name in self.file.categories.items():
            ours = name if config.names is None else config.names.get(name)
            if ours in self.classes:
                self.class_ids[category] = self.classes.index(ours)
                self.known[self.class_ids[category]] = True
            elif config.others == "error":
                there = ", ".join(self.classes if config.names is None else config.names)
                faults.append(
                    Fault(f"{self.file.path}: category {category}", f"unknown class {name!r}, not in {there}")
                )
            elif config.others == "ignore":
                self.class_ids[category] = -1
        if config.labelled is not None:
            self.known = np.isin(self.classes, config.labelled)
        lacking = sorted(set(config.names or {}) - set(self.file.categories.values()))
        if lacking:
            faults.append(Fault(str(self.file.path), f"has no class {', '.join(lacking)}, which the recipe names"))
        return faults

    def _labels(self, image: BoxedImage) -> BoxLabels:
        kept = [i for i, category in enumerate(image.category_ids.tolist()) if category in self.class_ids]
        if not kept:
            return BoxLabels.empty(self.known)
        ids = np.array([self.class_ids[category] for category in image.category_ids[kept].tolist()], np.int64)
        ids[image.crowd[kept] | (image.scores[kept] < self.min_score)] = -1
        return BoxLabels(image.boxes[kept], ids, np.zeros((len(kept), len(self.classes)), np.bool_), self.known)
