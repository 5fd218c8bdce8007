"""Depthwise convolution whose backward pass is fast in bfloat16 on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.networks.depthwise_gradient import filter_gradient


class _Bfloat16Depthwise(torch.autograd.Function):
    """Forward in bfloat16; backward without oneDNN's slow kernels for the gradients of depthwise convolutions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight.to(x.dtype), None, stride, padding, 1, weight.shape[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        x, weight = ctx.saved_tensors
        grad = grads[0].to(x.dtype)
        grad_x = _input_gradient(x, weight, grad, ctx.stride, ctx.padding) if ctx.needs_input_grad[0] else None
        return grad_x, filter_gradient(x, grad, weight.shape[2], ctx.stride), None, None


def _input_gradient(x: Tensor, weight: Tensor, grad: Tensor, stride: int, padding: int) -> Tensor:
    """Like ``x`` in shape and type."""
    channels = weight.shape[0]
    if stride == 1:  # itself a convolution, with the filters turned round
        return F.conv2d(grad, weight.flip(2, 3).to(x.dtype), None, 1, padding, 1, channels)
    # In float32, conversions included, it takes a third of the time.
    sides: tuple[list[int], ...] = ([stride, stride], [padding, padding], [1, 1])
    grad_x: Tensor = torch.ops.aten.convolution_backward(
        grad.float(), x.float(), weight, None, *sides, False, [0, 0], channels, [True, False, False]
    )[0]
    return grad_x.to(x.dtype)


class DepthwiseConv2d(nn.Conv2d):
    """``nn.Conv2d`` with one filter per channel, symmetric padding and no bias.

    Differs from ``nn.Conv2d`` only while training on a CPU under bfloat16 autocast.
    """

    def __init__(self, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` to ``[N, C, ceil(H / stride), ceil(W / stride)]``."""
        if self.training and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            if dtype is torch.bfloat16:
                padding = int(self.padding[0])
                y: Tensor = _Bfloat16Depthwise.apply(x.to(dtype), self.weight, self.stride[0], padding)
                return y
        return super().forward(x)
