"""The model card: everything about a model that is not its weights.

Colours are RGB here, as people write them; the rest of the package works in BGR.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, FiniteFloat, ValidationError, model_validator

from perception.card.tasks import ClassificationTask, DetectionTask, SegmentationTask
from perception.common.strict import Strict, faults_in
from perception.errors import ModelError

PlainText = Annotated[str, BeforeValidator(lambda v: str(v) if isinstance(v, (int, date)) else v)]
"""Text that YAML takes for a number or a date when it has no quotes: ``version: 2``, ``date: 2026-11-22``."""


class InputSpec(Strict):
    """The graph input: uint8 ``[N, height, width, 3]`` BGR.

    Attributes:
        name: name of the graph input.
        width, height: the size that the network was made for.
        resize: ``stretch`` fits both sides, ``letterbox`` keeps the aspect ratio and pads.
        multiple: other sizes are allowed if both sides are multiples of this; None where only one size fits.
    """

    name: str = "frames"
    width: int = Field(ge=1, le=16384)
    height: int = Field(ge=1, le=16384)
    resize: Literal["letterbox", "stretch"] = "stretch"
    multiple: int | None = Field(None, ge=1)


class Quantization(Strict):
    """The way in which a model came to compute in eight bits.

    Attributes:
        precision: what most of its convolutions and matrix products compute in.
        source_sha256: SHA-256 of the model file that it was made from, hexadecimal.
        calibrated_on: where the pictures that ranges were measured on come from, and how many there were.
        float_layers: names of the layers that were left as they are for the sake of accuracy.
        before: metrics of the model that it was made from, measured in the same way as this card's own.
        tool: what quantised it, and its version.
    """

    precision: Literal["int8"] = "int8"
    source_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    calibrated_on: list[str] = Field(min_length=1)
    float_layers: list[str] = Field(default=[])
    before: dict[str, FiniteFloat] = Field(default={})
    tool: str = ""


class SetAccuracy(Strict):
    """Accuracy on one set of labelled pictures.

    Attributes:
        set: its name.
        kind: what was compared.
        images: how many pictures.
        metrics: such as ``{"miou": 0.71}``.
        classes: IoU, or average precision at an IoU of 0.5, of each class that occurs.
    """

    set: str
    kind: Literal["segmentation", "detection"]
    images: int = Field(ge=1)
    metrics: dict[str, FiniteFloat]
    classes: dict[str, FiniteFloat] = Field(default={})


class SuiteAccuracy(Strict):
    """Accuracy on the sets of a suite, see `perception.evaluation.suite`; its ``name``."""

    name: str
    sets: list[SetAccuracy]


class ModelCard(Strict):
    """Everything that is known about a model.

    Attributes:
        format: version of this card's format.
        name: short name, as in ``perception annotate --model NAME``.
        version: version of the weights.
        input: what the graph takes.
        segmentation, detection, classification: the tasks, at least one.
        things: by name of a class of pixels whose instances can be told apart, the names of the boxes that show it:
            ``{"car": ["car", "bus"]}``. None: the names that pixels and boxes share.
        licence: what the weights may be used for.
        commercial_use: whether the licences of all that they were made from allow it, as those who publish it state;
            None where nobody has looked. It is no legal advice.
        trained_on: data sets, each with its licence.
        metrics: measured accuracy, such as ``{"camvid_val_miou": 0.71}``.
        suite: measured accuracy on many sets.
        quantization: how it was quantised, if it was.
    """

    format: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    version: PlainText = "1"
    description: str = ""
    input: InputSpec
    segmentation: SegmentationTask | None = None
    detection: DetectionTask | None = None
    classification: ClassificationTask | None = None
    things: dict[str, list[str]] | None = None
    licence: str = Field(min_length=1)
    commercial_use: bool | None = None
    trained_on: list[str] = Field(default=[])
    metrics: dict[str, FiniteFloat] = Field(default={})
    suite: SuiteAccuracy | None = None
    date: PlainText = ""
    quantization: Quantization | None = None

    @model_validator(mode="after")
    def _has_a_task(self) -> ModelCard:
        if not self.tasks:
            raise ValueError("a card needs at least one of: segmentation, detection, classification")
        return self

    @model_validator(mode="after")
    def _things_exist(self) -> ModelCard:
        if self.things is None:
            return self
        if self.segmentation is None or self.detection is None:
            raise ValueError("'things' needs both segmentation and detection")
        pixels = [name for name in self.things if name not in self.segmentation.names]
        boxes = [name for kinds in self.things.values() for name in kinds if name not in self.detection.names]
        if pixels or boxes:
            has = f"classes of pixels {pixels}" if pixels else f"classes of boxes {boxes}"
            raise ValueError(f"'things' names unknown classes: {has}")
        return self

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks that the model does."""
        return [t for t in ("segmentation", "detection", "classification") if getattr(self, t) is not None]


CardT = TypeVar("CardT", bound=ModelCard)


def validate_card(data: Any, where: str | Path, kind: type[CardT] = ModelCard) -> CardT:  # type: ignore[assignment]
    """Validate plain data as a card of the class ``kind``.

    Raises:
        ModelError: naming ``where`` and every field that is missing or wrong.
    """
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise ModelError(f"the model card is not valid: {faults_in(error, 'card')}", where) from None
