"""What a trained network says of a picture, taught to another one beside the labels (Hinton et al. 2015).

A teacher answers at every pixel and every location, for pictures without labels too: much more than labels say.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

from perception.errors import UsageError
from perception.training.recipes.dense import DistilConfig, TrainConfig, parse_config
from perception.training.run.checkpoint import load_checkpoint, load_weights
from perception.training.tasks.networks import build_network

SURE = 0.1  # least class probability of the teacher at a location whose box is taught
TAUGHT = "taught_"  # before the names of the teacher's outputs


class Teacher:
    """The averaged network of a checkpoint; it learns nothing.

    Args:
        config: the recipe of who is taught.

    Raises:
        ModelError: The checkpoint cannot be read.
        UsageError: It has other classes or locations.
    """

    def __init__(self, config: TrainConfig) -> None:
        assert config.distil is not None
        path = config.distil.teacher
        state = load_checkpoint(path)
        own = parse_config(state["config"], path)
        if not isinstance(own, TrainConfig) or _answers(own) != _answers(config):
            raise UsageError("this teacher has other classes, strides or a head more or less than the recipe", path)
        self._network = build_network(own)
        load_weights(self._network, state["average"], path)
        self._network.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def __call__(self, images: Tensor, with_masks: int) -> dict[str, Tensor]:
        """The network's outputs, see `perception.networks.segmenter.StreetNetwork`, by ``taught_`` and their names."""
        self._network.to(images.device)
        with torch.no_grad():
            outputs: dict[str, Tensor] = self._network(images, with_masks)
        return {f"{TAUGHT}{name}": output for name, output in outputs.items()}


class DistillationLoss(nn.Module):
    """How far a network is from its teacher.

    - Masks: Kullback-Leibler divergence of the class probabilities, mean over the locations.
    - Boxes: quality focal loss (Li et al. 2020) towards the teacher's class probabilities at every location; where it
      is sure of something, generalised IoU with its box, and cross entropy with its confidence. As with labels, these
      are sums over the sum of how sure it is.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        assert config.distil is not None
        self.config: DistilConfig = config.distil
        self.has_masks = config.has_masks
        self.parts = config.detection.loss if config.detection is not None and config.has_boxes else None

    def forward(self, outputs: Mapping[str, Tensor], with_masks: Tensor | None = None) -> Tensor:
        """Weighted sum for a batch.

        Args:
            outputs: of the network, and with ``taught_`` before their names those of the teacher.
            with_masks: bool ``[M]``: the pictures whose masks are learnt from the teacher; None for all.
        """
        total: Tensor | float = 0.0
        if self.has_masks:
            ours, theirs = outputs["class_logits"], outputs[f"{TAUGHT}class_logits"]
            if with_masks is not None:
                chosen = with_masks.to(ours.device)
                ours, theirs = ours[chosen], theirs[chosen]
            total = self.config.masks * _masks(ours, theirs)
        if self.parts is None:
            return torch.as_tensor(total)
        taught = outputs[f"{TAUGHT}box_class_logits"].float().sigmoid()
        logits = outputs["box_class_logits"].float()
        sure = taught.amax(2)  # [N, K]
        how_sure = sure.sum().clamp(min=1.0)
        focus = (logits.sigmoid() - taught).abs().pow(self.parts.focus)
        entropy = F.binary_cross_entropy_with_logits(logits, taught, reduction="none")
        boxes = self.parts.class_weight * (focus * entropy).sum() / how_sure

        chosen = sure >= SURE
        weight = sure[chosen]
        giou = generalized_box_iou_loss(outputs["boxes"].float()[chosen], outputs[f"{TAUGHT}boxes"].float()[chosen])
        boxes = boxes + self.parts.box_weight * (giou * weight).sum() / how_sure
        confidence = outputs["box_confidence_logits"].float()[chosen]
        wanted = outputs[f"{TAUGHT}box_confidence_logits"].float()[chosen].sigmoid()
        entropy = F.binary_cross_entropy_with_logits(confidence, wanted, reduction="none")
        boxes = boxes + self.parts.confidence_weight * (entropy * weight).sum() / how_sure
        return total + self.config.boxes * boxes


def _masks(logits: Tensor, taught: Tensor) -> Tensor:
    """Both ``[M, C, h, w]``."""
    ours, theirs = logits.float().log_softmax(1), taught.float().log_softmax(1)
    divergence: Tensor = (theirs.exp() * (theirs - ours)).sum(1)
    return divergence.sum() / max(divergence.numel(), 1)


def _answers(config: TrainConfig) -> tuple[object, ...]:
    """What must be the same for two networks' outputs to mean the same."""
    masks = ([c.name for c in config.data.classes], config.network.subpixel, config.network.decoder)
    return (*masks, config.detection and (config.detection.names, sorted(config.detection.strides)))
