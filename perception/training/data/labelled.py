"""Pictures with one class each to train on: read once, at the size of the model's input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.errors import SourceError, UsageError
from perception.evaluation.faults import Fault, refuse
from perception.evaluation.labelled import LabelledPictures, open_labelled
from perception.training.recipes.classification import LabelledDataConfig
from perception.types import U8

DOWNLOADED = "torchvision:"
TEST_PART = "-test"


@dataclass(frozen=True)
class LabelledSet:
    """Pictures in memory.

    Attributes:
        images: uint8 ``[N, H, W, 3]`` BGR.
        labels: int64 ``[N]`` class ids of the recipe.
        names: what to call each.
    """

    images: U8
    labels: NDArray[np.int64]
    names: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, chosen: NDArray[np.bool_]) -> LabelledSet:
        """Return those where ``chosen``, bool ``[N]``, is true."""
        return LabelledSet(self.images[chosen], self.labels[chosen], [self.names[i] for i in np.flatnonzero(chosen)])


def open_sets(config: LabelledDataConfig) -> tuple[LabelledSet, LabelledSet]:
    """Open the pictures to train and to measure on.

    Raises:
        SourceError: pictures are missing or damaged; all are named.
        UsageError: their classes are not those of the recipe.
    """
    train = _read(_open(config, config.train), config)
    if config.val is not None:
        return train, _read(_open(config, config.val), config)
    measured = held_out(train.labels, config.held_out)
    return train.part(~measured), train.part(measured)


def held_out(labels: NDArray[np.int64], every: int) -> NDArray[np.bool_]:
    """bool ``[N]``: each ``every``-th picture of a class, in the order they come in."""
    chosen = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        chosen[np.flatnonzero(labels == label)[every - 1 :: every]] = True
    return chosen


def _open(config: LabelledDataConfig, name: str) -> LabelledPictures:
    if name.startswith(DOWNLOADED):
        kind = name.removeprefix(DOWNLOADED)
        return _Downloaded(kind.removesuffix(TEST_PART), config.root, train=not kind.endswith(TEST_PART))
    return open_labelled(config.root / name)


def _read(pictures: LabelledPictures, config: LabelledDataConfig) -> LabelledSet:
    ids = _class_ids(pictures, config.classes)
    width, height = config.size
    images = np.empty((len(pictures), height, width, 3), np.uint8)
    faults = []
    for i in range(len(pictures)):
        picture = pictures.read(i)
        if isinstance(picture, Fault):
            faults.append(picture)
        else:
            images[i] = fitted(picture, (width, height))
    refuse(faults, len(pictures), pictures.path)
    return LabelledSet(images, ids, [pictures.name(i) for i in range(len(pictures))])


def fitted(picture: U8, size: tuple[int, int]) -> U8:
    """``picture`` stretched to ``(width, height)``; averaged where it shrinks."""
    if picture.shape[1::-1] == size:
        return picture
    shrinks = picture.shape[1] >= size[0] and picture.shape[0] >= size[1]
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR).astype(
        np.uint8, copy=False
    )


def _class_ids(pictures: LabelledPictures, classes: Sequence[str]) -> NDArray[np.int64]:
    """Return the recipe's class id of each picture."""
    labels = np.array(pictures.labels, np.int64)
    if pictures.names is None:
        if labels.min() < 0 or labels.max() >= len(classes):
            raise UsageError(
                f"has labels from {labels.min()} to {labels.max()}, the recipe's head has {len(classes)} classes, "
                f"0 to {len(classes) - 1}",
                pictures.path,
            )
        return labels
    unknown, absent = sorted({*pictures.names} - {*classes}), sorted({*classes} - {*pictures.names})
    if unknown or absent:
        faults = [f"the recipe does not have the classes {', '.join(unknown[:8])}"] if unknown else []
        faults += [f"the recipe's classes {', '.join(absent[:8])} have no pictures"] if absent else []
        raise UsageError(
            f"{len(pictures.names)} classes do not fit a head of {len(classes)}: {'; '.join(faults)}", pictures.path
        )
    index = np.array([classes.index(name) for name in pictures.names])
    ids: NDArray[np.int64] = index[labels]
    return ids


class _Downloaded(LabelledPictures):
    """A data set of torchvision: CIFAR100, CIFAR10, MNIST, FashionMNIST, ..."""

    def __init__(self, name: str, root: Path, train: bool) -> None:
        import torchvision

        self.path = root / name
        kind: Callable[..., Any] | None = getattr(torchvision.datasets, name, None)
        if kind is None:
            raise UsageError(f"torchvision has no data set {name!r}")
        try:
            self._set = kind(root=str(root), train=train, download=True)
        except TypeError:
            raise UsageError(f"torchvision's {name} is no set of pictures with one class each") from None
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise SourceError(f"torchvision cannot download it: {reason}", self.path) from None
        self.names = list(self._set.classes)
        self.labels = [int(label) for label in self._set.targets]

    def name(self, index: int) -> str:
        return f"{self.path}: image {index}"

    def _read(self, index: int) -> U8:
        image = np.asarray(self._set[index][0])
        if image.ndim == 2:
            return np.repeat(image[:, :, None], 3, 2)
        return np.ascontiguousarray(image[:, :, ::-1])
