"""Feature pyramid decoder: from backbone features to one map per stride, coarse context flowing down."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.networks.lite import conv_bn


def upsample_onto(x: Tensor, like: Tensor) -> Tensor:
    """Double ``x`` bilinearly (half-pixel centres) and cut it to the size of ``like``.

    An odd size ``n`` becomes ``(n + 1) / 2`` on the way down. Stretching that back to ``n`` would shift
    features by up to half a cell, differently at each image size; doubling and cutting keeps every cell where
    it was in training, whatever the size.
    """
    x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
    height, width = like.shape[-2:]
    return x[..., :height, :width]


class ContextBlock(nn.Module):
    """Parallel views of the coarsest map, summed: a point, two dilated neighbourhoods, the whole image.

    At stride 32 this costs next to nothing and sees the whole frame.
    """

    def __init__(self, in_channels: int, out_channels: int, dilations: tuple[int, ...] = (1, 3)) -> None:
        super().__init__()
        self.reduce = conv_bn(in_channels, out_channels, 1)
        self.views = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(out_channels, out_channels, 3, padding=d, dilation=d, bias=False),
                nn.BatchNorm2d(out_channels),
            )
            for d in dilations
        )
        self.whole = nn.Conv2d(out_channels, out_channels, 1)
        self.activation = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in, h, w]`` to ``[N, out, h, w]``."""
        x = self.reduce(x)
        total = x + self.whole(x.mean((2, 3), keepdim=True))
        for view in self.views:
            total = total + view(x)
        y: Tensor = self.activation(total)
        return y


def _separable(width: int) -> nn.Sequential:
    block = (conv_bn(width, width, 3, depthwise=True, eps=1e-5), conv_bn(width, width, 1, eps=1e-5))
    return nn.Sequential(*block, *copy.deepcopy(block))


class FeaturePyramid(nn.Module):
    """Top-down pyramid over strides 4 to 32 with its own width at each stride.

    Each level: 1x1 lateral of the backbone's map, plus the coarser level (made narrow *before* it is
    upsampled, where it is small), then one 3x3 convolution. The finest level also takes the stride-2 map,
    folded 2x2 into channels: thin things (poles, signs) are still separate there.

    Args:
        in_channels: Backbone channels by stride; must hold 4, 8, 16 and 32, and 2 if ``stem_skip``.
        widths: Channels of the result by stride.
        stem_skip: Add the stride-2 features to the finest level.
        separable: Each 3x3 convolution becomes two depthwise-separable ones (Howard et al. 2017): a quarter of the
            multiplications.
    """

    def __init__(
        self,
        in_channels: Mapping[int, int],
        widths: Mapping[int, int],
        stem_skip: bool = True,
        separable: bool = False,
    ) -> None:
        super().__init__()
        self.strides = tuple(sorted(widths, reverse=True))
        self.channels = dict(widths)
        top = self.strides[0]
        self.context = ContextBlock(in_channels[top], widths[top])
        self.lateral = nn.ModuleDict()
        self.narrow = nn.ModuleDict()
        self.smooth = nn.ModuleDict()
        for coarse, fine in pairwise(self.strides):
            width = widths[fine]
            key = str(fine)
            self.lateral[key] = conv_bn(in_channels[fine], width, 1, activation=False, eps=1e-5)
            self.narrow[key] = conv_bn(widths[coarse], width, 1, activation=False, eps=1e-5)
            self.smooth[key] = _separable(width) if separable else conv_bn(width, width, 3, eps=1e-5)
        self.stem_skip: nn.Module | None = None
        if stem_skip:
            finest = self.strides[-1]
            if finest != 4:
                raise ValueError("stem_skip folds stride 2 onto stride 4: the finest pyramid level must be 4")
            # A 2x2 convolution of stride 2 is "fold 2x2 into channels, then 1x1".
            self.stem_skip = nn.Sequential(
                nn.Conv2d(in_channels[2], widths[4], 2, stride=2, bias=False), nn.BatchNorm2d(widths[4])
            )

    def forward(self, features: Mapping[int, Tensor], finest_of: int | None = None) -> dict[int, Tensor]:
        """Pyramid maps by stride: ``{stride: [N, widths[stride], h / stride, w / stride]}``.

        Args:
            features: the backbone's maps by stride.
            finest_of: make the finest level, the dearest, for that many of the images only, from the first;
                0 leaves it out. None for all.
        """
        x = self.context(features[self.strides[0]])
        pyramid = {self.strides[0]: x}
        for fine in self.strides[1:]:
            key = str(fine)
            if fine == self.strides[-1] and finest_of is not None:
                if finest_of == 0:
                    break
                x = x[:finest_of]
                features = {stride: f[:finest_of] for stride, f in features.items()}
            skip = self.lateral[key](features[fine])
            if fine == 4 and self.stem_skip is not None:
                skip = skip + self._fold_stem(features[2], skip)
            x = F.relu6(skip + upsample_onto(self.narrow[key](x), skip))
            x = self.smooth[key](x)
            pyramid[fine] = x
        return pyramid

    def finest_parts(self) -> list[nn.Module]:
        """Return the layers that make the finest level, and no other."""
        key = str(self.strides[-1])
        parts = [self.lateral[key], self.narrow[key], self.smooth[key]]
        return parts if self.stem_skip is None else [*parts, self.stem_skip]

    def _fold_stem(self, stem: Tensor, like: Tensor) -> Tensor:
        height, width = like.shape[-2:]
        if stem.shape[-2] % 2 or stem.shape[-1] % 2:  # an odd edge needs one more row or column to fold
            stem = F.pad(stem, (0, 2 * width - stem.shape[-1], 0, 2 * height - stem.shape[-2]))
        assert self.stem_skip is not None
        folded: Tensor = self.stem_skip(stem)
        return folded


def _init(module: nn.Module) -> None:
    """He initialisation for new convolutions."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
            if m.bias is not None:
                nn.init.zeros_(m.bias)


initialise = torch.no_grad()(_init)
