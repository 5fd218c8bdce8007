"""Distillation: a network learns the answers of a trained one, its teacher, beside the labels (Hinton et al. 2015).

A teacher answers at every pixel and every location, for pictures without labels too: much more than labels say.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.training.recipes.segmentation_detection import DistilConfig, SegmentationDetectionConfig

LEAST_CONFIDENCE = 0.1  # least class probability of the teacher at a location whose box is learnt
TEACHER = "teacher_"  # before the names of the teacher's outputs


class DistillationLoss(nn.Module):
    """The distance of a network from its teacher.

    - Masks: Kullback-Leibler divergence of the class probabilities, mean over the locations.
    - Boxes: quality focal loss (Li et al. 2020) towards the teacher's class probabilities at every location; where it
      is sure of something, generalised IoU with its box, and cross entropy with its confidence. As with labels, these
      are sums over the sum of how sure it is.
    """

    def __init__(self, config: SegmentationDetectionConfig) -> None:
        super().__init__()
        assert config.distil is not None
        self.config: DistilConfig = config.distil
        self.has_masks = config.has_masks
        self.parts = config.detection.loss if config.detection is not None and config.has_boxes else None

    def forward(self, outputs: Mapping[str, Tensor], distilled: Tensor | None = None) -> Tensor:
        """Sum up the weighted parts for a batch.

        Args:
            outputs: of the network, and with ``teacher_`` before their names the teacher's.
            distilled: bool ``[M]``: the pictures whose masks are learnt from the teacher; None for all.
        """
        total: Tensor | float = 0.0
        if self.has_masks:
            ours, theirs = outputs["class_logits"], outputs[f"{TEACHER}class_logits"]
            if distilled is not None:
                chosen = distilled.to(ours.device)
                ours, theirs = ours[chosen], theirs[chosen]
            total = self.config.masks * _masks(ours, theirs)
        if self.parts is None:
            return torch.as_tensor(total)
        theirs = outputs[f"{TEACHER}box_class_logits"].float().sigmoid()
        logits = outputs["box_class_logits"].float()
        sure = theirs.amax(2)  # [N, K]
        how_sure = sure.sum().clamp(min=1.0)
        focus = (logits.sigmoid() - theirs).abs().pow(self.parts.focus)
        entropy = F.binary_cross_entropy_with_logits(logits, theirs, reduction="none")
        boxes = self.parts.class_weight * (focus * entropy).sum() / how_sure

        chosen = sure >= LEAST_CONFIDENCE
        weight = sure[chosen]
        from torchvision.ops import generalized_box_iou_loss  # takes seconds: not before something is trained

        giou = generalized_box_iou_loss(outputs["boxes"].float()[chosen], outputs[f"{TEACHER}boxes"].float()[chosen])
        boxes = boxes + self.parts.box_weight * (giou * weight).sum() / how_sure
        confidence = outputs["box_confidence_logits"].float()[chosen]
        wanted = outputs[f"{TEACHER}box_confidence_logits"].float()[chosen].sigmoid()
        entropy = F.binary_cross_entropy_with_logits(confidence, wanted, reduction="none")
        boxes = boxes + self.parts.confidence_weight * (entropy * weight).sum() / how_sure
        return total + self.config.boxes * boxes


def _masks(logits: Tensor, teacher: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the class probabilities; both ``[M, C, h, w]``."""
    ours, theirs = logits.float().log_softmax(1), teacher.float().log_softmax(1)
    divergence: Tensor = (theirs.exp() * (theirs - ours)).sum(1)
    return divergence.sum() / max(divergence.numel(), 1)
