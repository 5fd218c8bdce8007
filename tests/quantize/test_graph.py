"""The graph before and after quantisation, held to ONNX's own reference evaluator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from perception.quantize.graph import (
    is_quantised,
    outside_products,
    quantised_layers,
    tidied,
    with_float_layers,
)
from perception.quantize.post_training import post_training_quantised
from tests.models import build_model
from tests.noise import noise_frames
from tests.quantize.networks import write_deep


def run(model: onnx.ModelProto, picture: np.ndarray) -> list[np.ndarray]:
    if not is_quantised(model):
        return ReferenceEvaluator(model).run(None, {"frames": picture})
    # ONNX's own evaluator has Q/DQ nodes of later opsets only
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"frames": picture})


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return tidied(onnx.load(str(write_deep(tmp_path_factory.mktemp("graph") / "deep.onnx"))))


@pytest.fixture(scope="module")
def quantised(original: onnx.ModelProto) -> onnx.ModelProto:
    return post_training_quantised(original, "frames", [noise_frames(1, seed=seed) for seed in range(4)])


def test_tidying_names_every_node_and_drops_idle_casts(tmp_path: Path) -> None:
    model = onnx.load(str(write_deep(tmp_path / "deep.onnx")))
    before = model.SerializeToString()
    made = tidied(model)
    names = [node.name for node in made.graph.node]
    assert all(names) and len(set(names)) == len(names)
    assert [n.op_type for n in made.graph.node].count("Cast") == 1  # the one that turns bytes into floats
    assert [o.name for o in made.graph.output] == ["class_logits"]
    np.testing.assert_array_equal(run(made, noise_frames(1))[0], run(model, noise_frames(1))[0])
    assert model.SerializeToString() == before


def cast_chain() -> onnx.ModelProto:
    """Casts in a row, one whose source is needed elsewhere, two outputs of one tensor, and the input as an output."""
    cast = {"to": TensorProto.FLOAT}
    nodes = [
        helper.make_node("Cast", ["frames"], ["f"], **cast),
        helper.make_node("Cast", ["f"], ["g"], **cast),
        helper.make_node("Cast", ["g"], ["h"], **cast),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Cast", ["r"], ["first"], **cast),
        helper.make_node("Cast", ["r"], ["second"], **cast),
        helper.make_node("Neg", ["r"], ["n"]),
        helper.make_node("Cast", ["n"], ["bytes"], to=TensorProto.UINT8),
        helper.make_node("Cast", ["bytes"], ["third"], **cast),
        helper.make_node("Cast", ["frames"], ["same"], to=TensorProto.UINT8),
    ]
    kinds = {"first": TensorProto.FLOAT, "second": TensorProto.FLOAT, "third": TensorProto.FLOAT}
    outputs = [helper.make_tensor_value_info(n, t, [None] * 4) for n, t in {**kinds, "same": TensorProto.UINT8}.items()]
    source = helper.make_tensor_value_info("frames", TensorProto.UINT8, [1, 4, 4, 3])
    graph = helper.make_graph(nodes, "casts", [source], outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_casts_that_matter_stay() -> None:
    model = cast_chain()
    made = tidied(model)
    onnx.checker.check_model(made, full_check=True)
    picture = noise_frames(1, 4, 4)
    for got, wanted in zip(run(made, picture), run(model, picture), strict=True):
        np.testing.assert_array_equal(got, wanted)
        assert got.dtype == wanted.dtype
    # gone: the two in a row, and one of the two that give r a second name
    assert len(made.graph.node) == len(model.graph.node) - 3


def test_weights_that_are_stored_in_half_are_weights_again(original: onnx.ModelProto) -> None:
    stored = onnx.ModelProto()
    stored.CopyFrom(original)
    for weight in stored.graph.initializer:
        if weight.name in ("mix_w", "decide_w"):
            half = numpy_helper.to_array(weight).astype(np.float16)
            cast = helper.make_node("Cast", [f"{weight.name}/half"], [weight.name], to=TensorProto.FLOAT)
            weight.CopyFrom(numpy_helper.from_array(half, f"{weight.name}/half"))
            stored.graph.node.insert(0, cast)
    onnx.checker.check_model(stored, full_check=True)
    made = tidied(stored)
    types = {w.name: w.data_type for w in made.graph.initializer}
    assert set(types.values()) == {TensorProto.FLOAT} and {"mix_w", "decide_w"} <= set(types)
    assert len(made.graph.node) == len(original.graph.node)
    np.testing.assert_array_equal(run(made, noise_frames(1))[0], run(stored, noise_frames(1))[0])


def test_what_is_before_the_first_product_and_after_the_last_is_outside() -> None:
    model = tidied(build_model(detection=True, classification=True))
    outside = {n.op_type for n in model.graph.node if n.name in outside_products(model)}
    assert outside >= {"Cast", "Transpose", "Div", "Sigmoid", "Reshape", "Concat", "Softmax", "Flatten"}
    assert "Conv" not in outside


def test_all_layers_back_in_float_is_the_original(original: onnx.ModelProto, quantised: onnx.ModelProto) -> None:
    layers = quantised_layers(quantised)
    assert {"spread", "mix", "depth", "decide"} <= set(layers)
    made = with_float_layers(quantised, original, layers)
    assert not is_quantised(made)
    onnx.checker.check_model(made, full_check=True)
    for seed in range(3):
        np.testing.assert_array_equal(
            run(made, noise_frames(1, seed=seed))[0], run(original, noise_frames(1, seed=seed))[0]
        )


@pytest.mark.parametrize("layer", ["spread", "mix", "depth", "decide"])
def test_one_layer_back_in_float(layer: str, original: onnx.ModelProto, quantised: onnx.ModelProto) -> None:
    before = quantised.SerializeToString()
    made = with_float_layers(quantised, original, [layer])
    onnx.checker.check_model(made, full_check=True)
    assert set(quantised_layers(made)) == set(quantised_layers(quantised)) - {layer}
    by_name = {n.name: n for n in made.graph.node}
    exact = {w.name: numpy_helper.to_array(w) for w in original.graph.initializer}
    there = {w.name: numpy_helper.to_array(w) for w in made.graph.initializer}
    tensor, *weights = {n.name: n for n in original.graph.node}[layer].input
    assert by_name[layer].input[0] == tensor
    for mine, wanted in zip(by_name[layer].input[1:], weights, strict=True):
        np.testing.assert_array_equal(there[mine], exact[wanted])
    used = {t for n in made.graph.node for t in n.input}
    assert {w.name for w in made.graph.initializer} <= used
    assert sum(n.op_type == "DequantizeLinear" for n in made.graph.node) < sum(
        n.op_type == "DequantizeLinear" for n in quantised.graph.node
    )
    assert np.isfinite(run(made, noise_frames(1))[0]).all()
    assert quantised.SerializeToString() == before
