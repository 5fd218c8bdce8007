"""Model files read back into networks: what they compute is what the file computes, checked with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from torch import nn  # noqa: E402

import perception.classics  # noqa: E402, F401 - one of its networks is read
from perception.errors import ModelError  # noqa: E402
from perception.networks.camera import normalise  # noqa: E402
from perception.training.export.export import export_network  # noqa: E402
from perception.training.recipes.read import read_config  # noqa: E402
from perception.training.tasks.kinds import build_network, task_type  # noqa: E402
from perception.training.tasks.start import start_from  # noqa: E402
from perception.training.weights.half_weights import store_in_half  # noqa: E402
from perception.training.weights.onnx_import import load_onnx_weights, measure_norms  # noqa: E402
from perception.weights.library import find_model  # noqa: E402

CONFIGS = Path(__file__).parents[2] / "configs"
SMOKE = CONFIGS / "train" / "street-smoke.yaml"
FRAMES = np.random.default_rng(3).integers(0, 256, (3, 64, 96, 3), np.uint8)


def as_images(frames: np.ndarray) -> torch.Tensor:
    return normalise(torch.from_numpy(frames).flip(3).permute(0, 3, 1, 2).float())


IMAGES = as_images(FRAMES)


def lively(network: nn.Module, seed: int) -> nn.Module:
    """Norms as training leaves them: no two alike, scales of both signs."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                shape = module.weight.shape
                module.weight.copy_(torch.randn(shape, generator=generator) * 0.3 + 0.9)
                module.bias.copy_(torch.randn(shape, generator=generator) * 0.3)
                module.running_mean.copy_(torch.randn(shape, generator=generator) * 0.2)
                module.running_var.copy_(torch.rand(shape, generator=generator) + 0.5)
        if getattr(network, "detector", None) is not None:
            network.detector.log_scales.copy_(torch.tensor([0.8, 1.1, 1.3]))
    return network


def computed(path: Path, frames: np.ndarray = FRAMES) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"frames": frames}), strict=True))


def assert_same(
    network: nn.Module, expected: dict[str, np.ndarray], images: torch.Tensor = IMAGES, bound: float = 1e-4
) -> None:
    with torch.inference_mode():
        results = network.eval()(images)
    for name, truth in expected.items():
        error = np.abs(results[name].numpy() - truth).max()
        assert error <= bound * max(1.0, np.abs(truth).max()), name


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "recipe",
    [
        "train/street-smoke.yaml",
        "train/street.yaml",
        "train/camvid.yaml",
        "classics/fcn-8s-camvid.yaml",
        "classics/mini-alexnet-v4-cifar10.yaml",
    ],
)
def test_a_network_computes_what_its_file_does(recipe: str, seed: int, tmp_path: Path) -> None:
    config = read_config(CONFIGS / recipe)
    torch.manual_seed(seed)
    path = tmp_path / "model.onnx"
    export_network(lively(build_network(config), seed), task_type(config).card(config, {}), path)
    model = onnx.load(str(path))
    store_in_half(model)  # as shipped
    onnx.save(model, str(path))
    frames = FRAMES[:, :32, :32] if "alexnet" in recipe else FRAMES  # dense layers take one size
    images = as_images(np.ascontiguousarray(frames))
    expected = computed(path, frames)

    network = build_network(config)
    found = load_onnx_weights(network, path, images[:1])
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    assert found.norms == (
        0 if "alexnet" in recipe else norms
    )  # AlexNet's come behind activations: they are in the file
    assert not found.missing
    assert_same(network, expected, images)
    measure_norms(network, [images[:2], images[2:]])
    assert_same(network, expected, images)


def test_measured_statistics_are_those_of_the_pictures() -> None:
    config = read_config(SMOKE)
    network = lively(build_network(config), 5)
    measure_norms(network, [IMAGES[:1], IMAGES[1:]])
    seen: dict[nn.Module, torch.Tensor] = {}
    norm = network.backbone.stages[2][0].layers[0][1]
    norm.register_forward_pre_hook(lambda module, args: seen.update({module: args[0]}))
    with torch.inference_mode():
        network.eval()(IMAGES)
    values = seen[norm].transpose(0, 1).flatten(1)
    torch.testing.assert_close(norm.running_mean, values.mean(1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(norm.running_var, values.var(1, unbiased=False), rtol=1e-3, atol=1e-4)


def test_the_shipped_model_is_a_start_by_its_name() -> None:
    config = read_config(CONFIGS / "train" / "street.yaml")
    network = build_network(config)
    start_from(network, Path("street"), lambda: [IMAGES])
    expected = computed(find_model("street"))
    assert_same(network, {"class_logits": expected["class_logits"]})
    # A filter that the levels share is in the file once for each, folded with another norm and rounded to half
    # precision anew: the finest level is read back exactly, the others differ by that rounding, 2 ** -11.
    assert_same(network, expected, bound=1e-3)
    with torch.inference_mode():
        results = network(IMAGES)
    finest = (FRAMES.shape[1] // 8) * (FRAMES.shape[2] // 8)
    for name in ("boxes", "scores"):
        mine, truth = results[name][:, :finest].numpy(), expected[name][:, :finest]
        assert np.abs(mine - truth).max() <= 1e-5 * max(1.0, np.abs(truth).max()), name


def test_heads_of_other_classes_are_learnt_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = build_network(read_config(SMOKE))  # two classes of boxes, three of pixels
    before = network.head.classify.weight.clone()
    with caplog.at_level("INFO", logger="perception"):
        found = load_onnx_weights(network, find_model("street"), IMAGES[:1])
    assert f"{found.norms} of " in caplog.text
    assert "head.classify.weight" in found.missing
    assert torch.equal(network.head.classify.weight, before)


def test_a_first_layer_that_does_not_fit_keeps_its_channels_in_order(tmp_path: Path) -> None:
    config = read_config(SMOKE)
    network = build_network(config)
    path = tmp_path / "model.onnx"
    export_network(build_network(config), task_type(config).card(config, {}), path)
    model = onnx.load(str(path))
    (first,) = [n for n in model.graph.node if n.name.startswith("/network/backbone/stem") and n.op_type == "Conv"]
    first.name = "/network/elsewhere/Conv"
    onnx.save(model, str(path))
    before = network.first_convolution.weight.clone()
    assert load_onnx_weights(network, path, IMAGES[:1]).norms > 50
    assert torch.equal(network.first_convolution.weight, before)


def test_faults_are_one_line(tmp_path: Path) -> None:
    network = build_network(read_config(SMOKE))
    (tmp_path / "noise.onnx").write_bytes(b"\x00\x01 no model")
    other = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Identity", ["x"], ["y"])],
            "other",
            [onnx.helper.make_tensor_value_info("x", 1, [1])],
            [onnx.helper.make_tensor_value_info("y", 1, [1])],
        )
    )
    onnx.save(other, str(tmp_path / "other.onnx"))
    for path, message in (
        (tmp_path / "absent.onnx", "no such model"),
        (tmp_path / "noise.onnx", "cannot read this model"),
        (tmp_path / "other.onnx", "nothing in this model fits"),
        (find_model("street-int8"), "eight-bit weights cannot be trained"),
    ):
        with pytest.raises(ModelError, match=message) as caught:
            load_onnx_weights(network, path, IMAGES[:1])
        assert "\n" not in str(caught.value)
