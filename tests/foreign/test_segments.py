"""Foreign segmenters and classifiers: logits, class ids, one channel, in any layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
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
from perception.model import load_model
from tests.foreign.graphs import Net, prepare
from tests.noise import noise

PLAIN = {"scale": 1 / 255, "mean": 0, "std": 1, "channels": "BGR", "layout": "NCHW"}
NAMES = ["a", "b", "c", "d"]


def card(segmentation: dict[str, Any], classes: int = 4) -> ForeignCard:
    data = {
        "name": "foreign", "licence": "MIT", "input": {"width": 32, "height": 24},
        "segmentation": {"classes": NAMES[:classes]},
        "adapter": {"input": PLAIN, "segmentation": segmentation},
    }  # fmt: skip
    return validate_card(data, "card.yaml", ForeignCard)


def compare(
    net: Net, described: ForeignCard, tmp_path: Path, to_logits: Any, engines: tuple[str, ...] = ("openvino", "torch")
) -> onnx.ModelProto:
    """The adapted graph in all engines, against ``to_logits`` of the foreign graph's first output for one frame."""
    model = net.build()
    theirs = onnxruntime.InferenceSession(model.SerializeToString())
    path = tmp_path / "adapted.onnx"
    adapted = adapt_model(model, described, "theirs.onnx")
    onnx.save(adapted, str(path))
    frames = noise(2, 24, 32, 3, seed=7)
    expected = [to_logits(theirs.run(None, {"images": prepare(f, **PLAIN)})[0][0]) for f in frames]
    assert np.std(expected) > 0.05
    for engine in ("onnxruntime", *engines):
        with open_engine(path, described.native(), engine=engine, precision="fp32") as opened:
            np.testing.assert_allclose(opened.infer(frames)["class_logits"], expected, atol=1e-3, err_msg=engine)
    return adapted


def test_logits(tmp_path: Path) -> None:
    net = Net(32, 24)
    net.output(net.conv(4, 4), "logits", ["batch", 4, 6, 8])
    compare(net, card({"values": "logits"}), tmp_path, lambda x: x)


def test_logits_with_the_channels_last(tmp_path: Path) -> None:
    net = Net(32, 24)
    net.output(net("Transpose", net.conv(4, 4), perm=[0, 2, 3, 1]), "logits", ["batch", 6, 8, 4])
    compare(net, card({"values": "logits", "layout": "NHWC"}), tmp_path, lambda x: x.transpose(2, 0, 1))


@pytest.mark.parametrize("background", [0, 2, 4, -1])
@pytest.mark.parametrize("ids", [False, True])
def test_a_background_channel_is_removed_before_the_argmax(background: int, ids: bool, tmp_path: Path) -> None:
    net = Net(32, 24)
    logits = net.conv(5, 4)
    kept = [i for i in range(5) if i != background % 5]
    described = card({"values": "class_ids" if ids else "logits", "background": background})
    net.output(logits, "logits", ["batch", 5, 6, 8])
    if not ids:
        compare(net, described, tmp_path, lambda x: x[kept])
        return
    # ids in the output, and logits before them: the background is left out there
    net.output(net("ArgMax", logits, axis=1, keepdims=0), "ids", ["batch", 6, 8], TensorProto.INT64)
    described = card({"values": "class_ids", "background": background, "output": "ids"})
    compare(net, described, tmp_path, lambda x: x[kept], engines=())


def test_a_background_that_cannot_be_removed_is_told(tmp_path: Path) -> None:
    net = Net(32, 24)
    net.output(net.conv(5, 4), "logits", ["batch", 5, 6, 8])
    with pytest.raises(ModelError, match="background 5 is none of the 5 channels"):
        adapt_model(net.build(), card({"values": "logits", "background": 5}), "theirs.onnx")
    with pytest.raises(ModelError, match="binary has one channel"):
        card({"values": "binary", "background": 0}, 2)


def one_hot(ids: np.ndarray) -> np.ndarray:
    ids = ids.reshape(6, 8)
    assert set(ids.ravel().tolist()) >= {1, 2, 3}
    return np.array([[[float(int(ids[y, x]) == c) for x in range(8)] for y in range(6)] for c in range(4)])


@pytest.mark.parametrize("dtype", [TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT, TensorProto.UINT8])
@pytest.mark.parametrize(("shape", "layout"), [([0, 6, 8], "NCHW"), ([0, 1, 6, 8], "NCHW"), ([0, 6, 8, 1], "NHWC")])
def test_class_ids_become_one_hot_logits(shape: list[int], layout: str, dtype: int, tmp_path: Path) -> None:
    net = Net(32, 24, seed=2)
    # ids that no argmax of the graph makes: whole numbers from one channel
    ids = net("Floor", net("Mul", net("Sigmoid", net.conv(1, 4, gain=3)), np.float32(3.99)))
    ids = net("Cast", net("Reshape", ids, np.array(shape, np.int64)), to=dtype)
    net.output(ids, "ids", ["batch", *shape[1:]], dtype)
    engines = ("openvino", "torch") if dtype == TensorProto.INT64 else ()
    compare(net, card({"values": "class_ids", "layout": layout}), tmp_path, one_hot, engines)


