"""Narrower networks from trained ones: the choice against brute force, whole networks against wider copies of them."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from perception.networks.detector import DetectionHead  # noqa: E402
from perception.networks.lite import EfficientNetLite  # noqa: E402
from perception.networks.segmentation_detection import SegmentationDetectionNetwork  # noqa: E402
from perception.training.recipes.read import parse_config, read_config  # noqa: E402
from perception.training.recipes.segmentation_detection import SegmentationDetectionConfig  # noqa: E402
from perception.training.tasks.networks import build_segmentation_detection  # noqa: E402
from perception.training.tasks.start import start_from_imagenet  # noqa: E402
from perception.training.weights.prune import is_narrower, keep, prune  # noqa: E402

SMOKE = Path(__file__).parents[2] / "configs" / "train" / "street-smoke.yaml"

HIDDEN = [8 + i % 3 for i in range(15)]


def seen(draw: np.random.Generator, places: int, channels: int) -> np.ndarray:
    """Values of channels that depend on each other ``[places, channels]``."""
    mix = np.eye(channels) + draw.normal(scale=0.3, size=(channels, channels))
    return draw.normal(size=(places, channels)) @ mix + draw.normal(size=channels)


def rest(x: np.ndarray, y: np.ndarray, kept: list[int]) -> tuple[float, np.ndarray]:
    """What least squares over the kept channels and a constant leave of y, and its weights ``[O, len(kept)]``."""
    inputs = np.column_stack([x[:, kept], np.ones(len(x))])
    solution = np.linalg.lstsq(inputs, y, rcond=None)[0]
    return float(((y - inputs @ solution) ** 2).sum() / ((y - y.mean(0)) ** 2).sum()), solution[:-1].T


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("readers", [1, 2])
def test_each_step_drops_what_least_squares_miss_least(seed: int, readers: int) -> None:
    draw = np.random.default_rng(seed)
    weights = [draw.normal(size=(5, 7)) for _ in range(readers)]
    xs = [seen(draw, 400, 7) for _ in range(readers)]
    covariances = [torch.from_numpy(np.cov(x.T, bias=True)) for x in xs]
    kept = list(range(7))
    for wanted in range(6, 2, -1):
        choices = [
            (sum(rest(x, x @ w.T, list(s))[0] for x, w in zip(xs, weights, strict=True)), s)
            for s in combinations(kept, wanted)
        ]
        kept = list(min(choices)[1])
        found, made = keep([torch.from_numpy(w) for w in weights], covariances, wanted)
        assert found.tolist() == kept
        for x, w, new in zip(xs, weights, made, strict=True):
            np.testing.assert_allclose(new.numpy(), rest(x, x @ w.T, kept)[1], rtol=0.02, atol=0.02)


def network(hidden: list[int], width: int, depth: int = 2) -> SegmentationDetectionNetwork:
    return SegmentationDetectionNetwork(
        3,
        {4: 8, 8: 8, 16: 8, 32: 8},
        detection=lambda channels: DetectionHead(channels, 2, (8, 16, 32), width, depth),
        backbone=EfficientNetLite(hidden=hidden),
    ).eval()


def randomise(module: nn.Module, seed: int) -> None:
    """Norms and biases that are not those of a new network."""
    torch.manual_seed(seed)
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0.5, 0.3)
        nn.init.normal_(norm.running_mean, 0, 0.1)
        nn.init.uniform_(norm.running_var, 0.5, 2)


def widen(narrow: nn.Module, wide: nn.Module) -> None:
    """Make ``wide`` compute what ``narrow`` does, with copies of some of its channels that share the work."""
    state = {}
    source = narrow.state_dict()
    for name, target in wide.state_dict().items():
        value = source[name]
        for axis, size in enumerate(target.shape):
            if size != value.shape[axis]:
                index = torch.arange(size) % value.shape[axis]
                value = value.index_select(axis, index)
                if axis == 1:  # weights of what reads the copies
                    counts = torch.bincount(index)[index]
                    value = value / counts[None, :, None, None]
        state[name] = value
    wide.load_state_dict(state)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    for name in ("class_logits", "box_class_logits", "box_confidence_logits", "boxes"):
        torch.testing.assert_close(a[name], b[name], rtol=2e-2, atol=2e-2 * float(a[name].std()))


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_channels_that_only_repeat_others_go_without_a_trace(depth: int) -> None:
    teacher = network(HIDDEN, 12, depth)
    randomise(teacher, depth)
    wide = network([int(h * 1.5) for h in HIDDEN], 19, depth)
    widen(teacher, wide)
    pictures = torch.randn(6, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted = teacher(pictures)
        same(wanted, wide(pictures))
        narrow = network(HIDDEN, 12, depth)
        assert is_narrower(narrow, wide.state_dict())
        prune(wide, narrow, pictures.split(2))
        same(wanted, narrow.eval()(pictures))


def test_what_is_left_makes_up_for_what_is_gone() -> None:
    """Closer to the wide network than the same channels with their old weights."""
    wide, narrow = network([24] * 15, 16), network([16] * 15, 12)
    randomise(wide, 5)
    pictures = torch.randn(8, 3, 96, 96, generator=torch.Generator().manual_seed(2))
    prune(wide, narrow, pictures.split(4))
    fresh = torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        wanted = wide(fresh)["class_logits"]
        ours = narrow.eval()(fresh)["class_logits"]
        state = narrow.state_dict()
        for name in [n for n in state if n.startswith("backbone.") and n.endswith("layers.2.0.weight")]:
            old = wide.state_dict()[name]
            chosen = [int((old - column).square().sum((0, 2, 3)).argmin()) for column in state[name].split(1, 1)]
            state[name] = old[:, chosen]
        narrow.load_state_dict(state)
        cut = narrow(fresh)["class_logits"]
    assert (ours - wanted).square().mean() < 0.5 * (cut - wanted).square().mean()


def test_what_cannot_be_slimmed_is_told() -> None:
    ours = network([16] * 15, 12)
    assert not is_narrower(ours, ours.state_dict()), "the same"
    assert is_narrower(ours, network([17, *[16] * 14], 12).state_dict())
    assert not is_narrower(ours, network([15, *[16] * 14], 12).state_dict()), "wider than what it would start from"
    assert not is_narrower(ours, network([15, 17, *[16] * 13], 12).state_dict()), "both"
    assert not is_narrower(ours, network([17] * 15, 12, depth=1).state_dict()), "other layers"
    other = network([17] * 15, 12).state_dict()
    other["pyramid.lateral.4.0.weight"] = torch.zeros(9, 24, 1, 1)
    assert not is_narrower(ours, other), "a layer that cannot be narrower"


@pytest.mark.parametrize("hidden", [[16] * 14, [16] * 16, []])
def test_every_block_wants_its_number(hidden: list[int]) -> None:
    with pytest.raises(ValueError, match="each of the 15 expanding blocks"):
        EfficientNetLite(hidden=hidden)


@pytest.mark.slow
def test_a_pruned_backbone_starts_from_imagenet() -> None:
    """It is nearer to ImageNet's features than the same channels in their first places would be."""
    data = read_config(SMOKE).model_dump(mode="json")
    data["network"] |= {"pretrained": True, "hidden": [48, *[80] * 14]}
    recipe = parse_config(data, "recipe")
    assert isinstance(recipe, SegmentationDetectionConfig)
    assert recipe.network.prunes_imagenet
    narrow = build_segmentation_detection(recipe)
    pictures = [torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    start_from_imagenet(narrow, recipe, lambda: pictures)
    wide = EfficientNetLite()
    wide.load_imagenet()
    backbone = narrow.backbone.eval()
    with torch.inference_mode():
        wanted, got = wide.eval()(pictures[0]), backbone(pictures[0])
        untrained = build_segmentation_detection(recipe).backbone.eval()(pictures[0])

    def lost(features: dict[int, Tensor]) -> float:
        return float((features[4] - wanted[4]).square().mean() / wanted[4].square().mean())

    assert lost(got) < 0.5
    assert lost(got) < 0.5 * lost(untrained)
