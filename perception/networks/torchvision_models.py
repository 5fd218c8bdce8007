"""torchvision's detectors and segmenters as networks of ours: images in, decoded boxes or small logits out.

Theirs take lists of images of any size and give lists of boxes after suppression, which no graph can hold well. Here
the parts that learn are kept, backbone and head, and what is around them is ours: the resize before, and the threshold
and the suppression after, belong to the runtime.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.ssd import SSD
from torchvision.models.segmentation import LRASPP
from torchvision.models.segmentation._utils import _SimpleSegmentationModel

LARGEST_GROWTH = math.log(1000 / 16)
"""Of a box against its anchor, as a logarithm; torchvision limits it so."""


def first_convolution(network: nn.Module) -> nn.Conv2d:
    """Return the convolution that sees the colour channels."""
    return next(m for m in network.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3)


class TorchvisionDetector(nn.Module):
    """FCOS, RetinaNet or SSD, with its anchors fixed for one image size.

    Of the levels of a pyramid only the anchors with the best scores go on, as many as torchvision looks at (1000):
    fewer numbers leave the graph, and no box is lost that torchvision would find.

    Args:
        model: torchvision's; it is used, not copied.
        size: (width, height) of the images in pixels, multiples of 32 where there is a pyramid.
        classes: which of the model's classes to give, in this order.

    Raises:
        TypeError: another kind of model.
    """

    outputs = ("boxes", "scores")

    def __init__(self, model: nn.Module, size: tuple[int, int], classes: Sequence[int]) -> None:
        super().__init__()
        if not isinstance(model, (FCOS, RetinaNet, SSD)):
            raise TypeError(f"{type(model).__name__} is not FCOS, RetinaNet or SSD")
        self.backbone, self.head = model.backbone, model.head
        self.kind = type(model).__name__
        self.weights = () if isinstance(model, FCOS) else tuple(float(w) for w in model.box_coder.weights)
        self.best = model.topk_candidates if not isinstance(model, SSD) else None
        width, height = size
        images = torch.zeros(1, 3, height, width)
        model.eval()
        with torch.no_grad():
            features = list(model.backbone(images).values())
            (anchors,) = model.anchor_generator(ImageList(images, [(height, width)]), features)
        locations = [f.shape[2] * f.shape[3] for f in features]
        # only SSD has levels with different numbers of anchors, and its levels are not needed
        self.levels = [n * len(anchors) // sum(locations) for n in locations]
        self.anchor_centre: Tensor
        self.anchor_size: Tensor
        self.classes: Tensor
        self.register_buffer("anchor_centre", (anchors[:, :2] + anchors[:, 2:]) / 2)
        self.register_buffer("anchor_size", anchors[:, 2:] - anchors[:, :2])
        self.register_buffer("classes", torch.tensor(list(classes)))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute boxes and scores.

        Args:
            images: float ``[N, 3, H, W]``, normalised as the model wants it.

        Returns:
            ``boxes`` ``[N, K, 4]`` xyxy in pixels, not clipped; ``scores`` ``[N, K, C]`` in 0..1.
        """
        head = self.head(list(self.backbone(images).values()))
        boxes = self._boxes(head["bbox_regression"])
        scores = self._scores(head).index_select(2, self.classes)
        if self.best is None or max(self.levels) <= self.best:
            return {"boxes": boxes, "scores": scores}
        kept = [
            _best(b, s, self.best) if n > self.best else (b, s)
            for n, b, s in zip(self.levels, boxes.split(self.levels, 1), scores.split(self.levels, 1), strict=True)
        ]
        return {"boxes": torch.cat([b for b, _ in kept], 1), "scores": torch.cat([s for _, s in kept], 1)}

    def _scores(self, head: dict[str, Tensor]) -> Tensor:
        logits = head["cls_logits"]
        if self.kind == "SSD":
            return logits.softmax(-1)
        if self.kind == "FCOS":
            return (logits.sigmoid() * head["bbox_ctrness"].sigmoid()).sqrt()
        return logits.sigmoid()

    def _boxes(self, offsets: Tensor) -> Tensor:
        if self.kind == "FCOS":
            # distances to the four edges, in units of the anchor
            low = self.anchor_centre - offsets[..., :2] * self.anchor_size
            return torch.cat([low, self.anchor_centre + offsets[..., 2:] * self.anchor_size], -1)
        move = torch.cat([offsets[..., 0:1] / self.weights[0], offsets[..., 1:2] / self.weights[1]], -1)
        grow = torch.cat([offsets[..., 2:3] / self.weights[2], offsets[..., 3:4] / self.weights[3]], -1)
        centre = self.anchor_centre + move * self.anchor_size
        half = grow.clamp(max=LARGEST_GROWTH).exp() * self.anchor_size / 2
        return torch.cat([centre - half, centre + half], -1)


class TorchvisionSegmenter(nn.Module):
    """FCN, DeepLabv3 or LR-ASPP without the enlargement at the end.

    Args:
        model: torchvision's; it is used, not copied.

    Raises:
        TypeError: another kind of model.
    """

    outputs = ("class_logits",)

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if not isinstance(model, (_SimpleSegmentationModel, LRASPP)):
            raise TypeError(f"{type(model).__name__} is not FCN, DeepLabv3 or LR-ASPP")
        self.backbone, self.classifier = model.backbone, model.classifier
        self.one_level = not isinstance(model, LRASPP)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits at the network's own stride.

        Args:
            images: float ``[N, 3, H, W]``, normalised as the model wants it.

        Returns:
            ``class_logits`` ``[N, C, H / 8, W / 8]``; of DeepLabv3 on MobileNetV3 ``[N, C, H / 16, W / 16]``.
        """
        features = self.backbone(images)
        return {"class_logits": self.classifier(features["out"] if self.one_level else features)}


def _best(boxes: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Select the ``count`` anchors whose best class scores most."""
    chosen = scores.amax(2).topk(count, 1).indices.unsqueeze(2)
    return boxes.gather(1, chosen.expand(-1, -1, 4)), scores.gather(1, chosen.expand(-1, -1, scores.shape[2]))
