"""A recipe for localisation: a network with two heads, class and box, for whole pictures or for windows of scenes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from perception.card import ClassInfo
from perception.common.strict import Strict
from perception.evaluation.sets import CocoConfig
from perception.training.recipes.base import Fraction, PicturesConfig, RunConfig, StartConfig
from perception.training.recipes.classification import PictureAugmentConfig


class LocalisationDataConfig(PicturesConfig):
    """Pictures with boxes; of each picture the largest object counts.

    Attributes:
        size: ``(width, height)`` of the model's input: of the picture, or of the whole scene that windows are
            slid over.
        classes: the classes, in the order of their ids.
    """

    train: CocoConfig
    val: CocoConfig
    classes: list[ClassInfo] = Field(min_length=1, max_length=1000)

    @property
    def names(self) -> list[str]:
        """Class names in the order of their ids."""
        return [c.name for c in self.classes]


class WindowsConfig(Strict):
    """The network sees square windows, learns also when there is nothing in them, and becomes a detector.

    Attributes:
        side: of a window, in pixels.
        scales: of the scene; at each, windows are slid over it.
        per_image: windows of a picture in an epoch; half of them hold no object.
        fill: range of the longer side of an object in its window, as a share of the window.
        background: how the network says that nothing is there: by a class of its own, by its confidence alone, or both.
        score_threshold, iou_threshold: for the exported card.
    """

    side: int = Field(default=96, ge=32)
    scales: list[float] = Field(default=[1.0, 0.5], min_length=1)
    per_image: int = Field(default=4, ge=2)
    fill: tuple[float, float] = (0.4, 0.95)
    background: Literal["class", "confidence", "both"] = "both"
    score_threshold: Fraction = 0.5
    iou_threshold: Fraction = 0.4

    @model_validator(mode="after")
    def _ranges_are_ranges(self) -> WindowsConfig:
        if not 0 < self.fill[0] <= self.fill[1] <= 1:
            raise ValueError(f"fill must be a range in 0..1, not {self.fill}")
        if any(not 0 < scale <= 2 for scale in self.scales):
            raise ValueError(f"scales must be above 0 and at most 2, not {self.scales}")
        return self


class LocaliserConfig(StartConfig):
    """Backbone and heads: see `perception.classics.localisation.network.Localiser`.

    Attributes:
        stride: features of the backbone that the heads see.
        maps: that these are made into before they are flattened.
        hidden: numbers of the dense layer before the heads.
        frozen_stride: the backbone's layers up to this stride stay as they start, statistics included.
    """

    backbone: Literal["efficientnet_lite0"] = "efficientnet_lite0"
    stride: Literal[8, 16, 32] = 32
    maps: int = Field(default=64, ge=1)
    hidden: int = Field(default=256, ge=1)
    dropout: Fraction = 0.2
    pretrained: bool = True
    frozen_stride: Literal[0, 2, 4, 8] = 0


class LocalisationLossConfig(Strict):
    """Weights of the losses.

    Attributes:
        class_weight, box_weight: of the cross entropy of the classes and of the loss of the boxes.
        box: of four numbers in 0..1: ``mse`` their mean squared difference, ``iou`` 1 - generalised IoU beside it.
        confidence_weight: of the confidence of windows.
    """

    class_weight: float = Field(default=0.8, ge=0)
    box_weight: float = Field(default=0.2, ge=0)
    box: Literal["mse", "iou"] = "iou"
    confidence_weight: float = Field(default=0.5, ge=0)


class LocalisationConfig(RunConfig):
    """A whole recipe.

    Attributes:
        windows: None for one object of the whole picture.
    """

    task: Literal["localisation"]
    data: LocalisationDataConfig
    network: LocaliserConfig = LocaliserConfig()
    augment: PictureAugmentConfig = PictureAugmentConfig()
    loss: LocalisationLossConfig = LocalisationLossConfig()
    windows: WindowsConfig | None = None

    @model_validator(mode="after")
    def _sizes_are_whole_cells(self) -> LocalisationConfig:
        sides = self.data.size if self.windows is None else (self.windows.side,)
        if any(side % self.network.stride for side in sides):
            raise ValueError(f"network.stride {self.network.stride} does not divide the input {list(sides)}")
        return self
