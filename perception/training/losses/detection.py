"""Detection loss over all locations of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.training.data.boxes import BoxLabels
from perception.training.losses.assignment import assign
from perception.training.recipes.detection import DetectionLossConfig


class _Targets(NamedTuple):
    scores: Tensor  # [K, C] what the class probabilities should be
    counted: Tensor  # [K, C] where they are held to it
    boxes: Tensor  # [P, 4] of the locations that answer for an object
    quality: Tensor  # [P]
    positive: Tensor  # [P] indices into K


class DetectionLoss(nn.Module):
    """Quality focal loss, GIoU and confidence.

    - Class probabilities are held to the quality of the location's box (quality focal loss, Li et al. 2020): 0 for
      background, the aligned IoU where a location answers for an object (see
      `perception.training.losses.assignment.assign`).
    - Boxes: generalised IoU (Rezatofighi et al. 2019), weighted by quality.
    - Confidence: cross entropy with the IoU that the predicted box has, as FCOS (Tian et al. 2019) learns its
      centreness: only where there is an object.

    What a picture does not label teaches nothing: classes that are unknown in it, ignored regions, and the classes
    that a box is unsure about.
    """

    def __init__(self, config: DetectionLossConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, outputs: Mapping[str, Tensor], labels: Sequence[BoxLabels | None]) -> Tensor:
        """Compute the loss of a batch.

        Args:
            outputs: of `perception.networks.detector.DetectionHead` for N pictures.
            labels: N; a picture with None takes no part.
        """
        rows = [i for i, picture in enumerate(labels) if picture is not None]
        if not rows:
            return outputs["box_class_logits"].sum() * 0.0
        logits = outputs["box_class_logits"][rows].float()
        boxes = outputs["boxes"][rows].float()
        confidences = outputs["box_confidence_logits"][rows].float()
        targets = [
            self._targets(outputs["box_locations"], boxes[i].detach(), logits[i].detach().sigmoid(), picture)
            for i, picture in enumerate(p for p in labels if p is not None)
        ]
        quality = torch.cat([t.quality for t in targets])
        total_quality = quality.sum().clamp(min=1.0)

        wanted = torch.stack([t.scores for t in targets])
        focus = (logits.sigmoid() - wanted).abs().pow(self.config.focus)
        entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        counted = torch.stack([t.counted for t in targets])
        total = self.config.class_weight * (focus * entropy * counted).sum() / total_quality

        if len(quality):
            found = torch.cat([boxes[i, t.positive] for i, t in enumerate(targets)])
            truth = torch.cat([t.boxes for t in targets])
            from torchvision.ops import generalized_box_iou_loss  # takes seconds: not before something is trained

            giou = generalized_box_iou_loss(found, truth)
            total = total + self.config.box_weight * (giou * quality).sum() / total_quality
            confidence = torch.cat([confidences[i, t.positive] for i, t in enumerate(targets)])
            iou = _paired_iou(found.detach(), truth)
            entropy = F.binary_cross_entropy_with_logits(confidence, iou, reduction="none")
            total = total + self.config.confidence_weight * (entropy * quality).sum() / total_quality
        else:  # every layer takes part in every step: processes that train together wait for all gradients
            total = total + 0.0 * (boxes.sum() + confidences.sum())
        return total

    def _targets(self, locations: Tensor, boxes: Tensor, scores: Tensor, labels: BoxLabels) -> _Targets:
        device = boxes.device
        all_boxes = torch.from_numpy(labels.boxes).to(device)
        all_ids = torch.from_numpy(labels.class_ids).to(device)
        real = all_ids >= 0
        truth, ids = all_boxes[real], all_ids[real]
        unsure = torch.from_numpy(labels.unsure).to(device)[real]
        objects, quality = assign(locations, boxes, scores, truth, ids, self.config.candidates)
        positive = (objects >= 0).nonzero().squeeze(1)
        owner = objects[positive]

        wanted = torch.zeros_like(scores)
        wanted[positive, ids[owner]] = quality[positive]
        known = torch.from_numpy(labels.known).to(device)
        ignored = _inside_any(locations, all_boxes[~real])
        counted = (known & ~ignored.unsqueeze(1)).clone()
        counted[positive] = known & ~unsure[owner]
        counted[positive, ids[owner]] = True
        return _Targets(wanted, counted, truth[owner], quality[positive], positive)


def _inside_any(locations: Tensor, boxes: Tensor) -> Tensor:
    """Return whether each location ``[K, 2]`` is inside one of ``boxes`` ``[M, 4]``."""
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    return ((locations >= low) & (locations <= high)).all(2).any(0)


def _paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """Compute the IoU of each pair of rows of two ``[P, 4]``."""
    low, high = torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])
    common = (high - low).clamp(min=0).prod(1)
    areas = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1)
    return common / (areas - common).clamp(min=1e-9)
