"""The networks of the recipes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import cast

import torch
from torch import nn

from perception.networks.backbone import build_backbone
from perception.networks.classifier import Classifier, build_classifier
from perception.networks.detector import DetectionHead
from perception.networks.fcn import FCN, FINEST
from perception.networks.flatten import Flatten
from perception.networks.lite import EfficientNetLite
from perception.networks.segmentation_detection import SegmentationDetectionNetwork
from perception.training.recipes.classification import ClassificationConfig
from perception.training.recipes.segmentation_detection import SegmentationDetectionConfig


def build_segmentation_detection(config: SegmentationDetectionConfig) -> SegmentationDetectionNetwork | FCN:
    """Build backbone and decoder for masks and, if the recipe has a detection part, boxes."""
    network, detection = config.network, config.detection
    classes = len(config.data.classes)
    backbone = build_backbone(network.backbone, network.hidden)
    if network.decoder != "fpn":
        return FCN(classes, backbone, FINEST[network.decoder], network.dropout)

    def make_head(channels: Mapping[int, int]) -> DetectionHead:
        assert detection is not None
        return DetectionHead(channels, len(detection.classes), detection.strides, detection.width, detection.depth)

    head = None if detection is None else make_head
    return SegmentationDetectionNetwork(
        classes,
        network.widths,
        network.stem_skip,
        network.dropout,
        head,
        backbone,
        subpixel=network.subpixel,
        separable=network.separable,
    )


def build_for_classes(config: ClassificationConfig, pretrained: bool = False) -> Classifier:
    """Build a classifier with a head for the recipe's classes.

    Args:
        config: the recipe.
        pretrained: with the ImageNet weights that the recipe may want.

    Raises:
        UsageError: It is unknown or cannot take pictures of the recipe's size.
        ModelError: Weights are wanted and not to be had.
    """
    network = build_classifier(config.network.classifier, len(config.data.classes), "imagenet" if pretrained else None)
    channels, *made_for = cast("tuple[int, int, int]", network.input_shape)
    width, height = config.data.size
    fixed = any(isinstance(module, Flatten) for module in network.modules())
    crop = tuple(made_for) if fixed and min(height - made_for[0], width - made_for[1]) >= 0 else (height, width)
    with torch.inference_mode():  # a size that does not fit is told before any work
        copy.deepcopy(network).eval()(torch.zeros(1, channels, *crop))
    return Classifier(network, channels, (crop[0], crop[1]))


def frozen_parts(backbone: nn.Module, stride: int) -> list[nn.Module]:
    """Freeze the layers of ``backbone`` up to ``stride``, and return them."""
    if not stride:
        return []
    assert isinstance(backbone, EfficientNetLite)
    parts = backbone.parts_up_to(stride)
    for part in parts:
        part.requires_grad_(False)
    return parts
