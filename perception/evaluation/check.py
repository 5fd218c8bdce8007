"""One pass over a data set that names everything that is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perception.errors import UsageError
from perception.evaluation.classes import match_classes
from perception.evaluation.coco import CocoFile
from perception.evaluation.faults import Fault
from perception.evaluation.folders import LabelFolder
from perception.evaluation.labelled import open_labelled
from perception.evaluation.workers import Progress

MOST_CLASSES = 255


@dataclass(frozen=True)
class DataCheck:
    """The contents of a data set, and its faults.

    Attributes:
        data: the data set.
        images: how many pictures.
        unit: what ``classes`` counts: pixels, boxes or images.
        classes: how many of these, by class name; by id where names are not known.
        faults: everything that is wrong, a class without any of these included.
    """

    data: str
    images: int
    unit: str
    classes: dict[str, int]
    faults: list[Fault]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        faults = [{"where": f.where, "what": f.what, "fatal": f.fatal} for f in self.faults]
        return {"images": self.images, self.unit: self.classes, "faults": faults}


def check_labels(
    images: str | Path,
    labels: str | Path,
    names: Sequence[str] | None = None,
    ignore: Collection[int] = (),
    progress: Progress | None = None,
) -> DataCheck:
    """Check a folder of pictures and one of label PNGs, see `LabelFolder`.

    Args:
        images, labels: the folders.
        names: class names in the order of their ids; without them every id is known.
        ignore: label ids that count for nothing.
        progress: told of every picture.

    Raises:
        SourceError: a folder is missing, or there are no images.
        UsageError: an id to ignore that no label can have.
    """
    folder = LabelFolder(images, labels, MOST_CLASSES if names is None else len(names), ignore)
    faults, pixels = folder.check(progress)
    if names is None:
        classes = {str(i): int(n) for i, n in enumerate(pixels) if n}
    else:
        classes = {name: int(n) for name, n in zip(names, pixels, strict=True)}
        skipped = [names[i] for i in ignore if 0 <= i < len(names)]
        faults += _lacking({n: c for n, c in classes.items() if n not in skipped}, labels, "pixel")
    return DataCheck(str(images), len(folder), "pixels", classes, faults)


def check_boxes(
    images: str | Path,
    annotations: str | Path,
    names: Sequence[str] | None = None,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    progress: Progress | None = None,
) -> DataCheck:
    """Check a folder of pictures and a COCO file, see `CocoFile`.

    Args:
        images: the folder.
        annotations: the file.
        names: classes that there should be; see `match_classes` for how they are found in the file.
        synonyms: names among ``names`` by names of the file, where they differ.
        progress: told of every picture.

    Raises:
        SourceError: the folder is missing, or the file is no COCO file.
        UsageError: no class in common, or synonyms that do not fit.
    """
    file = CocoFile(annotations, images)
    faults, classes = file.check(progress)
    if names is not None:
        match = match_classes(names, list(file.categories.values()), synonyms)
        found: Counter[int] = Counter()
        for name, number in match.of_data.items():
            found[number] += classes[name]
        wanted = {name: found[match.of_model[i]] if i in match.of_model else 0 for i, name in enumerate(names)}
        faults += _lacking(wanted, annotations, "box")
    return DataCheck(str(annotations), file.entries, "boxes", classes, faults)


def check_labelled(
    data: str | Path,
    names: Sequence[str] | None = None,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    progress: Progress | None = None,
) -> DataCheck:
    """Check pictures with one class each, see `open_labelled`; arguments as for `check_boxes`.

    Raises:
        SourceError: they are missing or cannot be read.
        UsageError: no class in common, or synonyms that do not fit.
    """
    pictures = open_labelled(data)
    faults = []
    for index in range(len(pictures)):
        picture = pictures.read(index)
        if isinstance(picture, Fault):
            faults.append(picture)
        if progress is not None:
            progress(index + 1, len(pictures))
    counts = Counter(pictures.labels)
    if pictures.names is not None:
        classes = {name: counts[i] for i, name in enumerate(pictures.names)}
        if names is not None:
            match = match_classes(names, pictures.names, synonyms)
            faults += _lacking({n: int(i in match.of_model) for i, n in enumerate(names)}, data, "image")
    elif names is None:
        classes = {str(label): counts[label] for label in sorted(counts)}
    else:
        classes = {name: counts[i] for i, name in enumerate(names)}
        faults += [
            Fault(pictures.name(i), f"label {label} is no class: there are {len(names)}, from 0")
            for i, label in enumerate(pictures.labels)
            if not 0 <= label < len(names)
        ]
        faults += _lacking(classes, data, "image")
    return DataCheck(str(data), len(pictures), "images_by_class", classes, faults)


def check_data(
    *,
    images: str | Path | None = None,
    labels: str | Path | None = None,
    annotations: str | Path | None = None,
    data: str | Path | None = None,
    names: Sequence[str] | None = None,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    ignore: Collection[int] = (),
    progress: Progress | None = None,
) -> DataCheck:
    """Check what is given: images with labels, images with annotations, or labelled pictures.

    Raises:
        UsageError: another combination.
        SourceError: see `check_labels`, `check_boxes` and `check_labelled`.
    """
    if data is not None and images is labels is annotations is None:
        return check_labelled(data, names, synonyms, progress)
    if images is not None and data is None and (labels is None) != (annotations is None):
        if labels is not None:
            return check_labels(images, labels, names, ignore, progress)
        assert annotations is not None
        return check_boxes(images, annotations, names, synonyms, progress)
    raise UsageError("say what to check: a recipe, images with labels, images with annotations, or data")


def _lacking(counts: Mapping[str, int], where: str | Path, thing: str) -> list[Fault]:
    return [Fault(str(where), f"has no {thing} of class {name!r}", fatal=False) for name, n in counts.items() if not n]
