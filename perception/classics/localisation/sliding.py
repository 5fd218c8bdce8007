"""A window classifier slid over a scene at several scales, as a detector: one graph, no loop over windows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.classics.fully_convolutional import to_fully_convolutional
from perception.classics.localisation.network import Localiser, window_scores
from perception.errors import UsageError
from perception.networks.classifier import first_convolution


class _Heads(nn.Module):
    """`Localiser.run_heads` as a module of its own."""

    def __init__(self, localiser: Localiser) -> None:
        super().__init__()
        self.localiser = localiser

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.localiser.run_heads(images)


class SlidingWindowDetector(nn.Module):
    """Every place of the map is a window; its box is in the window, its scores are the window's.

    Args:
        localiser: trained on windows; it is copied.
        size: (width, height) of the scene in pixels.
        scales: the scene is looked at enlarged by each; windows hold larger objects at smaller scales.

    Raises:
        UsageError: a scale at which the scene is smaller than a window.
    """

    outputs = ("boxes", "scores")

    def __init__(self, localiser: Localiser, size: tuple[int, int], scales: Sequence[float]) -> None:
        super().__init__()
        window = localiser.size
        self.network = to_fully_convolutional(_Heads(localiser), (3, window[1], window[0]))
        self.classes = localiser.classes
        self.window = window
        self.step: tuple[int, int] = self.network.step  # type: ignore[assignment]
        self.sizes = [(round(size[0] * scale), round(size[1] * scale)) for scale in scales]
        small = [f"{s:g}" for s, (w, h) in zip(scales, self.sizes, strict=True) if w < window[0] or h < window[1]]
        if small:
            raise UsageError(
                f"at scale {', '.join(small)} a scene of {size[0]}x{size[1]} is smaller than a window of "
                f"{window[0]}x{window[1]}"
            )
        self.size = size

    @property
    def first_convolution(self) -> nn.Conv2d:
        """The convolution that sees the colour channels."""
        return first_convolution(self.network)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Cut all windows of all scales.

        Args:
            images: float ``[N, 3, H, W]`` of the scene's size, normalised.

        Returns:
            ``boxes`` float32 ``[N, K, 4]`` xyxy in input pixels, ``scores`` float32 ``[N, K, C]`` in 0..1.
        """
        boxes, scores = [], []
        for width, height in self.sizes:
            scaled = images
            if (width, height) != self.size:
                scaled = F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False)
            maps = self.network(scaled)
            score = window_scores(maps, self.classes)
            rows, columns = int(score.shape[2]), int(score.shape[3])
            top = torch.arange(rows, device=images.device, dtype=torch.float32) * self.step[0]
            left = torch.arange(columns, device=images.device, dtype=torch.float32) * self.step[1]
            y, x = torch.meshgrid(top, left, indexing="ij")
            side = torch.tensor([*self.window, *self.window], dtype=torch.float32, device=images.device)
            box = maps["box"].float() * side.view(1, 4, 1, 1) + torch.stack((x, y, x, y))
            grown = torch.tensor([self.size[0] / width, self.size[1] / height] * 2, device=images.device)
            boxes.append((box * grown.view(1, 4, 1, 1)).flatten(2).transpose(1, 2))
            scores.append(score.flatten(2).transpose(1, 2))
        return {"boxes": torch.cat(boxes, 1), "scores": torch.cat(scores, 1)}
