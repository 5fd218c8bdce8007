"""Convolution arithmetic against torch and against numbers from the literature."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from perception.networks.arithmetic import (  # noqa: E402
    Field,
    convolution_multiplications,
    convolution_parameters,
    dense_parameters,
    output_size,
    same_padding,
)


@pytest.mark.parametrize("seed", range(5))
def test_sizes_are_those_of_torch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(60):
        size, kernel, stride = (int(rng.integers(*r)) for r in ((1, 40), (1, 8), (1, 5)))
        dilation, ceil = int(rng.integers(1, 4)), bool(rng.integers(2))
        padding = int(rng.integers(0, kernel // 2 + 1))
        image = torch.zeros(1, 1, size, size)
        convolution = nn.Conv2d(1, 1, kernel, stride, padding, dilation)
        pooling = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil)
        if dilation * (kernel - 1) + 1 > size + 2 * padding:
            with pytest.raises(ValueError, match="does not fit"):
                output_size(size, kernel, stride, padding, dilation)
            continue
        assert output_size(size, kernel, stride, padding, dilation) == convolution(image).shape[3]
        assert output_size(size, kernel, stride, padding, dilation, ceil) == pooling(image).shape[3]


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (5, 1), (3, 2), (7, 3), (2, 2)])
def test_same_padding_keeps_the_size(kernel: int, dilation: int) -> None:
    assert output_size(17, kernel, 1, same_padding(kernel, dilation), dilation) == 17


def test_an_even_extent_has_no_same_padding() -> None:
    with pytest.raises(ValueError, match="keeps the size"):
        same_padding(4)


def test_the_textbook_layer() -> None:
    # A 150x100 RGB image under 200 filters of 5x5, stride 1, "same" padding (Geron 2019, chapter 14).
    assert convolution_parameters(3, 200, (5, 5)) == 15_200
    height, width = (output_size(side, 5, 1, same_padding(5)) for side in (100, 150))
    assert convolution_multiplications(3, 200, (5, 5), (height, width)) == 225_000_000
    # A dense layer in its place, of as many numbers, would have 150 * 100 * 200 * (150 * 100 * 3 + 1) parameters.
    assert dense_parameters(150 * 100 * 3, 150 * 100 * 200) == 135_003_000_000


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_parameters_are_those_of_torch(groups: int) -> None:
    layer = nn.Conv2d(6, 12, (3, 5), groups=groups, bias=groups != 2)
    expected = sum(p.numel() for p in layer.parameters())
    assert convolution_parameters(6, 12, (3, 5), groups, groups != 2) == expected


def test_the_receptive_field_of_vgg16() -> None:
    # 212 pixels behind the last pooling (Araujo et al. 2019).
    field = Field()
    for convolutions in (2, 2, 3, 3, 3):
        for _ in range(convolutions):
            field = field.after(3)
        field = field.after(2, stride=2)
    assert field == Field(212, 32)


@pytest.mark.parametrize("seed", range(4))
def test_the_receptive_field_is_where_gradients_arrive(seed: int) -> None:
    rng = np.random.default_rng(seed)
    field, layers = Field(), []
    for _ in range(3):
        kernel, stride, dilation = int(rng.integers(1, 5)), int(rng.integers(1, 3)), int(rng.integers(1, 3))
        layers.append(nn.Conv2d(1, 1, kernel, stride, dilation=dilation, bias=False))
        nn.init.ones_(layers[-1].weight)
        field = field.after(kernel, stride, dilation)
    image = torch.zeros(1, 1, 1, 120, requires_grad=True)
    # one row: kernels are cut to it
    for layer in layers:
        layer.weight.data = layer.weight.data[:, :, :1]
    maps = image
    for layer in layers:
        maps = nn.functional.conv2d(maps, layer.weight, stride=(1, layer.stride[0]), dilation=(1, layer.dilation[0]))
    reached = []
    for position in (2, 3):
        (gradient,) = torch.autograd.grad(maps[0, 0, 0, position], image, retain_graph=True)
        (seen,) = gradient[0, 0, 0].nonzero(as_tuple=True)
        reached.append((int(seen[0]), int(seen[-1])))
    assert reached[0][1] - reached[0][0] + 1 == field.size
    assert reached[1][0] - reached[0][0] == field.step
