"""Heat maps against models whose gradients are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("captum")
onnx = pytest.importorskip("onnx")

import cv2  # noqa: E402
import yaml  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from perception.card import ModelCard, write_card  # noqa: E402
from perception.commands.main import app  # noqa: E402
from perception.errors import ModelError, PerceptionError, UsageError  # noqa: E402
from perception.explain.maps import METHODS, Method, explain  # noqa: E402
from perception.explain.tiles import CAPTION, MARGIN  # noqa: E402
from tests.foreign.graphs import Net  # noqa: E402
from tests.noise import noise  # noqa: E402

W, H = 64, 48
METHOD = pytest.mark.parametrize("method", METHODS)


def save(path: Path, nodes: list, weights: dict[str, np.ndarray], outputs: list[str], **tasks: object) -> Path:
    """An ONNX file of the nodes behind a cast of ``frames`` to the floats ``x``, with a card."""
    graph = helper.make_graph(
        [helper.make_node("Cast", ["frames"], ["x"], to=TensorProto.FLOAT), *nodes],
        "test",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["n", H, W, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    card = {"name": "test", "licence": "free", "input": {"width": W, "height": H}, **tasks}
    write_card(model, ModelCard.model_validate(card))
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class ``left`` is how bright the left half is, ``right`` the right one; pixel classes are light and dark."""
    mask = np.zeros((2, 1, H, W, 1), np.float32)
    mask[0, ..., : W // 2, :] = 1 / (H * W)
    mask[1, ..., W // 2 :, :] = 1 / (H * W)
    nodes = [
        helper.make_node("Mul", ["x", "left"], ["a"]),
        helper.make_node("Mul", ["x", "right"], ["b"]),
        helper.make_node("ReduceSum", ["a", "axes"], ["sa"], keepdims=0),
        helper.make_node("ReduceSum", ["b", "axes"], ["sb"], keepdims=0),
        helper.make_node("Unsqueeze", ["sa", "one"], ["ua"]),
        helper.make_node("Unsqueeze", ["sb", "one"], ["ub"]),
        helper.make_node("Concat", ["ua", "ub"], ["logits"], axis=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["t"], ["p"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Conv", ["p", "mix", "bias"], ["class_logits"]),
    ]
    weights = {
        "left": mask[0], "right": mask[1], "axes": np.array([1, 2, 3]), "one": np.array([1]),
        "mix": np.array([[1, 1, 1], [-1, -1, -1]], np.float32).reshape(2, 3, 1, 1) / 3,
        "bias": np.array([0, 200], np.float32),
    }  # fmt: skip
    return save(
        tmp_path_factory.mktemp("halves") / "halves.onnx", nodes, weights, ["probabilities", "class_logits"],
        classification={"classes": ["left", "right"]}, segmentation={"classes": ["light", "dark"]},
    )  # fmt: skip


def picture(seed: int = 0) -> np.ndarray:
    """A bright picture twice as large as the network's input."""
    return np.random.default_rng(seed).integers(150, 256, (2 * H, 2 * W, 3), np.uint8)


@METHOD
@pytest.mark.parametrize("name", ["left", "right"])
def test_a_class_is_explained_by_the_pixels_that_it_is_made_of(halves: Path, method: Method, name: str) -> None:
    made = explain(halves, picture(), method=method, class_name=name, samples=3, patches=16)
    assert made.saliency.shape == (2 * H, 2 * W)
    assert made.saliency.dtype == np.float32
    assert made.saliency.min() >= 0 and made.saliency.max() <= 1
    own, other = made.saliency[:, :W], made.saliency[:, W:]
    if name == "right":
        own, other = other[:, ::-1], own[:, ::-1]
    border = 10  # patches and the enlargement reach over the middle
    assert own[:, : W - border].mean() > 0.5
    assert other[:, border:].max() < 1e-6
    assert made.picture().shape == (2 * H, 2 * W, 3)


@METHOD
def test_a_pixel_is_explained_by_its_cell(halves: Path, method: Method) -> None:
    # x 70..71 and y 40..41 of the frame are in cell (4, 2) of 8x8 input pixels, 64..79 and 32..47 of the frame
    made = explain(halves, picture(1), method=method, at=(71, 41), task="segmentation", samples=3, patches=16)
    assert made.what.startswith("light")
    inside = np.zeros((2 * H, 2 * W), bool)
    inside[32:48, 64:80] = True
    assert made.saliency[34:46, 66:78].min() > 0.1
    near = cv2.dilate(inside.astype(np.uint8), np.ones((35, 35), np.uint8)).astype(bool)  # two patches of occlusion
    assert made.saliency[~near].max(initial=0) < 1e-6


def test_all_pixels_of_a_class(halves: Path) -> None:
    image = picture(2)
    image[:, :W] = 0  # the left half is dark
    made = explain(halves, image, method="gradient", class_name="dark", task="segmentation")
    assert "dark (50% of the pixels)" in made.what
    assert made.saliency[:, : W - 4].min() > 0.5 and made.saliency[:, W + 4 :].max() < 1e-6
    with pytest.raises(UsageError, match="finds no dark in this picture"):
        explain(halves, picture(), method="gradient", class_name="dark", task="segmentation")


@pytest.mark.parametrize("kind", ["Relu", "Clip", "Clip in nodes"])
def test_what_relus_let_back(tmp_path: Path, kind: str) -> None:
    """v * relu(x + b): the gradient has v where x + b > 0, the deconvnet where v > 0, guided where both are."""
    v, b = np.ones((1, H, W, 3), np.float32), np.zeros((1, H, W, 3), np.float32)
    v[:, :, W // 2 :] = -1
    b[:, H // 2 :] = -1000
    nodes = [helper.make_node("Add", ["x", "b"], ["s"])]
    weights = {"v": v, "b": b, "axes": np.array([1, 2]), "last": np.array([2])}
    if kind == "Relu":
        nodes.append(helper.make_node("Relu", ["s"], ["r"]))
    else:
        limits = {"low": np.array(0, np.float32), "high": np.array(1e5, np.float32)}
        if kind == "Clip":
            weights |= limits
        else:
            for name, value in limits.items():
                nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value)))
        nodes.append(helper.make_node("Clip", ["s", "low", "high"], ["r"]))
    nodes += [
        helper.make_node("Mul", ["r", "v"], ["m"]),
        helper.make_node("ReduceSum", ["m", "axes"], ["sum"], keepdims=0),
        helper.make_node("ReduceMean", ["sum"], ["probabilities"], axes=[1], keepdims=1),
    ]
    model = save(tmp_path / "relu.onnx", nodes, weights, ["probabilities"], classification={"classes": ["thing"]})
    quadrants = {}
    for method in ("gradient", "guided", "deconvnet"):
        heat = explain(model, picture()[:H, :W], method=method).saliency
        quadrants[method] = [float(heat[y, x]) for y in (H // 4, 3 * H // 4) for x in (W // 4, 3 * W // 4)]
    assert quadrants == {"gradient": [1, 1, 0, 0], "guided": [1, 0, 0, 0], "deconvnet": [1, 0, 1, 0]}


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two boxes; the score of each is the brightness inside it."""
    mask = np.zeros((1, 2, H, W), np.float32)
    mask[0, 0, 8:24, 8:24] = 1 / (256 * 256)
    mask[0, 1, 24:40, 40:56] = 0.5 / (256 * 256)
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["grey"], axes=[3], keepdims=0),
        helper.make_node("Unsqueeze", ["grey", "one"], ["g"]),
        helper.make_node("Mul", ["g", "mask"], ["m"]),
        helper.make_node("ReduceSum", ["m", "axes"], ["sum"], keepdims=0),
        helper.make_node("Unsqueeze", ["sum", "two"], ["scores"]),
        helper.make_node("Identity", ["fixed"], ["boxes"]),
    ]
    fixed = np.array([[[8, 8, 24, 24], [40, 24, 56, 40]]], np.float32)
    weights = {
        "mask": mask, "fixed": fixed, "one": np.array([1]), "two": np.array([2]), "axes": np.array([2, 3]),
    }  # fmt: skip
    path = tmp_path_factory.mktemp("boxes") / "boxes.onnx"
    return save(path, nodes, weights, ["boxes", "scores"], detection={"classes": ["car"]})


@pytest.mark.parametrize("method", ["gradient", "guided", "smoothgrad", "occlusion"])
@pytest.mark.parametrize("at", [None, (100, 60)])
def test_a_detection_is_explained_by_its_box(boxes: Path, method: Method, at: tuple[int, int] | None) -> None:
    made = explain(boxes, picture(), method=method, class_name="car", at=at, samples=2, patches=16)
    x0, y0, x1, y1 = (16, 16, 48, 48) if at is None else (80, 48, 112, 80)
    assert made.box == pytest.approx((x0, y0, x1, y1))
    assert made.saliency[y0 + 3 : y1 - 3, x0 + 3 : x1 - 3].min() > 0.1
    away = np.ones_like(made.saliency, bool)
    away[max(y0 - 17, 0) : y1 + 17, max(x0 - 17, 0) : x1 + 17] = False
    assert made.saliency[away].max() < 1e-6


def test_the_same_call_gives_the_same_map(halves: Path) -> None:
    a, b = (explain(halves, picture(), method="smoothgrad", samples=2).saliency for _ in range(2))
    assert np.array_equal(a, b)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_name": "lefty"}, "test has no class 'lefty'; did you mean left"),
        ({"class_name": "zebra"}, "it has: left, right, light, dark"),
        ({"task": "detection"}, "test does not do detection, only classification, segmentation"),
        ({"at": (500, 2), "task": "segmentation"}, "outside the picture of 128x96"),
        ({"method": "magic"}, "unknown method 'magic'"),
        ({"class_name": "light", "task": "classification"}, "has no class 'light'"),
    ],
)
def test_faults_are_one_line(halves: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(PerceptionError, match=message) as error:
        explain(halves, picture(), **options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_no_box_there(boxes: Path) -> None:
    with pytest.raises(UsageError, match="no box around that point"):
        explain(boxes, picture(), method="gradient", at=(2, 2))


def test_an_operation_without_gradients_is_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("Celu", ["x"], ["probabilities"])]
    model = save(tmp_path / "odd.onnx", nodes, {}, ["probabilities"], classification={"classes": ["thing"]})
    with pytest.raises(ModelError, match="no gradients for Celu"):
        explain(model, picture(), method="gradient")


def test_the_command_writes_every_method_side_by_side(halves: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), picture())
    command = ["explain", str(halves), str(tmp_path / "in.png"), "-o", str(tmp_path / "heat.png")]
    result = CliRunner().invoke(app, [*command, "--method", "all", "--class", "right"])
    assert result.exit_code == 0, result.output
    for method in METHODS:
        assert f"{method}: right" in result.output
    made = cv2.imread(str(tmp_path / "heat.png"))
    assert made.shape == (2 * (2 * H + CAPTION), 3 * 2 * W + 2 * MARGIN, 3)
    assert [p.name for p in tmp_path.glob("*.part")] == []
    again = CliRunner().invoke(app, command)
    assert isinstance(again.exception, UsageError)
    assert "the file exists" in str(again.exception)
    for bad, message in (
        (["--overwrite", "--at", "here"], "a point is X,Y"),
        (["--overwrite", "--class", "x"], "no class"),
    ):
        refused = CliRunner().invoke(app, [*command, *bad])
        assert message in str(refused.exception)


def test_a_foreign_model_is_explained_by_its_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perception.engines.cache.compiled_models_dir", lambda engine: tmp_path / "cache" / engine)
    net = Net(32, 24)
    net.output(net.conv(4, 4), "logits", ["batch", 4, 6, 8])
    onnx.save(net.build(), str(tmp_path / "foreign.onnx"))
    card = {
        "name": "foreign", "licence": "MIT", "input": {"width": 32, "height": 24},
        "segmentation": {"classes": ["a", "b", "c", "d"]},
        "adapter": {"input": {"scale": "1/255", "channels": "BGR"}, "segmentation": {"values": "logits"}},
    }  # fmt: skip
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    image = noise(24, 32, 3)
    made = explain(tmp_path / "foreign.onnx", image, card=tmp_path / "card.yaml", method="gradient", at=(20, 9))
    assert made.what.endswith(" at the point")
    inside = np.zeros((24, 32), np.bool_)
    inside[8:12, 20:24] = True  # what a convolution of 4x4 in steps of 4 sees
    assert made.saliency[inside].max() == 1
    assert not made.saliency[~inside].any()
