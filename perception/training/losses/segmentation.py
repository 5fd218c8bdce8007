"""Segmentation losses on full-size logits."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from perception.training.recipes.segmentation_detection import LossConfig

LOVASZ_STEP = 4
UNKNOWN_LOGIT = -1e4  # finite: nothing times it is not a number


def class_weights(pixels: NDArray[np.int64] | NDArray[np.float64], offset: float | None) -> Tensor:
    """Weights ``1 / ln(offset + frequency)``, scaled so that the mean over pixels is 1.

    Args:
        pixels: ``[C]``, pixels of each class.
        offset: above 1; None gives equal weights.

    Returns:
        float32 ``[C]``.
    """
    frequency = pixels / max(float(pixels.sum()), 1.0)
    if offset is None:
        return torch.ones(len(pixels))
    weights = 1 / np.log(offset + frequency)
    mean = float((weights * frequency).sum()) or 1.0
    return torch.from_numpy((weights / mean).astype(np.float32))


def hard_mean(losses: Tensor, share: float) -> Tensor:
    """Mean of the largest ``share`` of ``losses`` (online hard example mining).

    Args:
        losses: float ``[K]``, one per counted pixel.
        share: in (0, 1]; at least one pixel is kept.
    """
    if share >= 1 or losses.numel() == 0:
        return losses.sum() / max(losses.numel(), 1)
    return losses.topk(max(int(losses.numel() * share), 1)).values.mean()


def lovasz_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """Convex surrogate of one minus the mean IoU of the classes present (Berman et al. 2018).

    Args:
        logits: float ``[K, C]``.
        labels: int64 ``[K]`` class ids, without ignored pixels.

    Returns:
        float scalar; 0 if there are no pixels.
    """
    probabilities = logits.softmax(1)
    terms = []
    for class_id in labels.unique().tolist():
        truth = (labels == class_id).float()
        error = (truth - probabilities[:, class_id]).abs()
        error, order = error.sort(descending=True)
        truth = truth[order]
        intersection = truth.sum() - truth.cumsum(0)
        union = truth.sum() + (1 - truth).cumsum(0)
        jaccard = 1 - intersection / union
        gradient = torch.cat((jaccard[:1], jaccard[1:] - jaccard[:-1]))
        terms.append((error * gradient).sum())
    return torch.stack(terms).mean() if terms else logits.sum() * 0.0


class SegmentationLoss(nn.Module):
    """Weighted cross entropy (hardest pixels only, if asked) plus Lovász-softmax.

    Args:
        config: which terms, how strong.
        weights: float32 ``[C]`` class weights.
        ignore: label id that counts for nothing.
    """

    weights: Tensor

    def __init__(self, config: LossConfig, weights: Tensor, ignore: int) -> None:
        super().__init__()
        self.config = config
        self.ignore = ignore
        self.register_buffer("weights", weights)

    def forward(
        self, logits: Tensor, labels: Tensor, known: Tensor | None = None, weights: Tensor | None = None
    ) -> Tensor:
        """Compute the loss of a batch.

        Args:
            logits: ``[N, C, h, w]`` at the network's stride; upsampled here with half-pixel centres.
            labels: int64 ``[N, H, W]``.
            known: bool ``[N, C]``: the classes that a picture's labels decide between: probabilities are taken among
                these alone, so that the others learn nothing there. None for all.
            weights: float ``[N]`` of each picture's pixels; None weighs all alike.
        """
        size = (labels.shape[-2], labels.shape[-1])
        logits = logits.float()
        if known is not None:
            logits = logits.masked_fill(~known[:, :, None, None], UNKNOWN_LOGIT)
        logits = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
        losses = F.cross_entropy(logits, labels, self.weights, ignore_index=self.ignore, reduction="none")
        if weights is not None:
            losses = losses * weights[:, None, None]
        counted = labels != self.ignore
        if self.config.ohem < 1:
            total = hard_mean(losses[counted], self.config.ohem)
        else:  # ignored pixels are 0 already
            total = losses.sum() / counted.sum().clamp(min=1)
        if self.config.lovasz:
            # Sorting every pixel would cost more than the network; a grid with a random phase is as unbiased.
            row, column = torch.randint(LOVASZ_STEP, (2,)).tolist()
            grid = (..., slice(row, None, LOVASZ_STEP), slice(column, None, LOVASZ_STEP))
            some_labels = labels[grid].reshape(-1)
            some_logits = logits[grid].permute(0, 2, 3, 1).reshape(-1, logits.shape[1])
            keep = some_labels != self.ignore
            total = total + self.config.lovasz * lovasz_softmax(some_logits[keep], some_labels[keep])
        return total
