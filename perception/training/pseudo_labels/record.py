"""What lies beside pseudo-labels to say how they were made, so that nobody learns from outdated ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from perception.common.files import sha256_of
from perception.common.licences import commercial_use_fault
from perception.common.text import counted
from perception.errors import SourceError
from perception.evaluation.pictures import is_picture
from perception.training.pseudo_labels.recipe import LabelsConfig, read_labels_recipe

RECORD = "teachers.json"
"""Its name."""


class TeacherRecord(BaseModel):
    """A teacher: the name of its file, SHA-256 of that, its licence."""

    model: str
    sha256: str
    licence: str


class LabelRecord(BaseModel):
    """How the labels of a folder were made.

    Attributes:
        teachers: in their order.
        recipe: as plain data, see `recorded_recipe`.
        boxes: SHA-256 of the file of boxes, if there is one.
        made_by: file of the recipe.
        pictures: how many there are to label; None where an earlier version made the labels.
    """

    teachers: list[TeacherRecord]
    recipe: dict[str, Any]
    boxes: str | None = None
    made_by: Path | None = None
    pictures: int | None = None

    def makes_the_same(self, other: LabelRecord) -> bool:
        """Return whether labels made like this are those made like ``other``."""
        return (self.teachers, self.recipe, self.boxes) == (other.teachers, other.recipe, other.boxes)


def recorded_recipe(config: LabelsConfig) -> dict[str, Any]:
    """Return what labels depend on in a recipe, as plain data."""
    return config.model_dump(mode="json", exclude={"root", "sets"})


def read_record(folder: Path) -> LabelRecord | None:
    """Return the record beside the labels in ``folder``; None if there is none that can be read."""
    try:
        return LabelRecord.model_validate_json((folder / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None


def check_labels(folder: Path, ids: Mapping[int, str], recipe: Path | None = None, root: Path | None = None) -> None:
    """Refuse pseudo-labels that are missing, incomplete, or no longer what their teachers would say.

    Labels without a record are not ours to judge, unless ``recipe`` says that they are pseudo-labels.

    Args:
        folder: of the labels.
        ids: what whoever reads them takes their ids for.
        recipe: the file that ``perception pseudo-label`` makes them by.
        root: base of its pictures and boxes, in place of its own.

    Raises:
        SourceError: in one line, with the command that makes the labels.
        UsageError: the recipe is faulty.
    """
    record = read_record(folder)
    made_by = recipe or (None if record is None else record.made_by)
    makes = "" if made_by is None else f"; `perception pseudo-label {made_by.as_posix()}` makes them"
    if record is None:
        if recipe is not None:
            raise SourceError(f"there are no pseudo-labels here{makes}", folder)
        return
    change = _change(record, None if recipe is None else read_labels_recipe(recipe, root), folder)
    if change is not None:
        anew = f"{makes} anew" if makes else ""
        raise SourceError(f"these pseudo-labels are outdated: {change} has changed since{anew}", folder)
    there = sum(path.suffix.lower() == ".png" and is_picture(path.name) for path in folder.iterdir())
    if record.pictures is not None and there < record.pictures:
        raise SourceError(f"{there} of {counted(record.pictures, 'picture')} have pseudo-labels{makes}", folder)
    theirs = record.recipe.get("classes")
    for key, name in enumerate(theirs if isinstance(theirs, list) else ()):
        if ids.get(key, name) != name:
            raise SourceError(f"id {key} of these pseudo-labels is {name}, not {ids[key]}", folder)


def _change(record: LabelRecord, config: LabelsConfig | None, folder: Path) -> str | None:
    """Name what has changed since the labels were made, if anything has."""
    if config is not None and recorded_recipe(config) != record.recipe:
        return "their recipe"
    teachers = record.recipe.get("teachers")
    for made, teacher in zip(record.teachers, teachers if isinstance(teachers, list) else (), strict=False):
        model = Path(str(teacher["model"]))
        if model.is_file() and sha256_of(model) != made.sha256:  # where it is not, nothing is known
            return f"teacher {made.model}"
    for part in () if config is None else config.sets:
        boxes = None if config is None or part.boxes is None else config.root / part.boxes
        if part.output.resolve() != folder.resolve() or boxes is None or not boxes.is_file():
            continue
        if sha256_of(boxes) != record.boxes:
            return f"{part.boxes}"
    return None


def check_teachers(folder: Path) -> None:
    """Refuse pseudo-labels of teachers whose licence is not known to allow commercial use.

    Raises:
        SourceError: naming the first.
    """
    record = read_record(folder)
    for teacher in () if record is None else record.teachers:
        fault = commercial_use_fault(teacher.licence)
        if fault is not None:
            raise SourceError(f"teacher {teacher.model} of these labels {fault} (model.commercial_use)", folder)
