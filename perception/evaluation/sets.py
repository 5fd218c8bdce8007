"""Sets of labelled pictures as YAML files name them: recipes to train by, and suites to measure on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from perception.common.strict import Strict

LabelId = Annotated[int, Field(ge=0, le=255)]


class FolderConfig(Strict):
    """A folder of images and one of label PNGs of the same names, both relative to ``data.root``.

    The labels, if they are not there, are relative to the working directory.

    Attributes:
        name: what the set is called in logs; the first part of ``images`` if left out.
        ids: our class name by the id in the label files; None where they hold our ids. Ids that are in neither
            ``ids`` nor ``ignore`` are faults.
        ignore: ids of pixels that count for nothing; None stands for ``data.ignore``.
        labelled: classes that the set labels; None for all. Where it labels some only, its pixels decide between
            these: they say nothing for or against the others, which may have been painted over.
        only, exclude: shell patterns of the stems that are taken, and of those that are not.
        partly_labelled: pictures without a label file are passed over instead of refused.
    """

    images: Path
    labels: Path
    name: str = ""
    ids: dict[LabelId, str] | None = None
    ignore: list[LabelId] | None = None
    labelled: list[str] | None = Field(default=None, min_length=2)
    only: list[str] = Field(default=[])
    exclude: list[str] = Field(default=[])
    partly_labelled: bool = False

    @property
    def title(self) -> str:
        """Name of the set in logs."""
        return self.name or self.images.parts[0]

    def labels_in(self, root: Path) -> Path:
        """Return the folder of the labels: in ``root``, else in the working directory, for those that were made."""
        there = root / self.labels
        return self.labels if not there.exists() and self.labels.exists() else there

    def takes(self, stem: str) -> bool:
        """Return whether the picture of that stem belongs to the set."""
        return is_taken(stem, self.only, self.exclude)


class BoxFileConfig(Strict):
    """Boxes in a COCO JSON file; its path is relative to ``data.root``, else to the working directory.

    Attributes:
        names: our class name by the file's; None takes the names as they are.
        others: what becomes of the file's other classes: an ``error``, ``drop`` (their boxes are background), or
            ``ignore`` (their boxes count for nothing).
        labelled: classes of which every object is labelled, or that are known to be in none of the pictures; the
            others' absence teaches nothing. None for all that the file has a name for.
        min_score: boxes that a detector made with a lower ``score`` count for nothing: neither object nor background.
    """

    annotations: Path
    names: dict[str, str] | None = None
    others: Literal["error", "drop", "ignore"] = "error"
    labelled: list[str] | None = None
    min_score: float = Field(default=0.0, ge=0, le=1)


class CocoConfig(BoxFileConfig):
    """Pictures with boxes in a COCO JSON file; both paths are relative to ``data.root``.

    Attributes:
        name: what the set is called in logs; the first part of ``images`` if left out.
        only, exclude: shell patterns of the pictures' stems that are taken, and of those that are not.
    """

    images: Path
    name: str = ""
    only: list[str] = Field(default=[])
    exclude: list[str] = Field(default=[])

    @property
    def title(self) -> str:
        """Name of the set in logs."""
        return self.name or self.images.parts[0]

    def takes(self, stem: str) -> bool:
        """Return whether the picture of that stem belongs to the set."""
        return is_taken(stem, self.only, self.exclude)


class Titled(Protocol):
    """A set with a name."""

    @property
    def title(self) -> str: ...


def check_titles(sets: Sequence[Titled]) -> None:
    """Refuse sets of equal names: logs could not tell them apart.

    Raises:
        ValueError: naming them.
    """
    titles = [part.title for part in sets]
    twice = sorted({title for title in titles if titles.count(title) > 1})
    if twice:
        raise ValueError(f"two sets are called {', '.join(twice)}: give each a name")


def check_meanings(
    what: str, one: Titled, meanings: Mapping[Any, str], other: Titled, others: Mapping[Any, str]
) -> None:
    """Refuse two sets that read the same labels and take one of them for different classes.

    Args:
        what: the labels are: "id", "class".
        one, other: the sets.
        meanings, others: class by label, of each.

    Raises:
        ValueError: naming the sets and the label.
    """
    for key, name in meanings.items():
        if others.get(key, name) != name:
            raise ValueError(
                f"sets {other.title} and {one.title} contradict each other: {what} {key} of the same labels is "
                f"{others[key]} in one and {name} in the other"
            )


def is_taken(stem: str, only: Sequence[str], exclude: Sequence[str]) -> bool:
    """Return whether a picture of that stem is among ``only`` (all, if there is none) and not among ``exclude``."""
    if any(fnmatchcase(stem, pattern) for pattern in exclude):
        return False
    return not only or any(fnmatchcase(stem, pattern) for pattern in only)
