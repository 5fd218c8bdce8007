"""Convolution arithmetic: multiplications and receptive fields, in plain whole numbers.

After Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016), and, for the receptive field,
Araujo et al., "Computing Receptive Fields of Convolutional Neural Networks" (Distill, 2019).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


def output_size(
    size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1, ceil: bool = False
) -> int:
    """Side of what a convolution or pooling gives.

    Args:
        size: side of its input in pixels.
        kernel: side of the kernel.
        stride: input pixels between two outputs.
        padding: pixels put on either side.
        dilation: input pixels between two taps of the kernel.
        ceil: whether a last window that sticks out of the input counts (pooling); it must begin inside the input or
            its left padding, as in torch.

    Raises:
        ValueError: a number that makes no sense, or a kernel larger than the padded input.
    """
    if size < 1 or kernel < 1 or stride < 1 or dilation < 1 or padding < 0:
        raise ValueError(f"size, kernel, stride and dilation must be at least 1, padding at least 0: {locals()}")
    room = size + 2 * padding - (dilation * (kernel - 1) + 1)
    if room < 0:
        raise ValueError(f"a kernel of {dilation * (kernel - 1) + 1} does not fit into {size + 2 * padding} pixels")
    steps = room // stride
    if ceil and room % stride and (steps + 1) * stride < size + padding:
        steps += 1
    return steps + 1


def same_padding(kernel: int, dilation: int = 1) -> int:
    """Padding with which a convolution of stride 1 keeps the size.

    Raises:
        ValueError: an even kernel, which cannot.
    """
    extent = dilation * (kernel - 1)
    if extent % 2:
        raise ValueError(f"no even padding keeps the size under a kernel of {kernel} with dilation {dilation}")
    return extent // 2


def convolution_parameters(
    in_channels: int, out_channels: int, kernel: tuple[int, int], groups: int = 1, bias: bool = True
) -> int:
    """Weights and biases of a convolution; ``groups == in_channels`` is a depthwise one."""
    return out_channels * (in_channels // groups * kernel[0] * kernel[1] + bias)


def convolution_multiplications(
    in_channels: int, out_channels: int, kernel: tuple[int, int], output_hw: tuple[int, int], groups: int = 1
) -> int:
    """Multiplications of a convolution on one image; ``output_hw`` is the size of its maps."""
    return output_hw[0] * output_hw[1] * out_channels * (in_channels // groups) * kernel[0] * kernel[1]


def dense_parameters(inputs: int, outputs: int, bias: bool = True) -> int:
    """Weights and biases of a dense layer."""
    return outputs * (inputs + bias)


@dataclass(frozen=True, slots=True)
class Field:
    """Receptive field of one output, along one axis.

    Attributes:
        size: side of the receptive field in pixels of the image.
        step: pixels of the image between the fields of two neighbouring outputs.
    """

    size: int = 1
    step: int = 1

    def after(self, kernel: int, stride: int = 1, dilation: int = 1) -> Field:
        """Return the field behind one more convolution or pooling."""
        return Field(self.size + dilation * (kernel - 1) * self.step, self.step * stride)

    @classmethod
    def joined(cls, fields: Iterable[Field]) -> Field:
        """Return the field of a sum or concatenation: the largest of its parts."""
        several = list(fields)
        return cls(max(f.size for f in several), max(f.step for f in several))
