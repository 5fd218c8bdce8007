"""The network that a recipe describes."""

from __future__ import annotations

from perception.networks.segmenter import StreetNetwork
from perception.training.config import TrainConfig


def build_network(config: TrainConfig) -> StreetNetwork:
    """The recipe's network, nothing of it trained yet."""
    network = config.network
    return StreetNetwork(len(config.data.classes), network.widths, network.stem_skip, network.dropout)
