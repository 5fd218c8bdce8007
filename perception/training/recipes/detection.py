"""The detection part of a training recipe."""

from __future__ import annotations

from pydantic import Field, model_validator

from perception.card import ClassInfo
from perception.common.strict import Strict
from perception.evaluation.sets import BoxFileConfig, CocoConfig, check_titles
from perception.training.recipes.base import Fraction


class BoxSetConfig(CocoConfig):
    """A set of pictures with boxes to train on.

    Attributes:
        share: how often its pictures are taken, as of a set with masks.
        licence: of pictures and boxes, as of a set with masks; where it is left out, that of the set with masks that
            has the same pictures and the same boxes.
    """

    share: float | None = Field(default=None, gt=0)
    licence: str = ""


class ComponentConfig(Strict):
    """Boxes around the connected components of one segmentation class.

    A component that is not plausibly one whole object (touching others, cut in two) is ignored: it is neither a
    box nor background.

    Attributes:
        name: detection class of the boxes.
        aspect: range of width / height of one object.
        fill: least share of its box that the component covers.
        min_area: pixels; smaller ones are ignored.
        gap: components of the class nearer than this many pixels to each other are ignored.
        unsure: detection classes that such an object may also be: its box says nothing about them.
    """

    name: str
    aspect: tuple[float, float]
    fill: Fraction = 0.5
    min_area: int = Field(default=80, ge=1)
    gap: int = Field(default=3, ge=0)
    unsure: list[str] = Field(default=[])


class MaskBoxesConfig(Strict):
    """Boxes made from the masks of ``data.train``.

    Attributes:
        components: how, by the name of the segmentation class.
        absent: detection classes that never occur in these pictures, so that all of them teach what they are not.
    """

    components: dict[str, ComponentConfig] = Field(min_length=1)
    absent: list[str] = Field(default=[])


class BoxAugmentConfig(Strict):
    """Random changes of the pictures with boxes; colour, blur, noise, flip and crops are those of ``augment``.

    Attributes:
        scale: range of the zoom, drawn evenly on a log scale; 1 is the picture fitted into ``data.size``.
        stretch: largest change of the aspect ratio, 0.1 for 10%.
        mosaic: chance that a training picture is put together from four (Bochkovskiy et al. 2020).
        mosaic_scale: range of the zoom inside a mosaic.
        mosaic_until: epoch from which on there are no mosaics: the last ones see whole pictures.
        min_visible: a box of which less than this share is left inside is ignored.
        min_side: a box with a side shorter than this many pixels is ignored.
    """

    scale: tuple[float, float] = (0.4, 1.4)
    stretch: Fraction = 0.2
    mosaic: Fraction = 0.5
    mosaic_scale: tuple[float, float] = (0.25, 0.9)
    mosaic_until: int | None = None
    min_visible: Fraction = 0.35
    min_side: float = Field(default=8.0, ge=1)

    @model_validator(mode="after")
    def _scales_are_ranges(self) -> BoxAugmentConfig:
        for name in ("scale", "mosaic_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be a range above 0, not {(low, high)}")
        return self


class DetectionLossConfig(Strict):
    """Quality focal loss on class scores, GIoU on boxes, cross entropy on the confidence.

    Attributes:
        weight: of all of it beside the segmentation loss.
        class_weight, box_weight, confidence_weight: of its parts.
        focus: exponent of the quality focal loss.
        candidates: most locations that one box is assigned to.
    """

    weight: float = Field(default=1.0, ge=0)
    class_weight: float = Field(default=1.0, ge=0)
    box_weight: float = Field(default=2.0, ge=0)
    confidence_weight: float = Field(default=0.5, ge=0)
    focus: float = Field(default=2.0, ge=0)
    candidates: int = Field(default=10, ge=1)


class DetectionConfig(Strict):
    """A detection head: its classes, its pictures, its share of a batch.

    Attributes:
        classes: the classes, in the order of their ids.
        train: sets of pictures to learn from, one after the other.
        val: what the score is measured on.
        dev: further sets that are measured; the score is the mean over ``val`` and these.
        from_masks: boxes for the pictures of those sets of ``data.train`` that say ``boxes: masks``; None for none.
        batch: pictures with boxes in a batch, beside the recipe's ``batch`` of pictures with masks. An epoch
            goes once through them.
        strides, width, depth: `perception.networks.detector.DetectionHead`'s.
        score_threshold, iou_threshold, class_agnostic, vote_iou: for the exported card.
    """

    classes: list[ClassInfo] = Field(min_length=1, max_length=1000)
    train: list[BoxSetConfig] = Field(min_length=1)
    val: CocoConfig
    dev: list[CocoConfig] = Field(default=[])
    from_masks: MaskBoxesConfig | None = None
    batch: int = Field(default=8, ge=1)
    strides: list[int] = Field(default=[8, 16, 32])
    width: int = Field(default=128, ge=8)
    depth: int = Field(default=2, ge=0)
    score_threshold: Fraction = 0.3
    iou_threshold: Fraction = 0.6
    class_agnostic: bool = False
    vote_iou: Fraction | None = None
    augment: BoxAugmentConfig = BoxAugmentConfig()
    loss: DetectionLossConfig = DetectionLossConfig()

    @property
    def names(self) -> list[str]:
        """Class names in the order of their ids."""
        return [c.name for c in self.classes]

    def unknown(self, part: BoxFileConfig) -> list[str]:
        """List the classes that ``part`` names and the head does not have."""
        return sorted({*(part.names or {}).values(), *(part.labelled or [])} - set(self.names))

    @model_validator(mode="after")
    def _names_exist(self) -> DetectionConfig:
        known = self.names
        used = {name for part in [*self.train, self.val, *self.dev] for name in self.unknown(part)}
        if self.from_masks is not None:
            used.update(self.from_masks.absent)
            for component in self.from_masks.components.values():
                used.update([component.name, *component.unsure])
        wrong = sorted(used - set(known))
        if wrong:
            raise ValueError(f"unknown detection classes {', '.join(wrong)}; there are {', '.join(known)}")
        check_titles(self.train)
        check_titles(self.dev)
        return self
