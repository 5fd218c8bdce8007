"""Xception (Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", 2017)."""

from __future__ import annotations

from torch import Tensor, nn

from perception.networks.depthwise import DepthwiseConv2d


class SeparableConv(nn.Sequential):
    """A 3x3 depthwise convolution, then a 1x1 one that mixes the channels: an ordinary one at a ninth of the price.

    Args:
        in_channels, out_channels: maps before and after.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(DepthwiseConv2d(in_channels, 3), nn.Conv2d(in_channels, out_channels, 1, bias=False))


class XceptionBlock(nn.Module):
    """Separable convolutions with a way around them.

    Args:
        in_channels: maps that come in.
        widths: maps after each separable convolution.
        stride: 2 puts a max pooling behind them.
        relu_first: whether an activation comes before the first of them, too.
    """

    def __init__(self, in_channels: int, widths: tuple[int, ...], stride: int = 1, relu_first: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for number, width in enumerate(widths):
            if number or relu_first:
                layers.append(nn.ReLU())
            layers += [SeparableConv(channels, width), nn.BatchNorm2d(width)]
            channels = width
        if stride == 2:
            layers.append(nn.MaxPool2d(3, 2, 1))
        self.main = nn.Sequential(*layers)
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or in_channels != channels:
            self.skip = nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in_channels, H, W]`` to ``[N, widths[-1], ceil(H / stride), ceil(W / stride)]``."""
        y: Tensor = self.main(x) + self.skip(x)
        return y


class Xception(nn.Sequential):
    """Entry flow, eight middle blocks, exit flow. 22 855 952 parameters with 1000 classes.

    Takes float ``[N, 3, H, W]`` of any size from 64 (made for 299), gives logits ``[N, classes]``.
    """

    input_shape = (3, 299, 299)

    def __init__(self, classes: int = 1000) -> None:
        super().__init__(
            nn.Conv2d(3, 32, 3, 2, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            XceptionBlock(64, (128, 128), 2, relu_first=False),
            XceptionBlock(128, (256, 256), 2),
            XceptionBlock(256, (728, 728), 2),
            *(XceptionBlock(728, (728, 728, 728)) for _ in range(8)),
            XceptionBlock(728, (728, 1024), 2),
            SeparableConv(1024, 1536),
            nn.BatchNorm2d(1536),
            nn.ReLU(),
            SeparableConv(1536, 2048),
            nn.BatchNorm2d(2048),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2048, classes),
        )
