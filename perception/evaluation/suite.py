"""Many sets of labelled pictures in one file, opened and checked before any of them is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from perception.card import DetectionTask, SegmentationTask
from perception.common.settings import nearest, read_yaml
from perception.common.strict import Strict, faults_in
from perception.errors import PerceptionError, SourceError, UsageError
from perception.evaluation.boxes import IGNORED, BoxTruth
from perception.evaluation.classes import match_classes
from perception.evaluation.coco import CocoFile
from perception.evaluation.faults import Fault, refuse
from perception.evaluation.folders import LabelFolder
from perception.evaluation.labelling import Labelling, matched_labelling
from perception.evaluation.sets import CocoConfig, FolderConfig, LabelId, check_meanings, check_titles

Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it is done, and how much there is."""


class MaskSet(FolderConfig):
    """Pictures with label PNGs; the mean IoU is over the classes that the set labels.

    Attributes:
        synonyms: for classes of the set the model's names, where they differ: one, or several that all are right. Those
            that a model lacks are passed over.
    """

    kind: Literal["segmentation"]
    synonyms: dict[str, list[str] | str] = Field(default={})


class BoxSet(CocoConfig):
    """Pictures with boxes; the average precision is over the classes that occur.

    Of ``labelled``, only these are evaluated: boxes of the others are neither missed nor wrong.

    Attributes:
        synonyms: as of sets with masks; ``names`` come first.
    """

    kind: Literal["detection"]
    synonyms: dict[str, list[str] | str] = Field(default={})


class Suite(Strict):
    """Sets to measure on.

    Attributes:
        name: of the suite.
        root: base of all paths in it; relative to the working directory.
        classes: names by the id in label files, for the sets without ``ids``.
        ignore: label ids that count for nothing, for the sets without ``ignore``.
        sets: the sets, in the order of the table.
    """

    name: str = Field(min_length=1)
    root: Path
    classes: list[str] | None = Field(default=None, min_length=1, max_length=255)
    ignore: list[LabelId] = Field(default=[255])
    sets: list[Annotated[MaskSet | BoxSet, Field(discriminator="kind")]] = Field(min_length=1)

    @model_validator(mode="after")
    def _sets_can_be_told_apart(self) -> Suite:
        check_titles(self.sets)
        for part in self.sets:
            if isinstance(part, MaskSet):
                self._check_masks(part)
        for n, part in enumerate(self.sets):
            for other in self.sets[:n]:
                if isinstance(part, MaskSet) and isinstance(other, MaskSet) and part.labels == other.labels:
                    check_meanings("id", part, self.ids_of(part), other, self.ids_of(other))
                if isinstance(part, BoxSet) and isinstance(other, BoxSet) and part.annotations == other.annotations:
                    check_meanings("class", part, part.names or {}, other, other.names or {})
        return self

    def _check_masks(self, part: MaskSet) -> None:
        ids = self.ids_of(part)
        if not ids:
            raise ValueError(f"set {part.title}: say what its label ids mean: ids, or classes for the whole suite")
        lacking = sorted({*(part.labelled or []), *part.synonyms} - set(ids.values()))
        if lacking:
            known = dict.fromkeys(ids.values())
            raise ValueError(f"set {part.title} has no class {lacking[0]!r}{nearest(lacking[0], known)}")
        clash = sorted(set(part.ids or {}) & set(part.ignore or []))
        if clash:
            raise ValueError(f"set {part.title}: ids {clash} are both a class and ignored")

    def ids_of(self, part: MaskSet) -> dict[int, str]:
        """Return class names by the ids in the label files of a set."""
        ids = dict(enumerate(self.classes or [])) if part.ids is None else part.ids
        ignored = self.ignore if part.ignore is None else part.ignore
        return {key: name for key, name in ids.items() if key not in ignored}


def read_suite(path: str | Path, root: str | Path | None = None) -> Suite:
    """Read a suite.

    Args:
        path: a YAML file.
        root: replaces its ``root``.

    Raises:
        UsageError: the file cannot be read, or holds no valid suite; every fault is named.
    """
    data = read_yaml(path, "suite")
    if root is not None and isinstance(data, dict):
        data["root"] = str(root)
    try:
        return Suite.model_validate(data)
    except ValidationError as error:
        raise UsageError(f"not a valid suite: {faults_in(error, 'suite', Suite)}", path) from None


