"""Residual networks (He et al., "Deep Residual Learning for Image Recognition", 2016)."""

from __future__ import annotations

from torch import Tensor, nn

RESNET34 = ((64, 3), (128, 4), (256, 6), (512, 3))


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions, added to what came in; where they halve the size, what came in passes a 1x1 convolution.

    Args:
        in_channels, out_channels: maps before and after.
        stride: of the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.relu = nn.ReLU()  # a module, so that it can be hooked into: see perception.explain
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            self.skip = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in, H, W]`` to ``[N, out, ceil(H / stride), ceil(W / stride)]``."""
        y: Tensor = self.relu(self.main(x) + self.skip(x))
        return y


class ResNet34(nn.Sequential):
    """16 residual units after a 7x7 convolution. 21 797 672 parameters with 1000 classes.

    Takes float ``[N, 3, H, W]`` of any size from 32 (made for 224), gives logits ``[N, classes]``.
    """

    input_shape = (3, 224, 224)

    def __init__(self, classes: int = 1000) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        ]
        channels = 64
        for stage, (width, units) in enumerate(RESNET34):
            for unit in range(units):
                layers.append(ResidualUnit(channels, width, 2 if stage and not unit else 1))
                channels = width
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
        super().__init__(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
