"""The network that a recipe describes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from perception.errors import ModelError
from perception.networks.backbone import build_backbone
from perception.networks.detector import DetectionHead
from perception.networks.fcn import FCN, FINEST
from perception.networks.lite import EfficientNetLite
from perception.networks.segmenter import StreetNetwork
from perception.training.checkpoint import load_checkpoint
from perception.training.config import TrainConfig

log = logging.getLogger(__name__)


def build_network(config: TrainConfig) -> StreetNetwork | FCN:
    """The recipe's network, nothing of it trained yet."""
    network, detection = config.network, config.detection
    classes = len(config.data.classes)
    backbone = build_backbone(network.backbone)
    if network.decoder != "fpn":
        return FCN(classes, backbone, FINEST[network.decoder], network.dropout)

    def make_head(channels: Mapping[int, int]) -> DetectionHead:
        assert detection is not None
        return DetectionHead(channels, len(detection.classes), detection.strides, detection.width, detection.depth)

    head = None if detection is None else make_head
    return StreetNetwork(
        classes,
        network.widths,
        network.stem_skip,
        network.dropout,
        head,
        backbone,
        subpixel=network.subpixel,
        separable=network.separable,
    )


def frozen_parts(network: StreetNetwork | FCN, config: TrainConfig) -> list[nn.Module]:
    """The parts of ``network`` that the recipe leaves as they are; their parameters no longer ask for gradients."""
    stride, backbone = config.network.frozen_stride, network.backbone
    if not stride:
        return []
    assert isinstance(backbone, EfficientNetLite)
    parts = backbone.parts_up_to(stride)
    for part in parts:
        part.requires_grad_(False)
    return parts


def start_from(network: nn.Module, path: Path) -> None:
    """Take the averaged weights of the checkpoint ``path`` wherever name and shape agree; the rest stays as it is.

    Raises:
        ModelError: The checkpoint cannot be read, or nothing in it fits.
    """
    weights = load_checkpoint(path)["average"]
    ours = network.state_dict()
    fitting = {k: v for k, v in weights.items() if k in ours and ours[k].shape == v.shape}
    if not fitting:
        raise ModelError("no tensor of this checkpoint fits the network", path)
    network.load_state_dict({k: v.to(ours[k].dtype) for k, v in fitting.items()}, strict=False)
    new = sorted({k.split(".")[0] for k in ours.keys() - fitting.keys()})
    log.info(
        "%d of %d tensors come from %s%s", len(fitting), len(ours), path, f"; new: {', '.join(new)}" if new else ""
    )
