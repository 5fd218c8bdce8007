"""What a foreign graph is given: any layout, order, mean and scale, from one uint8 BGR frame."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from perception import ModelError
from perception.card import validate_card
from perception.engines import open_engine
from perception.foreign.adapt import adapt_model
from perception.foreign.adapter import ForeignCard
from tests.foreign.graphs import Net, prepare
from tests.noise import noise_frames

IMAGENET = {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
PLAIN = {"scale": 1, "mean": [0, 0, 0], "std": [1, 1, 1]}


def card(width: int = 32, height: int = 24, **image: Any) -> ForeignCard:
    data = {
        "name": "foreign", "licence": "MIT",
        "input": {"width": width, "height": height, **image.pop("own", {})},
        "segmentation": {"classes": ["a", "b", "c", "d"]},
        "adapter": {"input": {"channels": "RGB", "scale": 1} | image, "segmentation": {"values": "logits"}},
    }  # fmt: skip
    return validate_card(data, "card.yaml", ForeignCard)


def segmenter(net: Net, kind: str = "conv") -> Net:
    """Logits of 4 classes at stride 4. ``kind`` is what the first node is."""
    if kind == "relu":  # no convolution takes the image
        net.image = net("Relu", net.image)
    logits = net.conv(4, 4)
    if kind == "two":  # the convolution is not all that takes the image
        logits = net("Add", logits, net("AveragePool", net("ReduceMean", net.image, axes=[1]), kernel_shape=[4, 4],
                                        strides=[4, 4]))  # fmt: skip
    return net.output(logits, "logits", ["batch", 4, None, None])


def check(model: onnx.ModelProto, described: ForeignCard, tmp_path: Path, frames: np.ndarray, **image: Any) -> None:
    """The adapted graph on frames gives what the foreign one gives on prepared frames."""
    theirs = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    path = tmp_path / "adapted.onnx"
    onnx.save(adapt_model(model, described, "theirs.onnx"), str(path))
    with open_engine(path, described.native(), engine="onnxruntime") as engine:
        results = engine.infer(frames)["class_logits"]
    for frame, result in zip(frames, results, strict=True):
        (expected,) = theirs.run(None, {theirs.get_inputs()[0].name: prepare(frame, **image)})
        assert expected.std() > 0.1
        np.testing.assert_allclose(result, expected[0], atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("layout", "channels", "values", "kind"),
    [
        *itertools.product(["NCHW", "NHWC"], ["RGB", "BGR"], [IMAGENET, PLAIN], ["conv"]),
        ("NCHW", "RGB", IMAGENET, "relu"),
        ("NCHW", "RGB", IMAGENET, "two"),
        ("NCHW", "BGR", {"scale": 1, "mean": [104, 117, 123], "std": [57, 58, 59]}, "conv"),
    ],
)
def test_pixels_become_what_the_graph_takes(
    layout: str, channels: str, values: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    for seed in range(2):
        model = segmenter(Net(32, 24, seed=seed, layout=layout), kind).build()
        described = card(layout=layout, channels=channels, **values)
        check(
            model, described, tmp_path, noise_frames(2, 32, 24, seed=seed), layout=layout, channels=channels, **values
        )


def test_scaling_and_order_cost_nothing_where_a_convolution_comes_first() -> None:
    operations = {
        kind: [node.op_type for node in adapt_model(
            segmenter(Net(32, 24), kind).build(), card(scale="1/255"), "m.onnx").graph.node]
        for kind in ("conv", "relu")
    }  # fmt: skip
    assert "Mul" in operations["relu"] and "Gather" in operations["relu"]
    assert operations["conv"] == ["Cast", "Transpose", "Conv", "Identity", "Cast"]


def test_one_number_serves_all_channels(tmp_path: Path) -> None:
    image = {"scale": 1, "mean": 127.5, "std": 127.5}
    check(
        segmenter(Net(32, 24)).build(),
        card(**image),
        tmp_path,
        noise_frames(1, 32, 24),
        layout="NCHW",
        channels="RGB",
        **image,
    )


def test_sizes_that_the_graph_leaves_free_stay_free(tmp_path: Path) -> None:
    described = card(own={"multiple": 8}, scale="1/255", mean=0.5)
    model = segmenter(Net(32, 24, size=("h", "w"))).build()
    for width, height in ((32, 24), (64, 40)):
        path = tmp_path / "adapted.onnx"
        onnx.save(adapt_model(onnx.ModelProto.FromString(model.SerializeToString()), described, "m.onnx"), str(path))
        with open_engine(path, described.native(), engine="openvino", size=(width, height)) as engine:
            assert engine.infer(noise_frames(1, width, height))["class_logits"].shape == (1, 4, height // 4, width // 4)


def test_half_precision_inside(tmp_path: Path) -> None:
    net = Net(32, 24, dtype=TensorProto.FLOAT16)
    net.output(net.conv(4, 4, dtype=np.float16), "logits", ["batch", 4, None, None], TensorProto.FLOAT16)
    single = Net(32, 24)  # the same random weights
    single.output(single.conv(4, 4), "logits", ["batch", 4, None, None])
    theirs = onnxruntime.InferenceSession(single.build().SerializeToString())
    described = card(**IMAGENET)
    path = tmp_path / "adapted.onnx"
    onnx.save(adapt_model(net.build(), described, "m.onnx"), str(path))
    (frame,) = noise_frames(1, 32, 24)
    with open_engine(path, described.native(), engine="onnxruntime") as engine:
        result = engine.infer(frame[None])["class_logits"]
    (expected,) = theirs.run(None, {"images": prepare(frame, layout="NCHW", channels="RGB", **IMAGENET)})
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=0.02)


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_a_graph_that_takes_bytes(channels: str, tmp_path: Path) -> None:
    net = Net(32, 24, layout="NHWC", dtype=TensorProto.UINT8)
    net.image = net("Cast", net.image, to=TensorProto.FLOAT)
    net.output(net.conv(4, 4), "logits", ["batch", 4, None, None])
    model = net.build()
    theirs = onnxruntime.InferenceSession(model.SerializeToString())
    described = card(layout="NHWC", channels=channels)
    path = tmp_path / "adapted.onnx"
    onnx.save(adapt_model(model, described, "m.onnx"), str(path))
    (frame,) = noise_frames(1, 32, 24)
    with open_engine(path, described.native(), engine="onnxruntime") as engine:
        result = engine.infer(frame[None])["class_logits"]
    given = frame[:, :, ::-1] if channels == "RGB" else frame
    (expected,) = theirs.run(None, {"images": np.ascontiguousarray(given)[None]})
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-2)


def test_other_inputs_get_the_values_of_the_card(tmp_path: Path) -> None:
    def build() -> onnx.ModelProto:
        net = Net(32, 24)
        net.inputs.append(onnx.helper.make_tensor_value_info("sizes", TensorProto.INT64, [1, 2]))
        factor = net("Reshape", net("ReduceSum", net("Cast", "sizes", to=TensorProto.FLOAT)), np.array([1], np.int64))
        return net.output(net("Mul", net.conv(4, 4), factor), "logits", ["batch", 4, None, None]).build()

    theirs = onnxruntime.InferenceSession(build().SerializeToString())
    (frame,) = noise_frames(1, 32, 24)
    prepared = prepare(frame, layout="NCHW", channels="RGB", **PLAIN)
    (expected,) = theirs.run(None, {"images": prepared, "sizes": np.array([[3, 4]])})
    described = card(name="images", constants={"sizes": [[3, 4]]})
    path = tmp_path / "adapted.onnx"
    onnx.save(adapt_model(build(), described, "m.onnx"), str(path))
    with open_engine(path, described.native(), engine="onnxruntime") as engine:
        np.testing.assert_allclose(engine.infer(frame[None])["class_logits"], expected, rtol=1e-3, atol=1)
    for image, words in [
        ({}, "2 inputs"),
        ({"name": "image"}, "no input 'image'"),
        ({"name": "images"}, "other inputs"),
        ({"constants": {"size": [[3, 4]]}}, "no input 'size'"),
        ({"constants": {"sizes": [3, 4]}}, r"shape \[2\]"),
        ({"constants": {"sizes": "many"}}, "numbers of type int64"),
        ({"constants": {"sizes": [[3, 4]], "images": 1}, "name": "images"}, "both"),
    ]:
        with pytest.raises(ModelError, match=words):
            adapt_model(build(), card(**image), "m.onnx")


@pytest.mark.parametrize(
    ("net", "image", "words"),
    [
        (Net(32, 24), {"layout": "NHWC"}, "not NHWC"),
        (Net(32, 24, layout="NHWC"), {}, "not NCHW"),
        (Net(64, 24), {}, "takes 64x24"),
        (Net(32, 24), {"own": {"multiple": 8}}, r"leave out input\.multiple"),
        (Net(32, 24, dtype=TensorProto.DOUBLE), {}, "float64"),
    ],
)
def test_inputs_that_are_not_as_described(net: Net, image: dict[str, Any], words: str) -> None:
    double = net.inputs[0].type.tensor_type.elem_type == TensorProto.DOUBLE
    image_now = net("Cast", net.image, to=TensorProto.FLOAT) if double else net.image
    net.output(net.conv(4, 4, image=image_now), "logits", ["batch", 4, None, None])
    with pytest.raises(ModelError, match=words) as error:
        adapt_model(net.build(), card(**image), "theirs.onnx")
    assert "theirs.onnx" in str(error.value) and "inputs images float" in str(error.value)


def test_a_graph_of_bytes_has_its_scaling_inside() -> None:
    net = Net(32, 24, dtype=TensorProto.UINT8)
    net.output(net.conv(4, 4, image=net("Cast", net.image, to=TensorProto.FLOAT)), "logits", ["batch", 4, None, None])
    with pytest.raises(ModelError, match="uint8"):
        adapt_model(net.build(), card(scale="1/255"), "m.onnx")


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ({"scale": "1/0"}, "fraction"),
        ({"scale": 0}, "greater than 0"),
        ({"scale": "big"}, "fraction"),
        ({"std": [1, 0, 1]}, "std"),
        ({"mean": [1, 2]}, "mean"),
        ({"channels": "YUV"}, "RGB"),
        ({"scale": None}, "scale"),
    ],
)
def test_cards_with_impossible_pixels(image: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words) as error:
        card(**image)
    assert "card.yaml" in str(error.value) and "adapter.input" in str(error.value)
