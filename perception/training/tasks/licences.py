"""Whether the networks that training starts from and learns from may be used as the recipe promises."""

from __future__ import annotations

from pathlib import Path

from perception.card import read_card
from perception.errors import UsageError
from perception.training.recipes.base import RunConfig
from perception.training.recipes.read import parse_config, read_config
from perception.training.recipes.segmentation_detection import SegmentationDetectionConfig
from perception.training.weights.checkpoint import load_checkpoint
from perception.weights.library import find_model

RECIPES = (".yaml", ".yml")


def check_networks(config: RunConfig) -> None:
    """Refuse a recipe with ``model.commercial_use`` that starts from, or learns from, a network without it.

    The sets are checked where the recipe is read, see `perception.training.recipes.base.RunConfig.licences`.

    Raises:
        UsageError: names the network.
        ModelError: the network cannot be read.
    """
    if not config.model.commercial_use:
        return
    networks = {"network.start": config.network.start}
    if isinstance(config, SegmentationDetectionConfig) and config.distil is not None:
        networks["distil.teacher"] = config.distil.teacher
    for where, network in networks.items():
        if network is not None and not _allows_commercial_use(network):
            raise UsageError(
                f"{where}: it is not known that this network may be used commercially (model.commercial_use)", network
            )


def _allows_commercial_use(network: Path) -> bool:
    if network.suffix in RECIPES:
        return read_config(network).model.commercial_use is True
    if network.suffix == ".onnx" or not (network.suffix or network.exists()):
        return read_card(find_model(str(network))).commercial_use is True
    return parse_config(load_checkpoint(network)["config"], network).model.commercial_use is True
