"""Folders of images and label PNGs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perception.errors import SourceError, UsageError
from perception.evaluation.faults import Fault
from perception.evaluation.pictures import BadPicture, is_picture, picture_paths, read_labels, read_picture, same_stems
from perception.types import U8


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One picture with its labels.

    Attributes:
        name: the file's stem.
        image: uint8 ``[H, W, 3]`` BGR.
        labels: uint8 ``[H, W]`` class ids.
    """

    name: str
    image: U8
    labels: U8


class LabelFolder:
    """Pictures and labels of equal stems, ordered by name; each is read when asked for.

    Args:
        images: folder of pictures.
        labels: folder of PNGs with the same stems, gray or palette; values are class ids.
        classes: number of classes, or the ids that there are; ids must be below it, or among them, or in ``ignore``.
        ignore: ids of pixels that count for nothing.
        select: tells by a picture's stem whether it is taken; None takes all.
        partly_labelled: pictures without a label are passed over, instead of being faults.

    Attributes:
        faults: what is wrong with the folders as far as their listing tells.

    Raises:
        SourceError: a folder is missing, or there are no images.
        UsageError: an id to ignore that no label can have.
    """

    def __init__(
        self,
        images: str | Path,
        labels: str | Path,
        classes: int | Collection[int],
        ignore: Collection[int] = (),
        *,
        select: Callable[[str], bool] | None = None,
        partly_labelled: bool = False,
    ) -> None:
        check_ignored(ignore)
        self.images, self.labels = Path(images), Path(labels)
        ids = range(classes) if isinstance(classes, int) else sorted(classes)
        self.classes = ids[-1] + 1 if ids else 0
        self.ignore = tuple(ignore)
        every = picture_paths(self.images)
        self._paths = [path for path in every if select is None or select(path.stem)]
        if not self._paths:
            raise SourceError("no image of this folder was selected", self.images)
        if not self.labels.is_dir():
            raise SourceError("no such folder", self.labels)
        pngs = (
            path for path in sorted(self.labels.iterdir()) if path.suffix.lower() == ".png" and is_picture(path.name)
        )
        label_paths = {path.stem: path for path in pngs}
        if partly_labelled:
            self._paths = [path for path in self._paths if path.stem in label_paths]
            if not self._paths:
                raise SourceError("none of these labels belongs to an image", self.labels)
        self._label_paths = [label_paths.get(p.stem, self.labels / f"{p.stem}.png") for p in self._paths]
        self._known = np.zeros(256, np.bool_)
        self._known[[*ids, *self.ignore]] = True
        self.faults = [
            Fault(str(same[0]), f"has the name of {', '.join(p.name for p in same[1:])}: one label for several images")
            for same in same_stems(self._paths).values()
        ]
        stems = {path.stem for path in every}
        self.faults += [
            Fault(str(path), "label without an image", fatal=False)
            for stem, path in label_paths.items()
            if stem not in stems
        ]

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> Sample | Fault:
        """Read a sample; return its fault if it has one."""
        sample = self._load(index)
        if isinstance(sample, Fault):
            return sample
        return self._unknown_ids(index, sample) or sample

    def _load(self, index: int) -> Sample | Fault:
        image_path, label_path = self._paths[index], self._label_paths[index]
        try:
            image = read_picture(image_path)
        except BadPicture as error:
            return Fault(str(image_path), str(error))
        try:
            labels = read_labels(label_path)
        except BadPicture as error:
            return Fault(str(label_path), str(error))
        if labels.shape != image.shape[:2]:
            (h, w), (height, width) = labels.shape, image.shape[:2]
            return Fault(str(label_path), f"label is {w}x{h}, the image {width}x{height}")
        return Sample(image_path.stem, image, labels)

    def _unknown_ids(self, index: int, sample: Sample) -> Fault | None:
        unknown = np.flatnonzero((np.bincount(sample.labels.ravel(), minlength=256) > 0) & ~self._known)
        if not unknown.size:
            return None
        ignored = f"ignored are {list(self.ignore)}" if self.ignore else "none is ignored"
        return Fault(
            str(self._label_paths[index]),
            f"unknown class ids {unknown.tolist()} (there are {self.classes} classes, {ignored})",
        )

    def __iter__(self) -> Iterator[Sample | Fault]:
        return (self.read(index) for index in range(len(self)))

    def check(self, progress: Callable[[int, int], None] | None = None) -> tuple[list[Fault], NDArray[np.int64]]:
        """Read everything.

        Args:
            progress: called with (samples read, all samples).

        Returns:
            Every fault, and the pixels of each class in all labels that fit their image, int64 ``[classes]``.
        """
        faults = list(self.faults)
        pixels = np.zeros(256, np.int64)
        for index in range(len(self)):
            sample = self._load(index)
            fault = sample if isinstance(sample, Fault) else self._unknown_ids(index, sample)
            if fault is not None:
                faults.append(fault)
            if isinstance(sample, Sample):
                pixels += np.bincount(sample.labels.ravel(), minlength=256)
            if progress is not None:
                progress(index + 1, len(self))
        pixels[list(self.ignore)] = 0
        return faults, pixels[: self.classes]


def check_ignored(ignore: Collection[int]) -> None:
    """Refuse ids that labels of 8 bits cannot have.

    Raises:
        UsageError: naming them.
    """
    wrong = [i for i in ignore if not 0 <= i <= 255]
    if wrong:
        raise UsageError(f"label ids are from 0 to 255; {wrong} cannot be ignored")
