"""Fully convolutional detection head: at every location class scores, four distances and one confidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.networks.depthwise import DepthwiseConv2d
from perception.networks.fpn import initialise
from perception.networks.lite import conv_bn

DEFAULT_STRIDES = (8, 16, 32)
PRIOR = 0.01  # class scores start here, so that the many empty locations do not drown the first steps
MAX_LOG_DISTANCE = 5.0  # exp(5) strides are wider than any picture; more would overflow early in training
BATCH_NORM_EPS = 1e-5


class _LevelNorms(nn.ModuleList):
    """Batch norm and ReLU6, one set of statistics for each pyramid level.

    The convolutions between are shared over the levels, the statistics of what they see are not (as in RTMDet,
    Lyu et al. 2022). Once folded into the convolutions they cost nothing.
    """

    def __init__(self, levels: int, channels: int) -> None:
        super().__init__(nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS) for _ in range(levels))

    def forward(self, x: Tensor, level: int) -> Tensor:
        y: Tensor = F.relu6(self[level](x))
        return y


class _Tower(nn.Module):
    """``depth`` blocks of a 5x5 depthwise and a 1x1 convolution, shared over the levels."""

    def __init__(self, levels: int, width: int, depth: int) -> None:
        super().__init__()
        self.filters = nn.ModuleList(DepthwiseConv2d(width, 5) for _ in range(depth))
        self.mixes = nn.ModuleList(nn.Conv2d(width, width, 1, bias=False) for _ in range(depth))
        self.filter_norms = nn.ModuleList(_LevelNorms(levels, width) for _ in range(depth))
        self.mix_norms = nn.ModuleList(_LevelNorms(levels, width) for _ in range(depth))

    def forward(self, x: Tensor, level: int) -> Tensor:
        """``[N, width, h, w]`` of one level to the same shape."""
        blocks = zip(self.filters, self.filter_norms, self.mixes, self.mix_norms, strict=True)
        for filter_, filter_norm, mix, mix_norm in blocks:
            x = filter_norm(filter_(x), level)
            x = mix_norm(mix(x), level)
        return x


def locations(shape: tuple[int, int], stride: int, device: torch.device | None = None) -> Tensor:
    """Centres of a level's cells in input pixels.

    Args:
        shape: ``(h, w)`` of the level's map.
        stride: input pixels per cell.
        device: of the result.

    Returns:
        float32 ``[h * w, 2]`` xy, row by row; the first is ``(stride / 2, stride / 2)``.
    """
    ys = (torch.arange(shape[0], device=device, dtype=torch.float32) + 0.5) * stride
    xs = (torch.arange(shape[1], device=device, dtype=torch.float32) + 0.5) * stride
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    return torch.stack((x.reshape(-1), y.reshape(-1)), 1)


class DetectionHead(nn.Module):
    """Anchor-free detection on pyramid levels, after FCOS (Tian et al. 2019).

    Every cell of every level is a location. It predicts one logit per class, the distances from its centre to
    the four sides of a box, and one confidence: how well that box will overlap the object. Two small towers of
    depthwise-separable convolutions, one for classes and one for boxes, are shared by the levels.

    The outputs are decoded here, so that they mean the same whatever the head: no grid, stride or anchor leaves it.

    Args:
        in_channels: pyramid channels by stride.
        classes: number of classes C.
        strides: levels to detect on; each must be in ``in_channels``.
        width: channels of the towers.
        depth: blocks of each tower.
    """

    def __init__(
        self,
        in_channels: Mapping[int, int],
        classes: int,
        strides: Sequence[int] = DEFAULT_STRIDES,
        width: int = 96,
        depth: int = 2,
    ) -> None:
        super().__init__()
        missing = sorted(set(strides) - set(in_channels))
        if missing:
            raise ValueError(f"the pyramid has no level of stride {missing}, only {sorted(in_channels)}")
        self.strides = tuple(sorted(strides))
        self.classes = classes
        levels = len(self.strides)
        self.reduce = nn.ModuleList(conv_bn(in_channels[s], width, 1, eps=BATCH_NORM_EPS) for s in self.strides)
        self.class_tower = _Tower(levels, width, depth)
        self.box_tower = _Tower(levels, width, depth)
        self.classify = nn.Conv2d(width, classes, 1)
        self.measure = nn.Conv2d(width, 5, 1)  # four log distances and the confidence
        self.log_scales = nn.Parameter(torch.ones(levels))
        initialise(self)
        for last in (self.classify, self.measure):
            nn.init.normal_(last.weight, std=0.01)
        assert self.classify.bias is not None
        nn.init.constant_(self.classify.bias, -math.log(1 / PRIOR - 1))

    def forward(self, pyramid: Mapping[int, Tensor]) -> dict[str, Tensor]:
        """Compute boxes and scores of all locations, level after level, finest first.

        K is the sum of ``h * w`` over the levels: 3570 at 480x360 with strides 8, 16 and 32.

        Args:
            pyramid: maps ``[N, in_channels[stride], h, w]`` by stride.

        Returns:
            ``boxes`` float32 ``[N, K, 4]`` xyxy in input pixels, not clipped to the picture;
            ``scores`` float32 ``[N, K, C]`` in 0..1: the geometric mean of class probability and confidence;
            and what the loss needs: ``box_class_logits`` ``[N, K, C]``, ``box_confidence_logits`` ``[N, K]`` and
            ``box_locations`` float32 ``[K, 2]`` xy in input pixels.
        """
        class_logits, measures, centres, reaches = [], [], [], []
        for level, stride in enumerate(self.strides):
            x = self.reduce[level](pyramid[stride])
            named = self.class_tower(x, level)
            placed = self.box_tower(x, level)
            with torch.autocast(x.device.type, enabled=False):  # pixels need more digits than bfloat16 has
                logits = self.classify(named.float())
                measured = self.measure(placed.float())
            scale = self.log_scales[level]
            class_logits.append(_by_location(logits))
            factors = torch.stack((*[scale] * 4, torch.tensor(1.0, device=x.device)))  # not of the confidence
            measures.append(_by_location(measured * factors.reshape(5, 1, 1)))
            centres.append(locations((x.shape[2], x.shape[3]), stride, x.device))
            reach = torch.full_like(centres[-1], 2.0 * stride)
            reaches.append(torch.cat((-reach, reach), 1))
        # Levels are decoded together, location by location: a compiled engine makes two passes of it, not ten a level.
        named_all, measured_all, centre = torch.cat(class_logits, 1), torch.cat(measures, 1), torch.cat(centres)
        distances = measured_all[..., :4].clamp(max=MAX_LOG_DISTANCE).exp()
        confidence = measured_all[..., 4:]
        return {
            "boxes": torch.cat((centre, centre), 1) + torch.cat(reaches) * distances,
            "scores": (named_all.sigmoid() * confidence.sigmoid()).sqrt(),
            "box_class_logits": named_all,
            "box_confidence_logits": confidence.squeeze(2),
            "box_locations": centre,
        }


def _by_location(x: Tensor) -> Tensor:
    """``[N, C, h, w]`` to ``[N, h * w, C]``."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)