@pytest.mark.parametrize(("axis", "keepdims"), [(1, 0), (1, 1), (3, 0), (-1, 1)])
def test_an_argmax_at_the_end_gives_way_to_its_logits(axis: int, keepdims: int, tmp_path: Path) -> None:
    net = Net(32, 24)
    logits = net.conv(4, 4)
    last = net("Transpose", logits, perm=[0, 2, 3, 1]) if axis != 1 else logits
    ids = net("Cast", net("ArgMax", last, axis=axis, keepdims=keepdims), to=TensorProto.INT32)
    one = [1] if keepdims else []
    shape = ["batch", *one, 6, 8] if axis == 1 else ["batch", 6, 8, *one]
    net.output(logits, "logits", ["batch", 4, 6, 8]).output(ids, "ids", shape, TensorProto.INT32)
    layout = "NCHW" if axis == 1 else "NHWC"
    described = card({"values": "class_ids", "output": "ids", "layout": layout})
    adapted = compare(net, described, tmp_path, lambda x: x)
    assert "ArgMax" not in {node.op_type for node in adapted.graph.node}


@pytest.mark.parametrize("ids", [False, True])
def test_bilinear_enlargement_at_the_end_is_left_to_the_runtime(ids: bool, tmp_path: Path) -> None:
    net = Net(32, 24)
    logits = net.conv(4, 8)
    large = net("Resize", logits, "", "", np.array([2, 4, 24, 32], np.int64), mode="linear")
    if ids:
        net.output(net("ArgMax", large, axis=1, keepdims=0), "ids", ["batch", 24, 32], TensorProto.INT64)
    else:
        net.output(large, "logits", ["batch", 4, 24, 32])
    net.inputs[0].type.tensor_type.shape.dim[0].dim_value = 2
    model = net.build()
    frame = noise(24, 32, 3, seed=3)
    (theirs,) = onnxruntime.InferenceSession(model.SerializeToString()).run(
        None, {"images": np.repeat(prepare(frame, **PLAIN), 2, 0)}
    )
    foreign = tmp_path / "theirs.onnx"
    onnx.save(model, str(foreign))
    described = tmp_path / "card.yaml"
    values = "class_ids" if ids else "logits"
    described.write_text(
        "name: foreign\nlicence: MIT\ninput: {width: 32, height: 24}\nsegmentation: {classes: [a, b, c, d]}\n"
        f"adapter:\n  input: {{channels: BGR, scale: 1/255}}\n  segmentation: {{values: {values}}}\n"
    )
    with load_model(foreign, card=described, engine="onnxruntime") as loaded:
        class_map = loaded.predict(frame).class_map
        assert class_map is not None
        assert class_map.logits.shape == (4, 3, 4)
        expected = theirs[0] if ids else theirs[0].argmax(0)
        np.testing.assert_array_equal(class_map.mask, expected)


def test_enlargement_to_a_size_that_the_graph_computes(tmp_path: Path) -> None:
    # as exporters write it where the size is free: the size of the image, cut out of its shape
    net = Net(32, 24, size=("height", "width"))
    logits = net.conv(4, 8)
    ends = [net.part(net("Shape", x), *ends, axis=0) for x, ends in ((logits, (0, 2)), (net.image, (2, 4)))]
    net.output(
        net("Resize", logits, "", "", net("Concat", *ends, axis=0), mode="linear"), "logits", ["batch", 4, None, None]
    )
    small = Net(32, 24)  # the same random weights
    expected = small.output(small.conv(4, 8), "logits", ["batch", 4, 3, 4])
    theirs = onnxruntime.InferenceSession(expected.build().SerializeToString())
    described = card({"values": "logits"})
    adapted = adapt_model(net.build(), described, "m.onnx")
    assert "Resize" not in {node.op_type for node in adapted.graph.node}
    onnx.save(adapted, str(tmp_path / "a.onnx"))
    frame = noise(24, 32, 3, seed=3)
    with open_engine(tmp_path / "a.onnx", described.native(), engine="onnxruntime") as engine:
        (result,) = engine.infer(frame[None]).values()
    np.testing.assert_allclose(result, theirs.run(None, {"images": prepare(frame, **PLAIN)})[0], atol=1e-4)


