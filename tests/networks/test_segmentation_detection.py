"""The pyramid, the segmentation network and the deployed graph."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from perception.networks.camera import CameraGraph, normalise  # noqa: E402
from perception.networks.fpn import FeaturePyramid, upsample_onto  # noqa: E402
from perception.networks.segmentation_detection import SegmentationDetectionNetwork, SegmentationHead  # noqa: E402

WIDTHS = {4: 8, 8: 12, 16: 16, 32: 16}


def test_doubling_onto_an_even_map_is_plain_bilinear() -> None:
    x = torch.randn(1, 3, 4, 5)
    expected = F.interpolate(x, size=(8, 10), mode="bilinear", align_corners=False)
    torch.testing.assert_close(upsample_onto(x, torch.empty(1, 1, 8, 10)), expected)


def test_doubling_onto_an_odd_map_moves_nothing() -> None:
    x = torch.randn(1, 3, 4, 5)
    odd = upsample_onto(x, torch.empty(1, 1, 7, 9))
    even = upsample_onto(x, torch.empty(1, 1, 8, 10))
    assert torch.equal(odd, even[..., :7, :9])


@pytest.mark.parametrize("size", [(64, 96), (72, 104), (65, 99)])
def test_pyramid_levels_match_the_backbone(size: tuple[int, int]) -> None:
    network = SegmentationDetectionNetwork(5, WIDTHS).eval()
    with torch.inference_mode():
        features = network.backbone(torch.zeros(1, 3, *size))
        pyramid = network.pyramid(features)
        logits = network(torch.zeros(1, 3, *size))["class_logits"]
    for stride, width in WIDTHS.items():
        assert pyramid[stride].shape == (1, width, *features[stride].shape[-2:])
    assert logits.shape == (1, 5, -(-size[0] // 4), -(-size[1] // 4))


def test_the_stem_skip_needs_a_stride_4_level() -> None:
    channels = {2: 16, 4: 24, 8: 40, 16: 112, 32: 320}
    with pytest.raises(ValueError, match="finest pyramid level must be 4"):
        FeaturePyramid(channels, {8: 8, 16: 8, 32: 8}, stem_skip=True)
    assert set(FeaturePyramid(channels, {8: 8, 16: 8, 32: 8}, stem_skip=False).channels) == {8, 16, 32}


def test_the_deployed_graph_takes_camera_bytes() -> None:
    torch.manual_seed(0)
    network = SegmentationDetectionNetwork(5, WIDTHS).eval()
    frames = torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8)
    with torch.inference_mode():
        rgb = frames.flip(3).permute(0, 3, 1, 2).float()
        expected = network(normalise(rgb))["class_logits"]
        graph = CameraGraph(network, network.first_convolution, ("class_logits",)).eval()
        (result,) = graph(frames)
    assert result.dtype is torch.float32
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_subpixel_logits_lie_in_the_quarters_of_their_location(seed: int) -> None:
    torch.manual_seed(seed)
    head = SegmentationHead(6, 3, subpixel=True).eval()
    x = torch.randn(2, 6, 4, 5)
    with torch.inference_mode():
        logits = head(x)
    assert logits.shape == (2, 3, 8, 10)
    weight, bias = head.classify.weight[..., 0, 0], head.classify.bias
    assert bias is not None
    for row in range(8):
        for column in range(10):
            quarter = [4 * c + 2 * (row % 2) + column % 2 for c in range(3)]
            expected = x[:, :, row // 2, column // 2] @ weight[quarter].T + bias[quarter]
            torch.testing.assert_close(logits[:, :, row, column], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 96), (65, 99)])
def test_subpixel_logits_of_the_network_have_stride_2(size: tuple[int, int]) -> None:
    network = SegmentationDetectionNetwork(5, WIDTHS, subpixel=True, separable=True).eval()
    with torch.inference_mode():
        logits = network(torch.zeros(1, 3, *size))["class_logits"]
    assert logits.shape == (1, 5, 2 * -(-size[0] // 4), 2 * -(-size[1] // 4))


def test_separable_convolutions_have_a_third_of_the_weights() -> None:
    channels = {2: 16, 4: 24, 8: 40, 16: 112, 32: 320}
    widths = {4: 64, 8: 96, 16: 128, 32: 128}

    def weights(separable: bool) -> int:
        pyramid = FeaturePyramid(channels, widths, separable=separable)
        return sum(p.numel() for p in pyramid.smooth.parameters())

    dense = sum(9 * w * w + 2 * w for w in (64, 96, 128))
    assert weights(False) == dense
    assert weights(True) == sum(2 * (9 * w + w * w + 4 * w) for w in (64, 96, 128)) < dense / 3
