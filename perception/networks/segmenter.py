"""Semantic segmentation network: backbone, feature pyramid, per-pixel classifier."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

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
    """One backbone and one pyramid under any number of heads.

    Heads are named by the graph output they make; each takes the pyramid. Today there is ``class_logits``.

    Args:
        classes: Number of segmentation classes.
        widths: Pyramid channels by stride.
        stem_skip: Feed stride-2 features to the finest level.
        dropout: Channel dropout before the classifier.
    """

    def __init__(
        self,
        classes: int,
        widths: Mapping[int, int] | None = None,
        stem_skip: bool = True,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        widths = dict(widths or DEFAULT_WIDTHS)
        self.backbone = EfficientNetLite()
        self.pyramid = FeaturePyramid(self.backbone.channels, widths, stem_skip)
        self.head = SegmentationHead(widths[min(widths)], classes, dropout)
        initialise(self.pyramid)
        nn.init.normal_(self.head.classify.weight, std=0.01)

    @property
    def first_convolution(self) -> nn.Conv2d:
        """The convolution that sees the colour channels."""
        convolution = self.backbone.stem[0]
        assert isinstance(convolution, nn.Conv2d)
        return convolution

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Outputs by name.

        Args:
            images: float ``[N, 3, H, W]``, RGB, ``(value - 127) / 128``.

        Returns:
            ``{"class_logits": [N, classes, ceil(H / 4), ceil(W / 4)]}``.
        """
        pyramid = self.pyramid(self.backbone(images))
        return {"class_logits": self.head(pyramid[min(pyramid)])}