@dataclass(frozen=True)
class OpenMasks:
    """A set of pictures with masks, opened.

    Attributes:
        title: its name.
        folder: the pictures.
        labels: names of the classes that are evaluated, by the id in the label files.
        synonyms: see `MaskSet`.
    """

    title: str
    folder: LabelFolder
    labels: dict[int, str]
    synonyms: dict[str, list[str]]

    def check(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Read everything.

        Raises:
            SourceError: a picture or a label is faulty, or no pixel is of a class that is evaluated.
        """
        faults, pixels = self.folder.check(progress)
        refuse(faults, len(self.folder), self.folder.images)
        if not any(pixels[key] for key in self.labels if key < len(pixels)):
            raise SourceError("none of these labels has a pixel of a class that counts", self.folder.labels)

    def labelling(self, task: SegmentationTask) -> Labelling:
        """Match the classes with a model's.

        Raises:
            UsageError: none in common.
        """
        return matched_labelling(task, self.labels, self.synonyms)


@dataclass(frozen=True)
class OpenBoxes:
    """A set of pictures with boxes, opened.

    Attributes:
        title: its name.
        file: the pictures.
        names: class by category id; None where boxes count for nothing. Boxes of other categories are left out.
        min_score: see `BoxSet`.
        synonyms: see `BoxSet`.
    """

    title: str
    file: CocoFile
    names: dict[int, str | None]
    min_score: float
    synonyms: dict[str, list[str]]

    def check(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Read everything.

        Raises:
            SourceError: a picture is faulty, or there is no box of a class that is evaluated.
        """
        faults, _ = self.file.check(progress)
        refuse(faults, self.file.entries, self.file.path, "images")
        keys = [key for key, name in self.names.items() if name is not None]
        if not any(
            (np.isin(image.category_ids, keys) & ~image.crowd & (image.scores >= self.min_score)).any()
            for image in self.file.images
        ):
            raise SourceError("this file has no box that counts of a class that is evaluated", self.file.path)

    def truth(self, task: DetectionTask) -> BoxTruth:
        """Match the classes with a model's.

        Raises:
            UsageError: none in common.
        """
        wanted = {name: [n for n in of_model if n in task.names] for name, of_model in self.synonyms.items()}
        there = list(dict.fromkeys(name for name in self.names.values() if name is not None))
        match = match_classes(task.names, there, wanted)
        in_truth = {key: IGNORED for key, name in self.names.items() if name is None}
        in_truth |= {key: match.of_data[n] for key, n in self.names.items() if n is not None and n in match.of_data}
        return BoxTruth(self.file, match, in_truth, self.min_score)


OpenSet = OpenMasks | OpenBoxes


def open_suite(suite: Suite, progress: Progress | None = None) -> list[OpenSet]:
    """Open the sets of a suite and read all that they hold, so that no fault comes to light later.

    Args:
        suite: from `read_suite`.
        progress: told of every picture.

    Raises:
        SourceError: a set is missing, empty or faulty; the faults of all sets are told together.
    """
    opened: list[OpenSet] = []
    faults: list[PerceptionError] = []
    for part in suite.sets:
        try:
            one = _open_masks(suite, part) if isinstance(part, MaskSet) else _open_boxes(suite, part)
            opened.append(one)
        except PerceptionError as error:
            faults.append(error)
    for one in [] if faults else opened:  # what is missing is told before anything is read
        try:
            one.check(None if progress is None else _named(progress, f"check {one.title}"))
        except PerceptionError as error:
            faults.append(error)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise SourceError("; ".join(str(fault) for fault in faults))
    return opened


def _named(progress: Progress, what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(what, done, total)


def _open_masks(suite: Suite, part: MaskSet) -> OpenMasks:
    ids = suite.ids_of(part)
    ignored = suite.ignore if part.ignore is None else part.ignore
    folder = LabelFolder(
        suite.root / part.images, part.labels_in(suite.root), ids, ignored, select=part.takes,
        partly_labelled=part.partly_labelled,
    )  # fmt: skip
    labels = {key: name for key, name in ids.items() if part.labelled is None or name in part.labelled}
    return OpenMasks(part.title, folder, labels, _lists(part.synonyms))


def _open_boxes(suite: Suite, part: BoxSet) -> OpenBoxes:
    in_root = suite.root / part.annotations
    # What a detector has labelled lies with the runs, not with the data.
    file = CocoFile(in_root if in_root.exists() else part.annotations, suite.root / part.images)
    file.images = [image for image in file.images if part.takes(image.path.stem)]
    if not file.images:
        refuse(file.faults, file.entries, file.path, "images")
        raise SourceError("none of its images was selected", file.path)
    names: dict[int, str | None] = {}
    faults = []
    for key, name in file.categories.items():
        ours = name if part.names is None else part.names.get(name)
        if ours is not None and (part.labelled is None or ours in part.labelled):
            names[key] = ours
        elif ours is None and part.others == "error":
            listed = ", ".join(part.names or ())
            faults.append(Fault(f"{file.path}: category {key}", f"unknown class {name!r}, not in {listed}"))
        elif ours is None and part.others == "ignore":
            names[key] = None
    known = set(file.categories.values()) if part.names is None else set(part.names.values())
    there = set(file.categories.values())
    for asked, among in ((part.names or {}, there), ({*(part.labelled or []), *part.synonyms}, known)):
        lacking = sorted(set(asked) - among)
        faults += [Fault(str(file.path), f"has no class {name!r}{nearest(name, sorted(among))}") for name in lacking]
    refuse(faults, file.entries, file.path, "images")
    return OpenBoxes(part.title, file, names, part.min_score, _lists(part.synonyms))


def _lists(synonyms: Mapping[str, Sequence[str] | str]) -> dict[str, list[str]]:
    return {name: [of_model] if isinstance(of_model, str) else list(of_model) for name, of_model in synonyms.items()}
