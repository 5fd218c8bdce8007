"""Street network: backbone, feature pyramid, per-pixel classifier and, if asked for, a detection head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from perception.networks.backbone import Backbone
from perception.networks.detector import DetectionHead
from perception.networks.fpn import FeaturePyramid, initialise
from perception.networks.lite import EfficientNetLite

DEFAULT_WIDTHS: dict[int, int] = {4: 64, 8: 96, 16: 128, 32: 128}


class SegmentationHead(nn.Module):
    """Class logits from the finest pyramid level.

    Args:
        in_channels: of the pyramid level.
        classes: logits per pixel.
        dropout: drops whole channels while training, and costs nothing afterwards.
        subpixel: every location gives the logits of its four quarters (sub-pixel convolution, Shi et al. 2016): a
            pole two pixels wide is lost between logits at stride 4, not at stride 2.
    """

    def __init__(self, in_channels: int, classes: int, dropout: float = 0.1, subpixel: bool = False) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.upscale = 2 if subpixel else 1
        self.classify = nn.Conv2d(in_channels, classes * self.upscale**2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in, h, w]`` to logits ``[N, classes, h, w]``; ``[N, classes, 2h, 2w]`` with ``subpixel``."""
        y: Tensor = self.classify(self.dropout(x))
        return F.pixel_shuffle(y, 2) if self.upscale == 2 else y


class SegmentationDetectionNetwork(nn.Module):
    """One backbone and one pyramid under a segmentation head and, if asked for, a detection head.

    Args:
        classes: Number of segmentation classes.
        widths: Pyramid channels by stride.
        stem_skip: Feed stride-2 features to the finest level.
        dropout: Channel dropout before the per-pixel classifier.
        detection: Makes the detection head from the pyramid's channels by stride; None for masks alone.
        backbone: Gives features at strides 2 to 32; EfficientNet-Lite0 where None.
        subpixel: Class logits at stride 2, not 4: see `SegmentationHead`.
        separable: Depthwise-separable convolutions in the pyramid: see `FeaturePyramid`.
    """

    def __init__(
        self,
        classes: int,
        widths: Mapping[int, int] | None = None,
        stem_skip: bool = True,
        dropout: float = 0.1,
        detection: Callable[[Mapping[int, int]], DetectionHead] | None = None,
        backbone: Backbone | None = None,
        subpixel: bool = False,
        separable: bool = False,
    ) -> None:
        super().__init__()
        widths = dict(widths or DEFAULT_WIDTHS)
        self.backbone = backbone or EfficientNetLite()
        self.pyramid = FeaturePyramid(self.backbone.channels, widths, stem_skip, separable)
        self.head = SegmentationHead(widths[min(widths)], classes, dropout, subpixel)
        initialise(self.pyramid)
        nn.init.normal_(self.head.classify.weight, std=0.01)
        self.detector = None if detection is None else detection(self.pyramid.channels)

    @property
    def first_convolution(self) -> nn.Conv2d:
        """The convolution that sees the colour channels."""
        return self.backbone.first_convolution

    def parts_of(self, head: Literal["masks", "boxes"]) -> list[nn.Module]:
        """Return the layers that nothing but ``head`` needs."""
        if head == "boxes":
            return [] if self.detector is None else [self.detector]
        if self.detector is not None and self.pyramid.strides[-1] in self.detector.strides:
            return [self.head]
        return [self.head, *self.pyramid.finest_parts()]

    def layers_beside(self, head: Literal["masks", "boxes"]) -> list[nn.Module]:
        """Return the layers that are not of ``head`` alone: the other head's, and those that both share."""
        own = {module for part in self.parts_of(head) for module in part.modules()}
        return [module for module in self.modules() if module not in own and not any(module.children())]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs that a deployed graph has."""
        return ("class_logits",) if self.detector is None else ("class_logits", "boxes", "scores")

    def forward(self, images: Tensor, with_masks: int | None = None) -> dict[str, Tensor]:
        """Outputs by name.

        Args:
            images: float ``[N, 3, H, W]``, RGB, ``(value - 127) / 128``.
            with_masks: M, how many of the images, from the first, ``class_logits`` are wanted for: the finest
                pyramid level is the dearest and is not made for the others. None for all.

        Returns:
            ``class_logits`` ``[M, classes, ceil(H / 4), ceil(W / 4)]``, twice that size with ``subpixel``, and
            what `DetectionHead` gives, if there is one.
        """
        finest = self.pyramid.strides[-1]
        finest_is_shared = self.detector is not None and finest in self.detector.strides
        pyramid = self.pyramid(self.backbone(images), None if finest_is_shared else with_masks)
        results: dict[str, Tensor] = {}
        if with_masks != 0:
            results["class_logits"] = self.head(pyramid[finest][:with_masks])
        if self.detector is not None:
            results.update(self.detector(pyramid))
        return results
