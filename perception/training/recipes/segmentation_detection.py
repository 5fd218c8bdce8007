"""A recipe for segmentation and, if asked for, detection, on one backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from perception.common.strict import Strict
from perception.evaluation.sets import BoxFileConfig, Titled, check_meanings
from perception.networks.backbone import BackboneName
from perception.networks.fcn import STRIDE as FCN_STRIDE
from perception.networks.lite import EXPANDING_BLOCKS
from perception.training.recipes.base import Fraction, RunConfig, StartConfig
from perception.training.recipes.data import DataConfig
from perception.training.recipes.detection import DetectionConfig


class NetworkConfig(StartConfig):
    """Backbone, decoder and their arguments.

    Attributes:
        backbone: see `perception.networks.backbone`.
        decoder: ``fpn`` alone can have a detection head, see `perception.networks.segmentation_detection`; the others
            are those of Long et al. 2015, see `perception.networks.fcn`.
        widths: channels of the feature pyramid by stride.
        stem_skip: whether the finest level of the pyramid sees features of stride 2.
        subpixel: class logits at stride 2, not 4 (``fpn``).
        separable: depthwise-separable convolutions in the pyramid (``fpn``).
        dropout: channel dropout before the last layer.
        hidden: channels inside each block of the backbone that expands its input (``efficientnet_lite0``), to make it
            faster; None for its own. Starts from a checkpoint of the wider network, or from ImageNet's weights, with
            the channels left out that matter least on the recipe's pictures, see `perception.training.weights.prune`.
        pretrained: start the backbone from ImageNet.
        frozen_stride: the backbone's layers up to this stride stay as they start, statistics included: they are
            half the cost of a training step and gain least from it. 0 trains all.
        start: model (a shipped one's name, or an ``.onnx`` of ours) or checkpoint (its averaged weights) that the
            network starts from, wherever name and shape agree; or a recipe, which is trained first. ``train --start``
            replaces it.
    """

    backbone: BackboneName = "efficientnet_lite0"
    decoder: Literal["fpn", "fcn32s", "fcn16s", "fcn8s"] = "fpn"
    widths: dict[int, int] = Field(default={4: 64, 8: 96, 16: 128, 32: 128})
    stem_skip: bool = True
    subpixel: bool = False
    separable: bool = False
    dropout: Fraction = 0.1
    hidden: list[Annotated[int, Field(ge=1)]] | None = None
    pretrained: bool = True
    frozen_stride: Literal[0, 2, 4, 8] = 0

    @property
    def prunes_imagenet(self) -> bool:
        """True where training starts from ImageNet's weights with some of their channels left out."""
        return self.pretrained and self.hidden is not None

    @model_validator(mode="after")
    def _frozen_layers_are_known(self) -> NetworkConfig:
        if self.frozen_stride and self.backbone != "efficientnet_lite0":
            raise ValueError(f"frozen_stride is for efficientnet_lite0, not {self.backbone}")
        return self

    @model_validator(mode="after")
    def _hidden_is_of_the_backbone(self) -> NetworkConfig:
        if self.hidden is not None:
            if self.backbone != "efficientnet_lite0":
                raise ValueError(f"hidden is for efficientnet_lite0, not {self.backbone}")
            if len(self.hidden) != EXPANDING_BLOCKS:
                raise ValueError(
                    f"hidden needs one number for each of the {EXPANDING_BLOCKS} expanding blocks, "
                    f"not {len(self.hidden)}"
                )
        return self


class DistilConfig(Strict):
    """Distillation from a trained network beside the labels, see `perception.training.losses.distillation`.

    Attributes:
        teacher: checkpoint; its averaged weights. Of the same classes and strides; usually wider.
        masks, boxes: weights of its answers in the loss.
    """

    teacher: Path
    masks: float = Field(default=1.0, ge=0)
    boxes: float = Field(default=1.0, ge=0)


class CropPhase(Strict):
    """From epoch ``start`` on, train on crops of ``size`` (width, height)."""

    start: int = Field(default=0, ge=0)
    size: tuple[int, int]

    @model_validator(mode="after")
    def _size_is_whole_cells(self) -> CropPhase:
        if any(side < 32 or side % 32 for side in self.size):
            raise ValueError(f"crop sides must be multiples of 32, not {self.size}")
        return self


class CopyPasteConfig(Strict):
    """Things of one picture with masks put into another, see `perception.training.data.copy_paste`.

    Attributes:
        chance: that a picture gets any.
        classes: class ids whose connected components are taken.
        most: things in one picture; at least one.
        min_area: pixels of the smallest that is taken.
    """

    chance: Fraction = 0.5
    classes: list[int] = Field(min_length=1)
    most: int = Field(default=3, ge=1)
    min_area: int = Field(default=20, ge=1)


class WeatherConfig(Strict):
    """Night, fog, rain and motion blur, see `perception.training.data.weather`; each value is the chance of it.

    Attributes:
        night: dark, noisy, with lamps.
        fog: contrast lost towards the horizon.
        rain: streaks, and less contrast.
        motion: blur along a line.
    """

    night: Fraction = 0.1
    fog: Fraction = 0.05
    rain: Fraction = 0.05
    motion: Fraction = 0.05


class AugmentConfig(Strict):
    """Random changes of a training picture.

    Attributes:
        crops: crop size by epoch, the first from epoch 0.
        scale: range of the zoom, drawn evenly on a log scale.
        stretch: largest change of the aspect ratio, 0.1 for 10%.
        flip: chance of a mirror image.
        rare_classes: class ids that crops are drawn towards.
        rare_chance: chance that a crop must contain a pixel of a rare class.
        copy_paste: things of other pictures that are put into one first; None for none.
        color: strength of brightness, contrast, gamma, colour cast and saturation changes, 0 for none.
        blur: chance of a slight blur.
        noise: chance of slight noise.
        jpeg: chance of JPEG's artefacts.
        weather: night, fog, rain and motion blur; None for none.
    """

    crops: list[CropPhase] = Field(min_length=1)
    scale: tuple[float, float] = (0.6, 1.8)
    stretch: Fraction = 0.1
    flip: Fraction = 0.5
    rare_classes: list[int] = Field(default=[])
    rare_chance: Fraction = 0.5
    copy_paste: CopyPasteConfig | None = None
    color: Fraction = 0.4
    blur: Fraction = 0.1
    noise: Fraction = 0.1
    jpeg: Fraction = 0.0
    weather: WeatherConfig | None = None

    @model_validator(mode="after")
    def _phases_are_ordered(self) -> AugmentConfig:
        starts = [phase.start for phase in self.crops]
        if starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError(f"crop phases must start at 0 and rise, not {starts}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale must be a range above 0, not {self.scale}")
        return self

    def crop_at(self, epoch: int) -> tuple[int, int]:
        """Crop size (width, height) in ``epoch``."""
        return [phase.size for phase in self.crops if phase.start <= epoch][-1]


class LossConfig(Strict):
    """Cross entropy plus, if asked for, Lovász-softmax.

    Attributes:
        weight_offset: class weights are ``1 / ln(offset + frequency)`` (Paszke et al. 2016), scaled to a
            pixel-weighted mean of 1; nearer to 1 favours rare classes more; None weighs all classes alike.
        ohem: keep only this share of the pixels, the hardest; 1 keeps all.
        lovasz: weight of the Lovász-softmax term (Berman et al. 2018).
    """

    weight_offset: float | None = Field(default=None, gt=1)
    ohem: float = Field(default=1.0, gt=0, le=1)
    lovasz: float = Field(default=0.0, ge=0)


class SegmentationDetectionConfig(RunConfig):
    """A recipe for masks and, if asked for, boxes.

    Attributes:
        detection: a second head, for boxes; None trains masks alone.
        only: trains and measures one of the two heads, in as many steps, on the pictures that are labelled for it; the
            other stays as it starts. Tells what both on one backbone cost each other.
        freeze_shared: with ``only``, the layers that both heads share stay as they start, too, statistics included: the
            other head's output does not change, and an epoch takes less time.
        distil: a teacher beside the labels; None for the labels alone.
        steps: batches of an epoch; None for one pass over the pictures with boxes, or with masks where there are none.
    """

    task: Literal["segmentation_detection"] = "segmentation_detection"
    data: DataConfig
    network: NetworkConfig = NetworkConfig()
    augment: AugmentConfig
    loss: LossConfig = LossConfig()
    detection: DetectionConfig | None = None
    only: Literal["masks", "boxes"] | None = None
    freeze_shared: bool = False
    distil: DistilConfig | None = None
    steps: int | None = Field(default=None, ge=1)

    @property
    def has_masks(self) -> bool:
        """True where masks are trained."""
        return self.only != "boxes"

    @property
    def has_boxes(self) -> bool:
        """True where boxes are trained."""
        return self.detection is not None and self.only != "masks"

    @property
    def cell(self) -> int:
        """Pixels that both sides of the network's input are multiples of: those of a cell of its logits."""
        # the pyramid's finest level folds stride 2, for which the export was traced at even sizes
        return max(4, min(self.network.widths)) if self.network.decoder == "fpn" else FCN_STRIDE

    def licences(self) -> dict[str, str]:
        found = {f"set {part.title}": part.licence for part in self.data.train}
        with_masks = {
            (part.images, part.boxes.annotations): part.licence
            for part in self.data.train
            if isinstance(part.boxes, BoxFileConfig)
        }
        for part in () if self.detection is None else self.detection.train:
            licence = part.licence or with_masks.get((part.images, part.annotations), "")
            found[f"detection set {part.title}"] = licence
        return found

    @model_validator(mode="after")
    def _chosen_classes_exist(self) -> SegmentationDetectionConfig:
        chosen = {"rare_classes": self.augment.rare_classes}
        if self.augment.copy_paste is not None:
            chosen["copy_paste.classes"] = self.augment.copy_paste.classes
        for name, ids in chosen.items():
            wrong = [i for i in ids if not 0 <= i < len(self.data.classes)]
            if wrong:
                raise ValueError(f"augment.{name} {wrong} are not among the {len(self.data.classes)} classes")
        return self

    @model_validator(mode="after")
    def _things_exist(self) -> SegmentationDetectionConfig:
        things = self.model.things or {}
        boxes = () if self.detection is None else self.detection.names
        wrong = sorted(set(things) - set(self.data.names)) + sorted(
            {n for names in things.values() for n in names} - set(boxes)
        )
        if wrong:
            raise ValueError(f"model.things names unknown classes {', '.join(wrong)}; null takes away what a base has")
        return self

    @model_validator(mode="after")
    def _size_is_whole_cells(self) -> SegmentationDetectionConfig:
        """Logits are taken to lie over the picture from edge to edge; a part of a cell would move all of them."""
        if any(side < 1 or side % self.cell for side in self.data.size):
            near = "x".join(str(max(round(side / self.cell), 1) * self.cell) for side in self.data.size)
            raise ValueError(
                f"data.size: both sides are multiples of {self.cell} with network.decoder {self.network.decoder}, not "
                f"{self.data.size[0]}x{self.data.size[1]}; try {near}"
            )
        return self

    @model_validator(mode="after")
    def _something_is_shared(self) -> SegmentationDetectionConfig:
        if self.freeze_shared and self.only is None:
            raise ValueError("freeze_shared keeps what the head that is not trained needs: say which is, with only")
        return self

    @model_validator(mode="after")
    def _detection_fits(self) -> SegmentationDetectionConfig:
        if self.detection is None:
            if self.only is not None:
                raise ValueError(f"only: {self.only} chooses one of two heads; there is no detection part")
            return self
        if self.network.decoder != "fpn":
            raise ValueError(f"network.decoder {self.network.decoder} has no detection head; fpn has")
        for part in self.data.train:
            if isinstance(part.boxes, BoxFileConfig) and (wrong := self.detection.unknown(part.boxes)):
                there = ", ".join(self.detection.names)
                raise ValueError(f"set {part.title}: unknown detection classes {', '.join(wrong)}; there are {there}")
        named: list[tuple[Titled, BoxFileConfig]] = [
            (part, part.boxes) for part in self.data.train if isinstance(part.boxes, BoxFileConfig)
        ]
        named += [(part, part) for part in (*self.detection.train, self.detection.val, *self.detection.dev)]
        for n, (one, file) in enumerate(named):
            for other, others in named[:n]:
                if file.annotations == others.annotations:
                    check_meanings("class", one, file.names or {}, other, others.names or {})
        missing = sorted(set(self.detection.strides) - set(self.network.widths))
        if missing:
            raise ValueError(f"detection.strides {missing} are not among network.widths {sorted(self.network.widths)}")
        if self.detection.from_masks is not None:
            names = {c.name for c in self.data.classes}
            wrong = sorted(set(self.detection.from_masks.components) - names)
            if wrong:
                raise ValueError(f"detection.from_masks: no segmentation class {', '.join(wrong)}")
        return self