@pytest.mark.parametrize("attributes", [{"mode": "nearest"}, {"mode": "linear", "align": "align_corners"}])
def test_other_enlargement_stays(attributes: dict[str, str], tmp_path: Path) -> None:
    net = Net(32, 24, batch=2)
    where = {"coordinate_transformation_mode": attributes["align"]} if "align" in attributes else {}
    sizes = np.array([2, 4, 24, 32], np.int64)
    large = net("Resize", net.conv(4, 8), "", "", sizes, mode=attributes["mode"], **where)
    net.output(large, "logits", [2, 4, 24, 32])
    adapted = adapt_model(net.build(), card({"values": "logits"}), "m.onnx")
    assert "Resize" in {node.op_type for node in adapted.graph.node}


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_one_channel_for_the_second_of_two_classes(threshold: float, tmp_path: Path) -> None:
    net = Net(32, 24)
    value = net.conv(1, 4)
    net.output(net("Sigmoid", value) if threshold else value, "mask", ["batch", 1, 6, 8])
    described = card({"values": "binary", "threshold": threshold}, classes=2)
    compare(net, described, tmp_path, lambda x: np.concatenate([np.full_like(x, threshold), x]))


def test_class_ids_keep_their_places_at_frame_size(tmp_path: Path) -> None:
    net = Net(32, 24, seed=2)
    ids = net("Floor", net("Mul", net("Sigmoid", net.conv(1, 4, gain=3)), np.float32(3.99)))
    net.output(net("Reshape", ids, np.array([0, 6, 8], np.int64)), "ids", ["batch", 6, 8])
    described = card({"values": "class_ids"})
    path = tmp_path / "adapted.onnx"
    model = net.build()
    frame = noise(24, 32, 3, seed=5)
    (theirs,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"images": prepare(frame, **PLAIN)})
    onnx.save(adapt_model(model, described, "m.onnx"), str(path))
    with load_model(path, engine="onnxruntime") as loaded:
        class_map = loaded.predict(frame).class_map
    assert class_map is not None
    nearest = cv2.resize(theirs[0].astype(np.uint8), (32, 24), interpolation=cv2.INTER_NEAREST)
    # the centres of cells are sure; between two cells the edge is half way, where several meet it is rounded
    np.testing.assert_array_equal(class_map.mask[1::4, 1::4], nearest[1::4, 1::4])
    assert (class_map.mask == nearest).mean() > 0.8


@pytest.mark.parametrize("activation", ["none", "softmax", "sigmoid"])
def test_whole_image_classes(activation: str, tmp_path: Path) -> None:
    net = Net(32, 24)
    pooled = net("GlobalAveragePool", net.conv(4, 4, gain=8))
    net.output(pooled if activation != "none" else net("Softmax", pooled, axis=1), "values", ["batch", 4, 1, 1])
    data = card({"values": "logits"}).model_dump(exclude={"segmentation"})
    del data["adapter"]["segmentation"]
    data["classification"] = {"classes": NAMES}
    data["adapter"]["classification"] = {"activation": activation}
    described = validate_card(data, "card.yaml", ForeignCard)
    model = net.build()
    frames = noise(2, 24, 32, 3, seed=5)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    raw = np.concatenate([session.run(None, {"images": prepare(f, **PLAIN)})[0].reshape(1, 4) for f in frames])
    if activation == "softmax":
        raw = np.exp(raw) / np.exp(raw).sum(1, keepdims=True)
    elif activation == "sigmoid":
        raw = 1 / (1 + np.exp(-raw))
    path = tmp_path / "adapted.onnx"
    onnx.save(adapt_model(model, described, "m.onnx"), str(path))
    with open_engine(path, described.native(), engine="openvino", precision="fp32") as engine:
        np.testing.assert_allclose(engine.infer(frames)["probabilities"], raw, atol=1e-4)


@pytest.mark.parametrize(
    ("segmentation", "classes", "words"),
    [
        ({"values": "logits"}, 3, ["[?, 4, 6, 8]", "[N, 3, h, w]"]),
        ({"values": "logits", "layout": "NHWC"}, 4, ["[N, h, w, 4]"]),
        ({"values": "class_ids"}, 4, ["one channel"]),
        ({"values": "binary"}, 2, ["[N, 1, h, w]"]),
        ({"values": "logits", "output": "out"}, 4, ["no output 'out'"]),
    ],
)
def test_outputs_that_are_not_as_described(
    segmentation: dict[str, Any], classes: int, words: list[str], tmp_path: Path
) -> None:
    net = Net(32, 24)
    net.output(net.conv(4, 4), "logits", ["batch", 4, 6, 8])
    with pytest.raises(ModelError) as error:
        adapt_model(net.build(), card(segmentation, classes), "theirs.onnx")
    for word in [*words, "theirs.onnx", "outputs logits float32 [?, 4, 6, 8]"]:
        assert word.replace("[?, 4, 6, 8]", "") in str(error.value)
