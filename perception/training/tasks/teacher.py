"""The teacher of a network: a trained one that answers beside the labels."""

from __future__ import annotations

import torch
from torch import Tensor

from perception.errors import UsageError
from perception.training.losses.distillation import TEACHER
from perception.training.recipes.read import parse_config
from perception.training.recipes.segmentation_detection import SegmentationDetectionConfig
from perception.training.tasks.networks import build_segmentation_detection
from perception.training.weights.checkpoint import load_checkpoint, load_weights


class Teacher:
    """The averaged network of a checkpoint; it learns nothing.

    Args:
        config: the recipe of the student.

    Raises:
        ModelError: The checkpoint cannot be read.
        UsageError: It has other classes or locations.
    """

    def __init__(self, config: SegmentationDetectionConfig) -> None:
        assert config.distil is not None
        path = config.distil.teacher
        state = load_checkpoint(path)
        own = parse_config(state["config"], path)
        if not isinstance(own, SegmentationDetectionConfig):
            raise UsageError(f"this teacher's task is {own.task}, not {config.task}", path)
        for what, ours in _answers(config).items():
            if (theirs := _answers(own)[what]) != ours:
                raise UsageError(f"the teacher's {what} do not fit: they are {theirs}; the recipe's {ours}", path)
        self._network = build_segmentation_detection(own)
        load_weights(self._network, state["average"], path)
        self._network.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def __call__(self, images: Tensor, with_masks: int) -> dict[str, Tensor]:
        """Return the outputs of the network by ``teacher_`` and their names.

        See `perception.networks.segmentation_detection.SegmentationDetectionNetwork`.
        """
        self._network.to(images.device)
        with torch.no_grad():
            outputs: dict[str, Tensor] = self._network(images, with_masks)
        return {f"{TEACHER}{name}": output for name, output in outputs.items()}


def _answers(config: SegmentationDetectionConfig) -> dict[str, str]:
    """Return what must agree for two networks' outputs to mean the same."""
    boxes = config.detection
    return {
        "classes": ", ".join(config.data.names),
        "classes of boxes": "none" if boxes is None else ", ".join(boxes.names),
        "strides of boxes": "none" if boxes is None else ", ".join(map(str, sorted(boxes.strides))),
        "logits": f"of {config.network.decoder} with subpixel {str(config.network.subpixel).lower()}",
    }
