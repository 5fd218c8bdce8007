"""Backbones by name."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from perception.networks.lite import EfficientNetLite
from perception.networks.zoo import TorchvisionBackbone

Backbone: TypeAlias = EfficientNetLite | TorchvisionBackbone

BackboneName = Literal[
    "efficientnet_lite0", "mobilenet_v3_large", "mobilenet_v3_small", "resnet18", "resnet34", "resnet50"
]


def build_backbone(name: BackboneName) -> Backbone:
    """The backbone called ``name``, untrained: ``channels`` by stride, features at strides 2 to 32.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in get_args(BackboneName):
        raise ValueError(f"no backbone {name!r}; there are {', '.join(get_args(BackboneName))}")
    return EfficientNetLite() if name == "efficientnet_lite0" else TorchvisionBackbone(name)
