"""Convolution arithmetic against torch and against numbers from the literature."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from perception.networks.arithmetic import Field, convolution_multiplications  # noqa: E402


def test_the_textbook_layer() -> None:
    # A 150x100 RGB image under 200 filters of 5x5, stride 1, "same" padding (Geron 2019, chapter 14).
    assert convolution_multiplications(3, 200, (5, 5), (100, 150)) == 225_000_000
    assert convolution_multiplications(6, 12, (3, 5), (10, 20), groups=6) == 12 * 15 * 200


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
