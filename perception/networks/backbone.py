"""Backbones by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

from perception.networks.lite import EfficientNetLite
from perception.networks.torchvision_backbone import TorchvisionBackbone

Backbone: TypeAlias = EfficientNetLite | TorchvisionBackbone

BackboneName = Literal[
    "efficientnet_lite0", "mobilenet_v3_large", "mobilenet_v3_small", "resnet18", "resnet34", "resnet50"
]


def build_backbone(name: BackboneName, hidden: Sequence[int] | None = None) -> Backbone:
    """Build the backbone called ``name``, untrained: ``channels`` by stride, features at strides 2 to 32.

    Args:
        name: of the backbone.
        hidden: channels inside each block, see `EfficientNetLite`, which alone can have other ones.

    Raises:
        ValueError: there is none of that name, or ``hidden`` does not fit it.
    """
    if name not in get_args(BackboneName):
        raise ValueError(f"no backbone {name!r}; there are {', '.join(get_args(BackboneName))}")
    if name == "efficientnet_lite0":
        return EfficientNetLite(hidden=hidden)
    if hidden is not None:
        raise ValueError(f"hidden is for efficientnet_lite0, not {name}")
    return TorchvisionBackbone(name)
