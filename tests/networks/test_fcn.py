"""FCN-32s/16s/8s and torchvision's backbones."""

from __future__ import annotations

from typing import ClassVar

import pytest

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

import torch.nn.functional as F  # noqa: E402

from perception.networks.backbone import build_backbone  # noqa: E402
from perception.networks.camera import normalise  # noqa: E402
from perception.networks.fcn import FCN, STRIDE, DoublingConv, FCNHead  # noqa: E402
from perception.networks.lite import EfficientNetLite  # noqa: E402
from perception.networks.segmentation_detection import SegmentationDetectionNetwork  # noqa: E402
from perception.networks.torchvision_backbone import IMAGENET_MEAN, IMAGENET_STD, STAGES  # noqa: E402


def test_doubling_starts_as_bilinear_interpolation() -> None:
    x = torch.randn(2, 3, 5, 7)
    expected = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    # At the rim interpolation repeats the last cell, the convolution sees zeros.
    torch.testing.assert_close(DoublingConv(3)(x)[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


@pytest.mark.parametrize("size", [(64, 96), (65, 99), (72, 104)])
@pytest.mark.parametrize("finest", [32, 16, 8])
def test_logits_have_one_stride_whatever_the_finest_skip(finest: int, size: tuple[int, int]) -> None:
    network = FCN(5, EfficientNetLite(), finest).eval()
    with torch.inference_mode():
        logits = network(torch.zeros(2, 3, *size))["class_logits"]
        assert network(torch.zeros(2, 3, *size), 1)["class_logits"].shape[0] == 1
        features = network.backbone(torch.zeros(2, 3, *size))
        assert network.head(features).shape == (2, 5, -(-size[0] // finest), -(-size[1] // finest))
    assert logits.shape == (2, 5, -(-size[0] // STRIDE), -(-size[1] // STRIDE))


class Ruler(torch.nn.Module):
    """A backbone whose features say where their cells are: x and y of their centres in pixels."""

    channels: ClassVar = {8: 2, 16: 2, 32: 2}

    def forward(self, images: torch.Tensor) -> dict[int, torch.Tensor]:
        features = {}
        for stride in self.channels:
            y, x = (torch.arange(-(-side // stride)) * stride + stride / 2 for side in images.shape[2:])
            features[stride] = torch.stack(torch.meshgrid(x, y, indexing="xy"))[None]
        return features


@pytest.mark.parametrize("size", [(360, 480), (128, 192), (136, 168)])  # whole cells of 32 pixels, and parts of them
@pytest.mark.parametrize("finest", [32, 16, 8])
def test_logits_lie_over_the_picture_from_edge_to_edge(finest: int, size: tuple[int, int]) -> None:
    network = FCN(2, Ruler(), finest).eval()  # type: ignore[arg-type]
    with torch.inference_mode():
        network.head.score["32"].weight.copy_(torch.eye(2)[:, :, None, None])
        logits = network(torch.zeros(1, 3, *size))["class_logits"]
        found = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)[0]  # as loss and runtime do
    inside = (slice(48, size[0] - 48), slice(48, size[1] - 48))  # the rims repeat the last cell, or see zeros
    y, x = torch.meshgrid(torch.arange(size[0]) + 0.5, torch.arange(size[1]) + 0.5, indexing="ij")
    assert x[inside].numel()
    torch.testing.assert_close(found[0][inside], x[inside], atol=1e-3, rtol=0)
    torch.testing.assert_close(found[1][inside], y[inside], atol=1e-3, rtol=0)


def test_skips_start_at_nothing_and_learn() -> None:
    torch.manual_seed(0)
    features = {s: torch.randn(1, 4, 64 // s, 64 // s) for s in (8, 16, 32)}
    head = FCNHead({8: 4, 16: 4, 32: 4}, 3, 8, dropout=0)
    coarse = FCNHead({8: 4, 16: 4, 32: 4}, 3, 32, dropout=0)
    coarse.score["32"].load_state_dict(head.score["32"].state_dict())
    once = head.doubling["16"](coarse(features))
    torch.testing.assert_close(head(features), head.doubling["8"](once))
    head(features).square().sum().backward()
    assert head.score["8"].weight.grad.abs().sum() > 0


def test_finest_must_be_a_stride_of_the_paper() -> None:
    with pytest.raises(ValueError, match="must be 32, 16 or 8, not 4"):
        FCNHead({32: 4}, 3, 4)


@pytest.mark.parametrize("name", sorted(STAGES))
def test_torchvision_backbones_have_their_strides(name: str) -> None:
    backbone = build_backbone(name).eval()
    with torch.inference_mode():
        features = backbone(torch.zeros(1, 3, 65, 96))
    assert {s: tuple(f.shape[-2:]) for s, f in features.items()} == {
        s: (-(-65 // s), 96 // s) for s in (2, 4, 8, 16, 32)
    }
    assert {s: f.shape[1] for s, f in features.items()} == backbone.channels
    assert backbone.first_convolution.weight.shape[1] == 3


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "resnet18"])
def test_imagenet_weights_give_torchvisions_features(name: str) -> None:
    torch.manual_seed(0)
    original = getattr(torchvision.models, name)(weights=None).eval()
    for norm in original.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(norm.running_mean)
            torch.nn.init.uniform_(norm.running_var, 0.5, 2)
    backbone = build_backbone(name).eval()
    backbone.take(original.state_dict())
    pixels = torch.randint(0, 256, (1, 3, 128, 128)).float()
    theirs = (pixels / 255 - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    stages = dict(STAGES[name])
    seen = {}
    original.get_submodule(stages[4]).register_forward_hook(lambda *a: seen.update(x=a[2]))
    with torch.inference_mode():
        original(theirs)
        features = backbone(normalise(pixels))
    inside = (..., slice(6, -6), slice(6, -6))  # the rim sees the padding
    torch.testing.assert_close(features[4][inside], seen["x"][inside], rtol=1e-3, atol=1e-3)


def test_an_unknown_backbone_is_named() -> None:
    with pytest.raises(ValueError, match="no backbone 'vgg16'; there are efficientnet_lite0, "):
        build_backbone("vgg16")


def test_the_pyramid_stands_on_any_backbone() -> None:
    network = SegmentationDetectionNetwork(4, {4: 8, 8: 8, 16: 8, 32: 8}, backbone=build_backbone("resnet18")).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 65, 96))["class_logits"].shape == (1, 4, 17, 24)
