"""The deployed graph: camera bytes in, float32 outputs by name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

PIXEL_MEAN = 127.0
PIXEL_SCALE = 1.0 / 128.0


def normalise(images: Tensor) -> Tensor:
    """Pixel values 0..255 (any float type) to what the backbones take: ``(value - 127) / 128``."""
    return (images - PIXEL_MEAN) * PIXEL_SCALE


class CameraGraph(nn.Module):
    """Wraps a network so that preprocessing is part of it: uint8 BGR frames in, outputs in a fixed order.

    The channel swap is not an operation of the graph: the first convolution's input channels are swapped once,
    here. The wrapped network is therefore changed and must not be used on its own afterwards.

    Args:
        network: Takes normalised float RGB ``[N, 3, H, W]``, returns a dict of outputs.
        first_convolution: The network's own first convolution, whose weights get their channels swapped.
        outputs: Names of the outputs, in the order the graph returns them.
        mean, std: Of R, G, B in 0..255, where the network takes ``(value - mean) / std`` and not what ours take.
    """

    def __init__(
        self,
        network: nn.Module,
        first_convolution: nn.Conv2d,
        outputs: tuple[str, ...],
        mean: Sequence[float] = (PIXEL_MEAN,) * 3,
        std: Sequence[float] = (1 / PIXEL_SCALE,) * 3,
    ) -> None:
        super().__init__()
        self.network = network
        self.outputs = outputs
        # one number where the channels have the same, for a smaller graph
        self.mean: float | Tensor = mean[0]
        self.scale: float | Tensor = 1 / std[0]
        if len({*mean}) > 1 or len({*std}) > 1:
            self.mean = torch.tensor(mean[::-1])
            self.scale = 1 / torch.tensor(std[::-1])
        with torch.no_grad():
            first_convolution.weight.copy_(first_convolution.weight.flip(1))

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Run the network on uint8 BGR ``[N, H, W, 3]``; outputs are float32."""
        # Pixels first, planes afterwards: CPU engines compute with the channels of a pixel side by side, and need not
        # move anything.
        images = ((frames.float() - self.mean) * self.scale).permute(0, 3, 1, 2)
        results = self.network(images)
        return tuple(results[name].float() for name in self.outputs)
