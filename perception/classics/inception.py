"""Inception modules and GoogLeNet (Szegedy et al., "Going Deeper with Convolutions", 2015)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Of each module: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection. None: a max pooling of stride 2.
GOOGLENET: tuple[tuple[int, int, int, int, int, int] | None, ...] = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    None,
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    None,
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)


def _convolution(in_channels: int, out_channels: int, kernel: int, norm: bool, stride: int = 1) -> nn.Sequential:
    """Return a convolution that keeps the size (divided by its stride), with ReLU."""
    layers: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=not norm)]
    if norm:
        layers.append(nn.BatchNorm2d(out_channels))
    layers.append(nn.ReLU())
    nn.init.kaiming_normal_(layers[0].weight, nonlinearity="relu")  # type: ignore[arg-type]
    return nn.Sequential(*layers)


class Inception(nn.Module):
    """Four looks at the same maps, side by side: 1x1, 3x3, 5x5 and a pooling, each made thin by a 1x1 before or after.

    Args:
        in_channels: maps that come in.
        widths: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
        batch_norm: whether every convolution has a batch normalisation behind it (and no bias).
    """

    def __init__(self, in_channels: int, widths: Sequence[int], batch_norm: bool = False) -> None:
        super().__init__()
        one, thin3, three, thin5, five, pooled = widths
        self.out_channels = one + three + five + pooled
        self.one = _convolution(in_channels, one, 1, batch_norm)
        self.three = nn.Sequential(
            _convolution(in_channels, thin3, 1, batch_norm), _convolution(thin3, three, 3, batch_norm)
        )
        self.five = nn.Sequential(
            _convolution(in_channels, thin5, 1, batch_norm), _convolution(thin5, five, 5, batch_norm)
        )
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), _convolution(in_channels, pooled, 1, batch_norm))

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in_channels, H, W]`` to ``[N, out_channels, H, W]``."""
        return torch.cat((self.one(x), self.three(x), self.five(x), self.pool(x)), 1)


class GoogLeNet(nn.Sequential):
    """Nine Inception modules. 6 998 552 parameters with 1000 classes and without batch normalisation.

    As in the paper, but without the two auxiliary classifiers, which only training saw. With ``batch_norm`` (Ioffe and
    Szegedy 2015) it trains without them; the local response normalisations are then left out.

    Takes float ``[N, 3, H, W]`` of any size from 32 (made for 224), gives logits ``[N, classes]``.
    """

    input_shape = (3, 224, 224)

    def __init__(self, classes: int = 1000, batch_norm: bool = False, dropout: float = 0.4) -> None:
        def respond() -> list[nn.Module]:
            return [] if batch_norm else [nn.LocalResponseNorm(5)]

        layers: list[nn.Module] = [
            _convolution(3, 64, 7, batch_norm, stride=2),
            nn.MaxPool2d(3, 2, 1),
            *respond(),
            _convolution(64, 64, 1, batch_norm),
            _convolution(64, 192, 3, batch_norm),
            *respond(),
            nn.MaxPool2d(3, 2, 1),
        ]
        channels = 192
        for widths in GOOGLENET:
            if widths is None:
                layers.append(nn.MaxPool2d(3, 2, 1))
            else:
                module = Inception(channels, widths, batch_norm)
                channels = module.out_channels
                layers.append(module)
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, classes)]
        super().__init__(*layers)
