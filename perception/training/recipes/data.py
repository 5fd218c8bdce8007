"""The pictures with masks of a training recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from perception.card import ClassInfo
from perception.picture.letterbox import ResizeMode
from perception.training.recipes.base import PicturesConfig, Strict, is_taken
from perception.training.recipes.detection import BoxFileConfig, check_titles

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

    def takes(self, stem: str) -> bool:
        """Return whether the picture of that stem belongs to the set."""
        return is_taken(stem, self.only, self.exclude)


class MaskSetConfig(FolderConfig):
    """A set of pictures with masks to train on.

    Attributes:
        share: how often its pictures are taken: of all pictures with masks in an epoch, the part ``share / sum of
            shares``. None for the number of its pictures, so that every picture is seen equally often.
        weight: of its pixels in the loss.
        boxes: boxes of the same pictures, from a COCO file; a picture that the file does not name has none that anybody
            labelled. ``masks`` makes them from the masks (``detection.from_masks``); null says nothing of boxes.
        distil: whether its masks are also learnt from the teacher, where the recipe has one (``distil``).
        licence: of pictures and labels, for the card.
    """

    share: float | None = Field(default=None, gt=0)
    weight: float = Field(default=1.0, gt=0)
    boxes: BoxFileConfig | Literal["masks"] | None = "masks"
    distil: bool = True
    licence: str = ""


class DataConfig(PicturesConfig):
    """Sets of pictures, and the meaning of their labels.

    Attributes:
        train: the sets to train on; a single one needs no list.
        val: what the score is measured on.
        dev: further sets that are measured; the score is the mean over ``val`` and these.
        resize: how pictures of another shape are fitted into that: ``stretch`` or ``letterbox``, as in a model's card.
        classes: the classes, in the order of their ids.
        unlabelled: classes that no set to train on has: the network learns never to name them.
        ignore: label id of pixels that count for nothing.
    """

    train: list[MaskSetConfig] = Field(min_length=1)
    val: FolderConfig
    dev: list[FolderConfig] = Field(default=[])
    resize: ResizeMode = "stretch"
    classes: list[ClassInfo] = Field(min_length=2, max_length=255)
    unlabelled: list[str] = Field(default=[])
    ignore: int = Field(default=255, ge=0, le=255)

    @property
    def names(self) -> list[str]:
        """Class names in the order of their ids."""
        return [c.name for c in self.classes]

    @model_validator(mode="before")
    @classmethod
    def _one_set_is_a_list(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("train"), dict):
            return {**data, "train": [data["train"]]}
        return data

    @model_validator(mode="after")
    def _ignore_is_no_class(self) -> DataConfig:
        if self.ignore < len(self.classes):
            raise ValueError(f"ignore id {self.ignore} is the id of class {self.classes[self.ignore].name}")
        return self

    @model_validator(mode="after")
    def _sets_fit_the_classes(self) -> DataConfig:
        for part in (*self.train, self.val, *self.dev):
            wrong = sorted({*(part.ids or {}).values(), *(part.labelled or [])} - set(self.names))
            if wrong:
                there = ", ".join(self.names)
                raise ValueError(f"set {part.title}: unknown classes {', '.join(wrong)}; there are {there}")
            if part.ids is not None and part.labelled is not None:
                unmapped = sorted(set(part.labelled) - set(part.ids.values()))
                if unmapped:
                    raise ValueError(f"set {part.title} labels {', '.join(unmapped)}, but no id stands for it")
            ignored = [self.ignore] if part.ignore is None else part.ignore
            clash = sorted(set(part.ids or {}) & set(ignored))
            if clash:
                raise ValueError(f"set {part.title}: ids {clash} are both a class and ignored")
        wrong = sorted(set(self.unlabelled) - set(self.names))
        if wrong:
            raise ValueError(f"unlabelled: unknown classes {', '.join(wrong)}; there are {', '.join(self.names)}")
        check_titles(self.train)
        check_titles(self.dev)
        return self
