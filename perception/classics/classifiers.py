"""The classic classifiers by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from perception.classics.alexnet import MiniAlexNetV1, MiniAlexNetV2, MiniAlexNetV3, MiniAlexNetV4
from perception.classics.inception import GoogLeNet
from perception.classics.lenet import LeNet5, LeNet5V2, LeNetColor
from perception.classics.residual import ResNet34
from perception.classics.three_blocks import ThreeBlocks
from perception.classics.xception import Xception

CLASSICS: dict[str, Callable[..., nn.Module]] = {
    "lenet5": LeNet5,
    "lenet5_v2": LeNet5V2,
    "lenet_color": LeNetColor,
    "mini_alexnet_v1": MiniAlexNetV1,
    "mini_alexnet_v2": MiniAlexNetV2,
    "mini_alexnet_v3": MiniAlexNetV3,
    "mini_alexnet_v4": MiniAlexNetV4,
    "three_blocks": ThreeBlocks,
    "resnet34": ResNet34,
    "googlenet": GoogLeNet,
    "xception": Xception,
}
