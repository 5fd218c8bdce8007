"""Street network: backbone, feature pyramid, per-pixel classifier and, if asked for, a detection head."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from perception.networks.backbone import Backbone
from perception.networks.detector import DetectionHead
from perception.networks.fpn import FeaturePyramid, initialise
from perception.networks.lite import EfficientNetLite

DEFAULT_WIDTHS: dict[int, int] = {4: 64, 8: 96, 16: 128, 32: 128}


class SegmentationHead(nn.Module):
    """Class logits from the finest pyramid level.

    ``dropout`` drops whole channels while training, and costs nothing afterwards.
    """

    def __init__(self, in_channels: int, classes: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(in_channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, in, h, w]`` to logits ``[N, classes, h, w]``."""
        y: Tensor = self.classify(self.dropout(x))
        return y


class StreetNetwork(nn.Module):
    """One backbone and one pyramid under a segmentation head and, if asked for, a detection head.

    Args:
        classes: Number of segmentation classes.
        widths: Pyramid channels by stride.
        stem_skip: Feed stride-2 features to the finest level.
        dropout: Channel dropout before the per-pixel classifier.
        detection: Makes the detection head from the pyramid's channels by stride; None for masks alone.
        backbone: Gives features at strides 2 to 32; EfficientNet-Lite0 where None.
    """

    def __init__(
        self,
        classes: int,
        widths: Mapping[int, int] | None = None,
        stem_skip: bool = True,
        dropout: float = 0.1,
        detection: Callable[[Mapping[int, int]], DetectionHead] | None = None,
        backbone: Backbone | None = None,
    ) -> None:
        super().__init__()
        widths = dict(widths or DEFAULT_WIDTHS)
        self.backbone = backbone or EfficientNetLite()
        self.pyramid = FeaturePyramid(self.backbone.channels, widths, stem_skip)
        self.head = SegmentationHead(widths[min(widths)], classes, dropout)
        initialise(self.pyramid)
        nn.init.normal_(self.head.classify.weight, std=0.01)
        self.detector = None if detection is None else detection(self.pyramid.channels)

    @property
    def first_convolution(self) -> nn.Conv2d:
        """The convolution that sees the colour channels."""
        return self.backbone.first_convolution

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
            ``class_logits`` ``[M, classes, ceil(H / 4), ceil(W / 4)]`` and what `DetectionHead` gives, if there
            is one.
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
