"""A recipe for a classifier of whole pictures."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from perception.common.strict import Strict
from perception.training.recipes.base import Fraction, PicturesConfig, RunConfig, StartConfig


class LabelledDataConfig(PicturesConfig):
    """Pictures with one class each.

    Attributes:
        train: folder or ``.zip`` of ``class/name.jpg``, or ``.npz``; ``torchvision:CIFAR100``, or
            ``torchvision:CIFAR100-test``, and the like are downloaded by torchvision into ``root``.
        val: the same, for pictures to measure on; None holds out a part of ``train``.
        held_out: without ``val``, each so many-th picture of every class is measured on and not trained on.
        licence: of the pictures.
        classes: names of the folders, or names for the labels 0, 1, ... of an ``.npz``.
    """

    train: str
    val: str | None = None
    held_out: int = Field(default=10, ge=2)
    classes: list[str] = Field(min_length=2, max_length=1000)
    licence: str = ""


class ClassifierConfig(StartConfig):
    """The network, its start, and the layers that stay as they start.

    Attributes:
        classifier: see `perception.networks.classifier.build_classifier`. Its last dense layer is made anew for the
            recipe's classes.
        pretrained: start from ImageNet weights.
        frozen: layers that stay as they start, statistics of batch normalisations included: ``all`` but the head, or
            the first so many blocks (`perception.networks.classifier.blocks_of`).
        head_epochs: for so many epochs at first only the head is trained.
        later_factor: from then on all learning rates are this much of the recipe's.
    """

    classifier: str
    pretrained: bool = False
    frozen: Literal["all"] | Annotated[int, Field(ge=0)] = 0
    head_epochs: int = Field(default=0, ge=0)
    later_factor: float = Field(default=1.0, gt=0, le=1)


class PictureAugmentConfig(Strict):
    """Random changes of a training picture.

    Attributes:
        flip: chance of a mirror image.
        shift: largest move to either side, in pixels of the model's input; what comes in is grey.
        rotate: largest turn, in degrees.
        scale: range of the zoom, drawn evenly on a log scale.
        color: strength of brightness, contrast, gamma, colour cast and saturation changes, 0 for none.
    """

    flip: Fraction = 0.0
    shift: float = Field(default=0.0, ge=0)
    rotate: float = Field(default=0.0, ge=0, le=180)
    scale: tuple[float, float] = (1.0, 1.0)
    color: Fraction = 0.0

    @model_validator(mode="after")
    def _scale_is_a_range(self) -> PictureAugmentConfig:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be a range above 0, not {self.scale}")
        return self


class ClassificationConfig(RunConfig):
    """A whole recipe.

    Attributes:
        smoothing: share of every label that goes to all classes alike (Szegedy et al. 2016).
    """

    task: Literal["classification"]
    data: LabelledDataConfig
    network: ClassifierConfig
    augment: PictureAugmentConfig = PictureAugmentConfig()
    smoothing: Fraction = 0.0

    def licences(self) -> dict[str, str]:
        return {f"data.train {self.data.train}": self.data.licence}

    @model_validator(mode="after")
    def _phases_fit(self) -> ClassificationConfig:
        if self.network.head_epochs >= self.epochs:
            raise ValueError(f"network.head_epochs {self.network.head_epochs} leaves nothing of {self.epochs} epochs")
        if len(set(self.data.classes)) < len(self.data.classes):
            raise ValueError("data.classes must be unique")
        return self
