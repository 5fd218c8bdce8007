"""The network that a recipe describes."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from perception.classics.flatten import Flatten
from perception.classics.localiser import Localiser
from perception.classics.recipe_localisation import LocalisationConfig
from perception.errors import ModelError
from perception.networks.backbone import build_backbone
from perception.networks.classifier import Classifier, build_classifier
from perception.networks.detector import DetectionHead
from perception.networks.fcn import FCN, FINEST
from perception.networks.lite import EfficientNetLite, stages_up_to
from perception.networks.segmenter import StreetNetwork
from perception.training.recipes.classification import ClassificationConfig
from perception.training.recipes.dense import AnyConfig, TrainConfig, parse_config
from perception.training.run.checkpoint import load_checkpoint, load_weights
from perception.training.weights.onnx_import import load_model_file, measure_norms
from perception.training.weights.prune import is_narrower, slim
from perception.weights.library import find_model

log = logging.getLogger(__name__)


def build_network(config: AnyConfig) -> StreetNetwork | FCN | Classifier | Localiser:
    """The recipe's network, nothing of it trained yet.

    Raises:
        UsageError: It cannot take pictures of the recipe's size.
    """
    if isinstance(config, ClassificationConfig):
        return build_for_classes(config)
    if isinstance(config, LocalisationConfig):
        return build_localiser(config)
    return build_street(config)


def build_street(config: TrainConfig) -> StreetNetwork | FCN:
    """Backbone and decoder for masks and, if the recipe has a detection part, boxes."""
    network, detection = config.network, config.detection
    classes = len(config.data.classes)
    backbone = build_backbone(network.backbone, network.hidden)
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


def build_for_classes(config: ClassificationConfig, pretrained: bool = False) -> Classifier:
    """A classifier with a head for the recipe's classes.

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


def build_localiser(config: LocalisationConfig, pretrained: bool = False) -> Localiser:
    """Backbone and heads for a picture, or for a window."""
    network, windows = config.network, config.windows
    backbone = EfficientNetLite(stages_up_to(network.stride))
    if pretrained:
        backbone.load_imagenet()
    size = config.data.size if windows is None else (windows.side, windows.side)
    background = windows is not None and windows.background != "confidence"
    return Localiser(
        backbone,
        len(config.data.classes),
        size,
        network.stride,
        network.maps,
        network.hidden,
        network.dropout,
        background=background,
        confidence=windows is not None and windows.background != "class",
    )


def frozen_parts(backbone: nn.Module, stride: int) -> list[nn.Module]:
    """The layers of ``backbone`` up to ``stride``; their parameters no longer ask for gradients."""
    if not stride:
        return []
    assert isinstance(backbone, EfficientNetLite)
    parts = backbone.parts_up_to(stride)
    for part in parts:
        part.requires_grad_(False)
    return parts


def start_from(network: nn.Module, start: Path, batches: Callable[[], Iterable[Tensor]]) -> list[str]:
    """Take the weights of a model or a checkpoint wherever name and shape agree; the rest stays as it is.

    Args:
        network: of the recipe.
        start: an ``.onnx`` of ours or the name of a shipped model (`perception.training.weights.onnx_import`); else a
            checkpoint, of which the averaged weights are taken. Where its network is this one with more channels inside
            the blocks, those that matter least are left out, see `perception.training.weights.prune`.
        batches: gives pictures to measure the statistics of a model's batch norms on: float ``[N, 3, H, W]``,
            normalised.

    Returns:
        Names of the network's weights that are not in it.

    Raises:
        ModelError: It cannot be read, or nothing in it fits.
    """
    if start.suffix == ".onnx" or not (start.suffix or start.exists()):
        missing = load_model_file(network, find_model(str(start)), next(iter(batches()))[:1]).missing
        measure_norms(network, batches())
        return missing
    checkpoint = load_checkpoint(start)
    weights = checkpoint["average"]
    if is_narrower(network, weights):
        log.info("slimming %s: finding the channels that matter least, which takes minutes", start)
        wide = build_network(parse_config(checkpoint["config"], start))
        load_weights(wide, weights, start)
        slim(wide.to(next(network.parameters()).device), network, batches())
        measure_norms(network, batches())
        log.info("slimmed from %s", start)
        return []
    ours = network.state_dict()
    fitting = {k: v for k, v in weights.items() if k in ours and ours[k].shape == v.shape}
    if not fitting:
        raise ModelError("no tensor of this checkpoint fits the network", start)
    network.load_state_dict({k: v.to(ours[k].dtype) for k, v in fitting.items()}, strict=False)
    missing = sorted(ours.keys() - fitting.keys())
    new = sorted({name.split(".")[0] for name in missing})
    log.info(
        "%d of %d tensors come from %s%s", len(fitting), len(ours), start, f"; new: {', '.join(new)}" if new else ""
    )
    return missing
