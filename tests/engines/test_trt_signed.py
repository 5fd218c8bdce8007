"""Unsigned Q/DQ pairs become signed ones of the same range: computed by ONNX Runtime before and after."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from perception.engines.trt.signed import make_signed


def pair(zero: np.ndarray | None, scale: float = 0.05, shared: bool = False) -> onnx.ModelProto:
    """``x`` through a Q/DQ pair to ``y``; with ``shared``, a second pair of the same scale to ``z``."""
    inputs = ["scale"] + ([] if zero is None else ["zero"])
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *inputs], ["q"]),
        helper.make_node("DequantizeLinear", ["q", *inputs], ["y"]),
    ]
    if shared:
        nodes += [
            helper.make_node("QuantizeLinear", ["y", *inputs], ["r"]),
            helper.make_node("DequantizeLinear", ["r", *inputs], ["z"]),
        ]
    weights = [numpy_helper.from_array(np.asarray(scale, np.float32), "scale")]
    if zero is not None:
        weights.append(numpy_helper.from_array(np.asarray(zero), "zero"))
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None]) for n in ("y", "z")[: 1 + shared]]
    said = helper.make_tensor_value_info("q", TensorProto.UINT8 if zero is None else weights[-1].data_type, [None])
    graph = helper.make_graph(
        nodes, "pair", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])], outputs, weights,
        value_info=[said],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


def types(model: onnx.ModelProto) -> set[int]:
    weights = {w.name: w.data_type for w in model.graph.initializer}
    return {weights[n.input[2]] for n in model.graph.node}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("zero", [np.uint8(0), None], ids=["zero", "left out"])
@pytest.mark.parametrize("shared", [False, True])
def test_the_range_stays(zero: np.ndarray | None, shared: bool, seed: int) -> None:
    model = pair(zero, shared=shared)
    # from 0 to the end of the range, which is 12.75, and both ends
    x = np.concatenate([np.random.default_rng(seed).uniform(0, 12.75, 500), [0, 6.35, 6.4, 12.75]]).astype(np.float32)
    before = run(model, x)
    make_signed(model)
    onnx.checker.check_model(model, full_check=True)
    assert types(model) == {TensorProto.INT8}
    for mine, wanted in zip(run(model, x), before, strict=True):
        step = 12.75 / 127
        assert np.abs(mine - wanted).max() <= step / 2 + 0.025 + 1e-5
        assert mine.max() == pytest.approx(12.75, rel=1e-5)  # nothing is cut off


@pytest.mark.parametrize("zero", [np.int8(0), np.uint8(7), np.int8(-3)])
def test_others_stay_as_they_are(zero: np.ndarray) -> None:
    model = pair(zero)
    before = model.SerializeToString()
    make_signed(model)
    assert model.SerializeToString() == before


def test_weights_stay_as_they_are() -> None:
    """uint8 weights are no activations: their values are in the file."""
    node = helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["y"])
    weights = [
        numpy_helper.from_array(np.array([0, 200, 255], np.uint8), "w"),
        numpy_helper.from_array(np.asarray(1, np.float32), "scale"),
        numpy_helper.from_array(np.asarray(0, np.uint8), "zero"),
    ]
    graph = helper.make_graph([node], "w", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    before = model.SerializeToString()
    make_signed(model)
    assert model.SerializeToString() == before
