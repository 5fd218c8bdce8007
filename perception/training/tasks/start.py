"""Starting a network from the weights of another one: a checkpoint, a wider network, or a model file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from torch import Tensor, nn

from perception.errors import ModelError
from perception.training.recipes.read import parse_config
from perception.training.recipes.segmentation_detection import SegmentationDetectionConfig
from perception.training.tasks.kinds import build_network
from perception.training.tasks.networks import build_segmentation_detection
from perception.training.weights.checkpoint import load_checkpoint, load_weights
from perception.training.weights.onnx_import import load_onnx_weights, measure_norms
from perception.training.weights.prune import is_narrower, prune
from perception.weights.library import find_model

log = logging.getLogger(__name__)


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
        missing = load_onnx_weights(network, find_model(str(start)), next(iter(batches()))[:1]).missing
        measure_norms(network, batches())
        return missing
    checkpoint = load_checkpoint(start)
    weights = checkpoint["average"]
    if is_narrower(network, weights):
        log.info("pruning %s: looking for the least important channels; this takes minutes", start)
        wide = build_network(parse_config(checkpoint["config"], start))
        load_weights(wide, weights, start)
        prune(wide.to(next(network.parameters()).device), network, batches())
        measure_norms(network, batches())
        log.info("pruned from %s", start)
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


def start_from_imagenet(
    network: nn.Module, config: SegmentationDetectionConfig, batches: Callable[[], Iterable[Tensor]]
) -> None:
    """Give a pruned backbone ImageNet's weights: those of the channels that matter most on the recipe's pictures.

    Args:
        network: of the recipe, whose ``network.hidden`` says how many channels each block keeps.
        config: the recipe.
        batches: gives pictures: float ``[N, 3, H, W]``, normalised.
    """
    log.info("pruning ImageNet's backbone: looking for the least important channels; this takes minutes")
    wide = build_segmentation_detection(
        config.model_copy(update={"network": config.network.model_copy(update={"hidden": None})})
    )
    wide.backbone.load_imagenet()
    prune(wide.to(next(network.parameters()).device), network, batches())
    measure_norms(network, batches())
