"""A recipe for masks by teachers: a YAML file, checked before any network runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from perception.common.settings import read_yaml
from perception.common.strict import Strict, faults_in
from perception.errors import UsageError
from perception.evaluation.sets import is_taken

View = Annotated[tuple[float, float, float, float], Field()]


class MaskTeacherConfig(Strict):
    """A network that segments pictures: one input of uint8 or float RGB, one output of class ids or of scores.

    Attributes:
        model: ``.tflite`` or ``.onnx`` file; relative to the working directory.
        licence: of its weights, for the card of whatever learns from it.
        size: ``(width, height)`` of its input.
        resize: ``stretch``, or ``pad``: fitted into the input's upper left corner, grey behind.
        classes: its class names in the order of their ids.
        ids: our class by the teacher's; its other classes say nothing.
    """

    model: Path
    licence: str = Field(min_length=1)
    size: tuple[int, int]
    resize: Literal["stretch", "pad"] = "stretch"
    classes: list[str] = Field(min_length=2, max_length=255)
    ids: dict[str, str] = Field(min_length=1)

    @model_validator(mode="after")
    def _classes_exist(self) -> MaskTeacherConfig:
        wrong = sorted(set(self.ids) - set(self.classes))
        if wrong:
            raise ValueError(f"teacher {self.model.name} has no class {', '.join(wrong)}")
        return self


class PictureSetConfig(Strict):
    """A folder of pictures to label.

    Attributes:
        images: folder, relative to ``root``.
        output: folder for the label PNGs, relative to the working directory.
        boxes: COCO file with boxes of the pictures, relative to ``root``; None where there are none. Then the classes
            that ``inside`` names are left unknown.
        exclude: shell patterns of the stems that are passed over.
    """

    images: Path
    output: Path
    boxes: Path | None = None
    exclude: list[str] = Field(default=[])

    def takes(self, stem: str) -> bool:
        """Return whether the picture of that stem is to be labelled."""
        return is_taken(stem, [], self.exclude)


class LabelsConfig(Strict):
    """Which teachers label which pictures.

    A pixel gets a class where every view of every teacher that has something to say names the same one; else it stays
    unknown.

    Attributes:
        root: base of the pictures.
        classes: our classes in the order of their ids.
        ignore: id of unknown pixels.
        views: parts of the picture that each teacher sees besides the whole of it: x1, y1, x2, y2 in 0..1.
        mirror: whether it sees each of them mirrored, too.
        inside: classes that are believed only inside boxes of these names, with ``margin`` pixels around.
        outside: classes that are not believed inside boxes of these names: a wide flank is easily called a wall.
        margin: pixels.
        min_region: connected regions of fewer pixels stay unknown.
    """

    root: Path
    classes: list[str] = Field(min_length=2, max_length=255)
    ignore: int = Field(default=255, ge=0, le=255)
    teachers: list[MaskTeacherConfig] = Field(min_length=1)
    sets: list[PictureSetConfig] = Field(min_length=1)
    views: list[View] = Field(default=[])
    mirror: bool = True
    inside: dict[str, list[str]] = Field(default={})
    outside: dict[str, list[str]] = Field(default={})
    margin: int = Field(default=4, ge=0)
    min_region: int = Field(default=100, ge=0)

    @model_validator(mode="after")
    def _names_agree(self) -> LabelsConfig:
        if self.ignore < len(self.classes):
            raise ValueError(f"ignore id {self.ignore} is the id of class {self.classes[self.ignore]}")
        named = {name for teacher in self.teachers for name in teacher.ids.values()}
        named |= {*self.inside, *self.outside}
        wrong = sorted(named - set(self.classes))
        if wrong:
            raise ValueError(f"unknown classes {', '.join(wrong)}; there are {', '.join(self.classes)}")
        for x1, y1, x2, y2 in self.views:
            if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
                raise ValueError(f"view {[x1, y1, x2, y2]} is no part of a picture: x1 < x2, y1 < y2, all in 0..1")
        return self


def read_labels_recipe(path: str | Path, data_root: str | Path | None = None) -> LabelsConfig:
    """Read the recipe in ``path``, with ``root`` replaced if it is given.

    Raises:
        UsageError: The file cannot be read or does not hold a valid recipe; every fault is named.
    """
    data = read_yaml(path, "recipe")
    if data_root is not None and isinstance(data, dict):
        data["root"] = str(data_root)
    try:
        return LabelsConfig.model_validate(data)
    except ValidationError as error:
        raise UsageError(f"not a valid recipe: {faults_in(error, 'recipe', LabelsConfig)}", path) from None
