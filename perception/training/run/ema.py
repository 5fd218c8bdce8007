"""Moving average of a network's weights.

Not torch's ``AveragedModel``: that copies the weights at its first step, where this average forgets the random start
gradually, and prefixes all names, which checkpoints hold without.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class MovingAverage:
    """Exponential moving average of parameters and buffers, kept as a network of its own.

    Early on the average is short, so that the random start is forgotten: step ``t`` uses
    ``min(decay, (1 + t) / (10 + t))``.

    Attributes:
        network: the averaged network, in evaluation mode.
        steps: updates so far.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.steps = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move a step towards ``network``; integer buffers are copied."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        averages: list[Tensor] = []
        values: list[Tensor] = []
        for average, value in zip(self.network.state_dict().values(), network.state_dict().values(), strict=True):
            if average.is_floating_point():
                averages.append(average)
                values.append(value)
            else:
                average.copy_(value)
        torch._foreach_lerp_(averages, values, 1 - decay)
        self.steps += 1
