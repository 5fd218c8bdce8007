"""Fully convolutional networks for segmentation: FCN-32s, FCN-16s and FCN-8s (Long et al. 2015)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.networks.backbone import Backbone

FINEST = {"fcn32s": 32, "fcn16s": 16, "fcn8s": 8}

STRIDE = 8
"""Of the logits that leave the network, whatever its finest skip."""


class DoublingConv(nn.ConvTranspose2d):
    """Transposed convolution of stride 2, learnt, that starts as bilinear interpolation of each class map."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 4, stride=2, padding=1, bias=False)
        ramp = torch.tensor([0.25, 0.75, 0.75, 0.25])
        with torch.no_grad():
            self.weight.zero_()
            for c in range(channels):
                self.weight[c, c] = torch.outer(ramp, ramp)


class FCNHead(nn.Module):
    """Scores at stride 32, doubled and added to those of the finer strides, down to ``finest``.

    Args:
        in_channels: backbone channels by stride.
        classes: number of classes.
        finest: stride of the result: 32, 16 or 8.
        dropout: channel dropout before the coarsest scores.
    """

    def __init__(self, in_channels: Mapping[int, int], classes: int, finest: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        if finest not in FINEST.values():
            raise ValueError(f"finest must be 32, 16 or 8, not {finest}")
        self.strides = [s for s in (32, 16, 8) if s >= finest]
        self.dropout = nn.Dropout2d(dropout)
        self.score = nn.ModuleDict({str(s): nn.Conv2d(in_channels[s], classes, 1) for s in self.strides})
        self.doubling = nn.ModuleDict({str(fine): DoublingConv(classes) for _, fine in pairwise(self.strides)})
        for stride in self.strides:
            layer = self.score[str(stride)]
            assert isinstance(layer, nn.Conv2d) and layer.bias is not None
            # The skips start at nothing, as in the paper: the coarse result is there first, detail is added to it.
            nn.init.zeros_(layer.weight) if stride < 32 else nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Mapping[int, Tensor]) -> Tensor:
        """Features by stride to logits ``[N, classes, ceil(H / finest), ceil(W / finest)]``."""
        x: Tensor = self.score["32"](self.dropout(features[32]))
        for _, fine in pairwise(self.strides):
            skip = self.score[str(fine)](features[fine])
            doubled = self.doubling[str(fine)](x)
            # An odd size became (n + 1) / 2 on the way down: cut what is one too many.
            x = skip + doubled[..., : skip.shape[-2], : skip.shape[-1]]
        return x


class FCN(nn.Module):
    """A backbone under an `FCNHead`.

    The paper's last step, bilinear upsampling to the size of the picture, is not learnt: the loss and the
    post-processing do it, which take logits to lie over the picture from edge to edge. Twelve cells of 32 pixels are
    384, though, not 360. So coarser scores than `STRIDE` are enlarged to it here and cut to the picture: sides that
    are multiples of `STRIDE` are covered exactly.

    Args:
        classes: number of classes.
        backbone: gives features at strides 8, 16 and 32.
        finest: stride of the finest scores: 32, 16 or 8.
        dropout: channel dropout before the coarsest scores.
    """

    outputs = ("class_logits",)

    def __init__(self, classes: int, backbone: Backbone, finest: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = FCNHead(backbone.channels, classes, finest, dropout)

    @property
    def first_convolution(self) -> nn.Conv2d:
        """The convolution that sees the colour channels."""
        return self.backbone.first_convolution

    def forward(self, images: Tensor, with_masks: int | None = None) -> dict[str, Tensor]:
        """Outputs by name.

        Args:
            images: float ``[N, 3, H, W]``, RGB, ``(value - 127) / 128``.
            with_masks: M, how many of the images, from the first, are wanted; None for all.

        Returns:
            ``{"class_logits": [M, classes, ceil(H / STRIDE), ceil(W / STRIDE)]}``.
        """
        features = self.backbone(images[:with_masks])
        logits: Tensor = self.head(features)
        finest = self.head.strides[-1]
        if finest > STRIDE:
            height, width = features[STRIDE].shape[-2:]
            factor = float(finest // STRIDE)
            logits = F.interpolate(logits, scale_factor=factor, mode="bilinear", align_corners=False)
            logits = logits[..., :height, :width]
        return {"class_logits": logits}
