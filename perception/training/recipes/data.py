"""The pictures with masks of a training recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from perception.card import ClassInfo
from perception.evaluation.sets import BoxFileConfig, FolderConfig, check_meanings, check_titles
from perception.picture.letterbox import ResizeMode
from perception.training.recipes.base import PicturesConfig


class MaskSetConfig(FolderConfig):
    """A set of pictures with masks to train on.

    Attributes:
        share: how often its pictures are taken: of all pictures with masks in an epoch, the part ``share / sum of
            shares``. None for the number of its pictures, so that every picture is seen equally often.
        weight: of its pixels in the loss.
        boxes: boxes of the same pictures, from a COCO file; a picture that the file does not name has none that anybody
            labelled. ``masks`` makes them from the masks (``detection.from_masks``); null says nothing of boxes.
        distil: whether its masks are also learnt from the teacher, where the recipe has one (``distil``).
        licence: of pictures and labels, see `perception.common.licences`; ``model.commercial_use`` checks it.
        label_recipe: of ``perception pseudo-label``, where that makes the labels; labels that are missing, or older
            than this recipe or its teachers, are refused.
    """

    share: float | None = Field(default=None, gt=0)
    weight: float = Field(default=1.0, gt=0)
    boxes: BoxFileConfig | Literal["masks"] | None = "masks"
    distil: bool = True
    licence: str = ""
    label_recipe: Path | None = None


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

    def ids_of(self, part: FolderConfig) -> dict[int, str]:
        """Return class names by the ids in the label files of a set, without those that it ignores."""
        ignored = [self.ignore] if part.ignore is None else part.ignore
        ids = part.ids or dict(enumerate(self.names))
        return {key: name for key, name in ids.items() if key not in ignored}

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
        every = (*self.train, self.val, *self.dev)
        for part in every:
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
        for n, part in enumerate(every):
            for other in every[:n]:
                if part.labels == other.labels:
                    check_meanings("id", part, self.ids_of(part), other, self.ids_of(other))
        check_titles(self.train)
        check_titles(self.dev)
        return self
