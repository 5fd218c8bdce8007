"""Dense layers as convolutions: equal on the training size, and to sliding the original window by window."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from perception.classics.fully_convolutional import to_fully_convolutional  # noqa: E402
from perception.classics.localisation.network import Localiser  # noqa: E402
from perception.classics.localisation.sliding import SlidingWindowDetector  # noqa: E402
from perception.errors import ModelError, PerceptionError, UsageError  # noqa: E402
from perception.networks.classifier import build_classifier  # noqa: E402
from perception.networks.lite import EfficientNetLite, stages_up_to  # noqa: E402


def ready(name: str, classes: int | None = None) -> nn.Module:
    """A classifier with weights, biases and statistics that are all its own."""
    torch.manual_seed(3)
    network = build_classifier(name, classes).eval()
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.bias, std=0.1)
    return network


def slid(network: nn.Module, images: Tensor, window: int, step: int) -> Tensor:
    """The network on every window, one by one, ``[N, C, rows, columns]``."""
    rows = range(0, images.shape[2] - window + 1, step)
    columns = range(0, images.shape[3] - window + 1, step)
    results = [[network(images[:, :, y : y + window, x : x + window]) for x in columns] for y in rows]
    return torch.stack([torch.stack(row, 2) for row in results], 2)


@pytest.mark.parametrize(
    "name",
    [
        "lenet5", "lenet5_v2", "lenet_color", "mini_alexnet_v1", "mini_alexnet_v4", "three_blocks",
        "efficientnet_lite0", "torchvision:resnet18",
    ],
)  # fmt: skip
def test_on_the_training_size_nothing_changes(name: str) -> None:
    network = ready(name, 7)
    shape = (3, 64, 64) if name in ("efficientnet_lite0", "torchvision:resnet18") else network.input_shape
    converted = to_fully_convolutional(network, shape)
    assert not [m for m in converted.modules() if isinstance(m, (nn.Linear, nn.BatchNorm1d))]
    images = torch.randn(2, *shape)
    with torch.inference_mode():
        maps, vectors = converted(images), network(images)
    assert maps.shape == (2, 7, 1, 1)
    torch.testing.assert_close(maps.flatten(1), vectors, rtol=1e-5, atol=1e-5)
    assert converted.window == shape[1:]


# the networks without padding, for which every window is exactly what it was alone
@pytest.mark.parametrize(("name", "step"), [("lenet5", 4), ("lenet5_v2", 4), ("lenet_color", 4)])
@pytest.mark.parametrize("extra", [(0, 4), (12, 20), (15, 3)])
def test_it_equals_sliding_the_window_over_the_image(name: str, step: int, extra: tuple[int, int]) -> None:
    network = ready(name)
    channels, height, width = network.input_shape
    converted = to_fully_convolutional(network, network.input_shape)
    assert converted.step == (step, step)
    images = torch.randn(2, channels, height + extra[0], width + extra[1])
    with torch.inference_mode():
        torch.testing.assert_close(converted(images), slid(network, images, height, step), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["lenet5", "lenet_color"])
def test_windows_are_not_all_alike(name: str) -> None:
    """The comparison above could not fail if they were."""
    network = ready(name)
    channels, height, width = network.input_shape
    maps = to_fully_convolutional(network, network.input_shape)(torch.randn(1, channels, height + 8, width + 8))
    assert maps.std((2, 3)).min() > 1e-3


def test_a_224_network_gives_8x8_on_448() -> None:
    network = ready("efficientnet_lite0", 5)
    converted = to_fully_convolutional(network, (3, 224, 224))
    with torch.inference_mode():
        assert converted(torch.zeros(1, 3, 448, 448)).shape == (1, 5, 8, 8)
    assert (converted.window, converted.step) == ((224, 224), (32, 32))


def test_vgg16_has_convolutions_of_7x7_and_1x1() -> None:
    network = nn.Sequential(  # VGG's own dense part, on fewer maps
        nn.Conv2d(3, 8, 3, 32, 1), nn.ReLU(), nn.AdaptiveAvgPool2d((7, 7)), nn.Flatten(),
        nn.Linear(8 * 49, 32), nn.ReLU(True), nn.Dropout(), nn.Linear(32, 10), nn.Softmax(-1),
    )  # fmt: skip
    converted = to_fully_convolutional(network, (3, 224, 224))
    kernels = [m.kernel_size for m in converted.modules() if isinstance(m, nn.Conv2d)]
    assert kernels == [(3, 3), (7, 7), (1, 1)]
    with torch.inference_mode():
        maps = converted(torch.randn(1, 3, 448, 448))
    assert maps.shape == (1, 10, 8, 8)
    torch.testing.assert_close(maps.sum(1), torch.ones(1, 8, 8))


def test_global_pooling_slides_too() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    ).eval()
    converted = to_fully_convolutional(network, (3, 15, 15))
    images = torch.randn(1, 3, 21, 25)
    with torch.inference_mode():
        torch.testing.assert_close(converted(images), slid(network, images, 15, 2), rtol=1e-5, atol=1e-5)


def test_what_cannot_be_converted_says_why() -> None:
    with pytest.raises(ModelError, match="no dense layer behind maps"):
        to_fully_convolutional(nn.Sequential(nn.Conv2d(3, 4, 3)), (3, 8, 8))
    places = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.BatchNorm1d(144), nn.Linear(144, 2))
    with pytest.raises(ModelError, match="statistics for each place"):
        to_fully_convolutional(places, (3, 8, 8))
    with pytest.raises(PerceptionError, match="dense layer takes maps of 16x4x4"):
        to_fully_convolutional(build_classifier("lenet5"), (1, 32, 32))


class Decides(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_network_that_decides_by_values_is_told() -> None:
    with pytest.raises(ModelError, match="cannot be traced"):
        to_fully_convolutional(Decides(), (3, 8, 8))


@pytest.fixture(scope="module")
def localiser() -> Localiser:
    torch.manual_seed(2)
    network = Localiser(
        EfficientNetLite(stages_up_to(8)), 2, (32, 32), stride=8, maps=8, hidden=16, background=True, confidence=True
    )
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_var, 0.5, 2)
    nn.init.normal_(network.measure.weight, std=0.5)
    return network.eval()


def test_the_detector_places_each_windows_box(localiser: Localiser) -> None:
    """Its boxes and scores are those of the maps, window by window."""
    detector = SlidingWindowDetector(localiser, (64, 48), [1.0, 0.75]).eval()
    images = torch.randn(2, 3, 48, 64)
    with torch.inference_mode():
        found = detector(images)
        assert found["boxes"].shape == (2, 5 * 3 + 3 * 2, 4)
        assert found["scores"].shape == (2, 21, 2)
        maps = detector.network(images)
    # the window whose corner is at x = 16, y = 8 is in row 1, column 2 of five columns
    number = 1 * 5 + 2
    torch.testing.assert_close(found["boxes"][:, number], maps["box"][:, :, 1, 2] * 32 + torch.tensor([16.0, 8, 16, 8]))
    probability = maps["class_logits"][:, :, 1, 2].softmax(1)[:, :2]  # the third is the background
    confidence = maps["confidence_logits"][:, :, 1, 2].sigmoid()
    torch.testing.assert_close(found["scores"][:, number], probability * confidence)
    # at 3/4 the scene is 48x36: two rows of three windows (the second sticks out), boxes in pixels of the scene
    small = torch.nn.functional.interpolate(images, (36, 48), mode="bilinear")
    with torch.inference_mode():
        maps = detector.network(small)
    expected = (maps["box"][:, :, 0, 2] * 32 + torch.tensor([16.0, 0, 16, 0])) * 4 / 3
    torch.testing.assert_close(found["boxes"][:, 15 + 2], expected, rtol=1e-4, atol=1e-3)


def test_on_a_scene_of_one_window_it_is_the_localiser(localiser: Localiser) -> None:
    detector = SlidingWindowDetector(localiser, (32, 32), [1.0])
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        one, other = detector(images), localiser(images)
    for name in ("boxes", "scores"):
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-4)


def test_a_scene_smaller_than_a_window_is_told(localiser: Localiser) -> None:
    with pytest.raises(UsageError, match=r"at scale 0\.5 a scene of 48x40 is smaller than a window of 32x32"):
        SlidingWindowDetector(localiser, (48, 40), [1.0, 0.5])
