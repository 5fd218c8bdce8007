"""The loss of a batch: one for each head, on the pictures that are labelled for it, and one of a teacher."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from perception.training.data.batches import Batch
from perception.training.losses.detection import DetectionLoss
from perception.training.losses.distillation import DistillationLoss
from perception.training.losses.segmentation import SegmentationLoss
from perception.training.recipes.segmentation_detection import SegmentationDetectionConfig


class Objective(nn.Module):
    """The losses of a recipe.

    Args:
        config: the recipe.
        weights: float32 ``[C]`` segmentation class weights.
    """

    def __init__(self, config: SegmentationDetectionConfig, weights: Tensor) -> None:
        super().__init__()
        self.masks = SegmentationLoss(config.loss, weights, config.data.ignore) if config.has_masks else None
        self.boxes = None
        if config.detection is not None and config.has_boxes:
            self.boxes = DetectionLoss(config.detection.loss)
        self.distillation = None if config.distil is None else DistillationLoss(config)
        self.boxes_weight = 0.0 if config.detection is None else config.detection.loss.weight

    def forward(self, outputs: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Return the weighted losses, which add up: ``masks``, ``boxes`` and ``teacher``, as far as there are any."""
        losses: dict[str, Tensor] = {}
        if self.masks is not None:
            logits = outputs["class_logits"]
            parts = (batch.labels, batch.known, batch.weights)
            losses["masks"] = self.masks(logits, *(part.to(logits.device) for part in parts))
        if self.boxes is not None:
            losses["boxes"] = self.boxes_weight * self.boxes(outputs, batch.boxes)
        if self.distillation is not None:
            losses["teacher"] = self.distillation(outputs, batch.distilled)
        return losses
