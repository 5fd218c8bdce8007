"""AlexNet for small images (Krizhevsky et al., "ImageNet Classification with Deep CNNs", 2012)."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from perception.networks.flatten import Flatten

MAPS = (16, 32, 64, 128, 256)
POOLED = (1, 2, 5)  # convolutions with a pooling behind them, as in AlexNet
DENSE = (2048, 1024)


class MiniAlexNet(nn.Sequential):
    """Five 3x3 convolutions of 16-32-64-128-256 maps, then 4096-2048-1024-classes; ReLU, overlapping max pooling.

    The 4096 are the 256 maps of 4x4, which images of 32x32 and of 28x28 both end in. The versions are steps on the way
    up: V1 is plain, V2 has dropout, V3 is V2 on random 28x28 crops, V4 is V3 with batch normalisation before every
    layer but the first.

    Takes float ``[N, 3, size, size]``, gives logits ``[N, classes]``.

    Args:
        classes: number of classes.
        size: side of the images: 25 to 32 pixels.
        dropout: before each dense layer.
        batch_norm: whether there are batch normalisations.
    """

    def __init__(self, classes: int = 10, size: int = 32, dropout: float = 0.0, batch_norm: bool = False) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = 3
        for number, maps in enumerate(MAPS, 1):
            if batch_norm and number > 1:
                layers[f"norm{number}"] = nn.BatchNorm2d(channels)
            layers[f"conv{number}"] = nn.Conv2d(channels, maps, 3, padding=1)
            layers[f"relu{number}"] = nn.ReLU()
            if number in POOLED:
                layers[f"pool{number}"] = nn.MaxPool2d(3, 2, 1)
            channels = maps
        if batch_norm:
            layers["norm6"] = nn.BatchNorm2d(
                channels
            )  # of maps: before they are flattened, so that it stays one per map
        flatten = Flatten(channels, 4, 4)
        layers["flatten"] = flatten
        width = flatten.features
        for number, outputs in enumerate((*DENSE, classes), 6):
            if batch_norm and number > 6:
                layers[f"norm{number}"] = nn.BatchNorm1d(width)
            if dropout:
                layers[f"dropout{number}"] = nn.Dropout(dropout)
            layers[f"dense{number}"] = nn.Linear(width, outputs)
            if number < 8:
                layers[f"relu{number}"] = nn.ReLU()
            width = outputs
        super().__init__(layers)
        self.input_shape = (3, size, size)


class MiniAlexNetV1(MiniAlexNet):
    """`MiniAlexNet`, plain, for 32x32."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__(classes)


class MiniAlexNetV2(MiniAlexNet):
    """`MiniAlexNet` with dropout, for 32x32."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__(classes, dropout=0.5)


class MiniAlexNetV3(MiniAlexNet):
    """`MiniAlexNet` with dropout, for 28x28 crops."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__(classes, size=28, dropout=0.5)


class MiniAlexNetV4(MiniAlexNet):
    """`MiniAlexNet` with dropout and batch normalisation, for 28x28 crops."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__(classes, size=28, dropout=0.5, batch_norm=True)
