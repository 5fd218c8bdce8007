"""One backbone with heads side by side: class, box and, if asked for, confidence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perception.networks.flatten import Flatten
from perception.networks.lite import EfficientNetLite


class Localiser(nn.Module):
    """Class and box of the one object that fills a picture or a window.

    The features are flattened, not averaged: where things are must not get lost.

    Args:
        backbone: gives the features.
        classes: number of classes C.
        size: (width, height) of the picture, multiples of ``stride``.
        stride: of the features that are looked at.
        maps: that they are made into before they are flattened.
        hidden: numbers of the dense layer before the heads.
        dropout: before the heads.
        background: adds a class, the last, that says that there is nothing.
        confidence: adds a head of one number that says whether there is anything.
    """

    outputs = ("boxes", "scores")

    def __init__(
        self,
        backbone: EfficientNetLite,
        classes: int,
        size: tuple[int, int],
        stride: int = 32,
        maps: int = 64,
        hidden: int = 256,
        dropout: float = 0.2,
        background: bool = False,
        confidence: bool = False,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.size = size
        self.stride = stride
        self.background = background
        self.backbone = backbone
        flatten = Flatten(maps, size[1] // stride, size[0] // stride)
        self.neck = nn.Sequential(
            nn.Conv2d(backbone.channels[stride], maps, 1, bias=False),
            nn.BatchNorm2d(maps),
            nn.ReLU(),
            flatten,
            nn.Dropout(dropout),
            nn.Linear(flatten.features, hidden),
            nn.ReLU(),
        )
        self.classify = nn.Linear(hidden, classes + background)
        self.measure = nn.Linear(hidden, 4)
        self.confide = nn.Linear(hidden, 1) if confidence else None
        nn.init.normal_(self.measure.weight, std=0.01)
        nn.init.zeros_(self.measure.bias)  # to begin with, the middle of the picture

    @property
    def first_convolution(self) -> nn.Conv2d:
        """The convolution that sees the colour channels."""
        return self.backbone.first_convolution

    def run_heads(self, images: Tensor) -> dict[str, Tensor]:
        """Run the heads on normalised ``[N, 3, H, W]``.

        Returns:
            ``class_logits`` ``[N, C]`` (one more with a background), ``box`` ``[N, 4]``, xyxy as parts of the picture
            (0..1, but that it may stick out), and ``confidence_logits`` ``[N, 1]`` where there is a confidence.
        """
        x = self.neck(self.backbone(images)[self.stride])
        placed = self.measure(x).sigmoid()  # centre, width and height
        centre, half = placed[:, :2], placed[:, 2:] / 2
        results = {"class_logits": self.classify(x), "box": torch.cat((centre - half, centre + half), 1)}
        if self.confide is not None:
            results["confidence_logits"] = self.confide(x)
        return results

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Run the heads, and give the one box as a detector does.

        Returns:
            beside the rest ``boxes`` ``[N, 1, 4]`` xyxy in input pixels and ``scores`` ``[N, 1, C]``.
        """
        results = self.run_heads(images)
        size = torch.tensor([*self.size, *self.size], dtype=torch.float32, device=images.device)
        boxes = results["box"].float().unsqueeze(1) * size
        return {**results, "boxes": boxes, "scores": window_scores(results, self.classes).unsqueeze(1)}


def window_scores(results: dict[str, Tensor], classes: int) -> Tensor:
    """``[N, C, ...]`` in 0..1: probabilities of the ``classes``, times the confidence where there is one."""
    scores = results["class_logits"].float().softmax(1)[:, :classes]
    if "confidence_logits" in results:
        scores = scores * results["confidence_logits"].float().sigmoid()
    return scores
