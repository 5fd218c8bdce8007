"""A small convolutional network for CIFAR, as tutorials build it: three blocks of two convolutions, dropout between."""

from __future__ import annotations

from torch import nn

from perception.networks.flatten import Flatten

WIDTHS = (32, 64, 128)


class ThreeBlocks(nn.Sequential):
    """Three times: two 3x3 convolutions with ReLU, 2x2 max pooling, dropout; then a dense layer of 128.

    Takes float ``[N, 3, 32, 32]``, gives logits ``[N, classes]``. 550 570 parameters with ten classes.

    Args:
        classes: number of classes.
        dropout: after the last block; a little less after the earlier ones, whose maps are fewer.
    """

    input_shape = (3, 32, 32)

    def __init__(self, classes: int = 10, dropout: float = 0.4) -> None:
        blocks: list[nn.Module] = []
        channels = 3
        for number, width in enumerate(WIDTHS):
            blocks.append(
                nn.Sequential(
                    nn.Conv2d(channels, width, 3, padding=1),
                    nn.ReLU(),
                    nn.Conv2d(width, width, 3, padding=1),
                    nn.ReLU(),
                    nn.MaxPool2d(2),
                    nn.Dropout(dropout * (2 + number) / 4),
                )
            )
            channels = width
        flatten = Flatten(channels, 4, 4)
        dense = (nn.Linear(flatten.features, 128), nn.ReLU(), nn.Dropout(dropout), nn.Linear(128, classes))
        super().__init__(*blocks, flatten, *dense)
