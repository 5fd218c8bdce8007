"""The graph given to TensorRT, executed by ONNX Runtime: an implementation that owes nothing to the conversion."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

from perception.card import load_onnx, read_card
from perception.engines.trt.graph import TOP_K_LIMIT, Tail, is_quantised, prepare
from perception.errors import ModelError, UsageError
from perception.picture.resize import to_input
from perception.postprocess.segmentation import class_mask
from perception.sources import open_source
from perception.weights.library import model_paths
from tests.engines.trt_models import bytes_to_planes, card, detector, graph, mixed_network, node
from tests.noise import noise_frames


def run(model: onnx.ModelProto, frames: np.ndarray) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL  # or casts are moved
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, {"frames": frames}), strict=True))


def types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    found = {v.name: v.type.tensor_type.elem_type for v in [*inferred.value_info, *inferred.input, *inferred.output]}
    return found | {w.name: w.data_type for w in inferred.initializer}


def test_f32_changes_no_result_and_casts_bytes_first() -> None:
    rng = np.random.default_rng(0)
    model = mixed_network(rng)
    before = model.SerializeToString()
    made = prepare(model, card(), "fp32")
    assert model.SerializeToString() == before
    readers = [n.op_type for n in made.graph.node if "frames" in n.input]
    assert readers == ["Cast"]  # the only thing that TensorRT does with uint8
    frames = noise_frames(2, 16, 16, rng)
    np.testing.assert_array_equal(run(made, frames)["class_logits"], run(model, frames)["class_logits"])


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_products_and_all_between_are_narrow_the_ends_are_not(precision: str) -> None:
    made = prepare(mixed_network(np.random.default_rng(0)), card(), precision)  # type: ignore[arg-type]
    narrow = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
    told = types(made) if precision == "fp16" else None  # ONNX knows no Resize in bfloat16
    seen = set()
    for n in made.graph.node:
        seen.add(n.op_type)
        if told is None:
            continue
        elements = {told[t] for t in [*n.input, *n.output] if t and told[t] in (TensorProto.FLOAT, narrow)}
        if n.op_type in ("Conv", "ConvTranspose", "Clip", "ConstantOfShape") or n.output[0] == "a2":
            assert elements == {narrow}, n
        if n.output[0] in ("centred", "unit", "large", "class_logits"):
            assert elements == {TensorProto.FLOAT}, n
        if n.op_type == "Resize":
            assert told[n.input[2]] == TensorProto.FLOAT  # scales
            assert told[n.input[0]] == told[n.output[0]] == narrow
    assert {"Conv", "ConvTranspose", "Resize", "ConstantOfShape"} <= seen
    stored = {w.name: w.data_type for w in made.graph.initializer}
    assert stored["w1/narrow"] == narrow and "w1" not in stored
    assert stored["mean"] == TensorProto.FLOAT
    assert [o.type.tensor_type.elem_type for o in made.graph.output] == [TensorProto.FLOAT]


@pytest.mark.parametrize("seed", range(4))
def test_f16_computes_what_torch_computes_in_half(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = mixed_network(rng)
    made = prepare(model, card(), "fp16")
    frames = noise_frames(2, 16, 16, rng)
    exact, half = run(model, frames)["class_logits"], run(made, frames)["class_logits"]
    assert half.dtype == np.float32
    w = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer}
    x = (torch.from_numpy(frames).permute(0, 3, 1, 2).float() - 127) / 128
    x = torch.nn.functional.conv2d(x.half(), w["w1"].half(), w["b1"].half(), stride=2, padding=1)
    x = x.clip(0, 6) + 1
    x = torch.nn.functional.interpolate(x.float(), scale_factor=2, mode="bilinear").half()
    x = torch.nn.functional.conv_transpose2d(x, w["w2"].half())
    x = torch.nn.functional.conv2d(x, w["w3"].half(), w["b3"].half())
    expected = (x.float() * 1000 - 1000).numpy()
    step = 2.0**-10 * np.abs(expected + 1000).max()  # of float16, at the largest value
    assert np.abs(half - expected).max() <= 3 * step
    assert 0 < np.abs(half - exact).max() <= 12 * step  # it did round, and no more than that
    # Subtracted in half precision, no result would keep anything below a step of 0.5 at 1000.
    assert np.unique(np.abs(half) % 0.5).size > 10


def test_values_beyond_half_precision_are_clipped_not_infinite() -> None:
    nodes = [
        *bytes_to_planes(),
        node("Conv", "planes w", "c"),
        node("Min", "c top", "m"),
        node("Conv", "m w2", "class_logits"),
    ]
    constants = {
        "w": np.ones((1, 3, 1, 1), np.float32),
        "top": np.array(3.4e38, np.float32),
        "w2": np.ones((3, 1, 1, 1), np.float32),
    }
    made = prepare(graph(nodes, constants, {"class_logits": ["N", 3, 16, 16]}), card(), "fp16")
    stored = {w.name: numpy_helper.to_array(w) for w in made.graph.initializer}
    assert stored["top/narrow"] == np.float16(65504)


def test_bfloat16_weights_are_those_of_torch() -> None:
    rng = np.random.default_rng(0)
    w = (rng.standard_normal((3, 3, 16, 16)) * 10.0 ** rng.integers(-30, 30, (3, 3, 16, 16))).astype(np.float32)
    w.flat[:6] = [np.inf, -np.inf, np.nan, -0.0, 1 + 2**-8, 1 + 3 * 2**-8]  # the last two are ties
    nodes = [*bytes_to_planes(), node("Conv", "planes w", "class_logits")]
    made = prepare(graph(nodes, {"w": w}, {"class_logits": ["N", 3, 1, 1]}), card(), "bf16")
    (stored,) = (t for t in made.graph.initializer if t.data_type == TensorProto.BFLOAT16)
    bits = np.frombuffer(stored.raw_data, "<u2").reshape(stored.dims)
    expected = torch.from_numpy(w).bfloat16().view(torch.int16).numpy().astype(np.uint16)
    same = bits == expected
    same |= np.isnan(w)  # there are many of those
    assert same.all()
    assert np.isnan((bits.astype(np.uint32) << 16).view(np.float32)[np.isnan(w)]).all()


def test_a_float_used_inside_and_outside_keeps_both_types() -> None:
    nodes = [
        *bytes_to_planes(),
        node("Mul", "planes k", "scaled"),
        node("Conv", "scaled w", "c"),
        node("Mul", "c k", "d"),
        node("Conv", "d w2", "e"),
        node("Add", "e c", "class_logits"),  # c: made inside, read outside
    ]
    rng = np.random.default_rng(3)
    constants = {
        "k": np.float32(0.1),
        "w": rng.standard_normal((3, 3, 1, 1)).astype(np.float32),
        "w2": rng.standard_normal((3, 3, 1, 1)).astype(np.float32),
    }
    model = graph(nodes, constants, {"class_logits": ["N", 3, 16, 16]})
    made = prepare(model, card(), "fp16")
    stored = {w.name: w.data_type for w in made.graph.initializer}
    assert stored["k"] == TensorProto.FLOAT and stored["k/narrow"] == TensorProto.FLOAT16
    frames = noise_frames(2, 16, 16, rng)
    exact, half = run(model, frames)["class_logits"], run(made, frames)["class_logits"]
    np.testing.assert_allclose(half, exact, atol=0.02 * np.abs(exact).max())


def test_an_output_made_by_the_last_product_and_read_again_is_float32() -> None:
    nodes = [
        *bytes_to_planes(),
        node("Conv", "planes w", "class_logits"),
        node("GlobalAveragePool", "class_logits", "mean"),
    ]
    constants = {"w": np.ones((3, 3, 1, 1), np.float32) / 512}
    outputs = {"class_logits": ["N", 3, 16, 16], "mean": ["N", 3, 1, 1]}
    model = graph(nodes, constants, outputs)
    made = prepare(model, card(), "fp16")
    frames = noise_frames(2, 16, 16)
    exact, half = run(model, frames), run(made, frames)
    for name in outputs:
        assert half[name].dtype == np.float32
        np.testing.assert_allclose(half[name], exact[name], rtol=2e-3)


def test_a_graph_without_products_stays_float32() -> None:
    model = graph([*bytes_to_planes(), node("Neg", "planes", "class_logits")], {}, {"class_logits": ["N", 3, 16, 16]})
    made = prepare(model, card(), "fp16")
    assert TensorProto.FLOAT16 not in types(made).values()


def test_control_flow_and_quantisation_are_told_apart() -> None:
    branch = onnx.helper.make_graph(
        [node("Identity", "planes", "same")], "b", [], [onnx.helper.make_tensor_value_info("same", 1, None)]
    )
    nodes = [*bytes_to_planes(), node("If", "yes", "class_logits", then_branch=branch, else_branch=branch)]
    model = graph(nodes, {"yes": np.array(True)}, {"class_logits": ["N", 3, 16, 16]})
    with pytest.raises(ModelError, match=r"control flow \(If\).*use fp32"):
        prepare(model, card(), "fp16")
    plain = mixed_network(np.random.default_rng(0))
    with pytest.raises(UsageError, match="int8 needs a quantised file"):
        prepare(plain, card(), "int8")
    nodes = [
        *bytes_to_planes(),
        node("QuantizeLinear", "planes s z", "q"),
        node("DequantizeLinear", "q s z", "class_logits"),
    ]
    constants = {"s": np.float32(2), "z": np.int8(0)}
    quantised = graph(nodes, constants, {"class_logits": ["N", 3, 16, 16]})
    assert is_quantised(quantised) and not is_quantised(plain)
    with pytest.raises(UsageError, match="build it in int8, not in fp16"):
        prepare(quantised, card(), "fp16")
    frames = noise_frames(2, 16, 16)
    passed = run(prepare(quantised, card(), "int8"), frames)["class_logits"]
    np.testing.assert_array_equal(passed, run(quantised, frames)["class_logits"])


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_logits_stay_as_they_are(precision: str) -> None:
    """A tail is for boxes: masks are made of logits, in one way for all engines."""
    model = mixed_network(np.random.default_rng(5))
    for side in (None, (12, 8)):
        made, plain = (prepare(model, card(), precision, size=side, tail=tail) for tail in (Tail(), None))  # type: ignore[arg-type]
        assert made.SerializeToString() == plain.SerializeToString()
        (output,) = made.graph.output
        assert output.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        dims = made.graph.input[0].type.tensor_type.shape.dim
        assert [d.dim_value for d in dims][1:] == ([8, 12, 3] if side else [16, 16, 3])


@pytest.mark.parametrize("seed", range(3))
def test_top_k_keeps_the_best_boxes_best_first(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = detector(rng, rows=128)
    described = card(4, segmentation=False, detection=True)
    made = prepare(model, described, "fp32", tail=Tail(top_k=20))
    frames = noise_frames(3, 16, 16, rng)
    every, kept = run(model, frames), run(made, frames)
    for i in range(3):
        order = np.argsort(-every["scores"][i].max(1), kind="stable")[:20]
        np.testing.assert_array_equal(kept["scores"][i], every["scores"][i][order])
        np.testing.assert_array_equal(kept["boxes"][i], every["boxes"][i][order])


def test_top_k_of_a_number_that_depends_on_the_size() -> None:
    rng = np.random.default_rng(0)
    model = detector(rng, free=True)  # a row for each 2x2 pixels
    made = prepare(model, card(4, segmentation=False, detection=True), "fp32", tail=Tail(top_k=20))
    for side, rows in ((8, 16), (10, 20), (16, 20)):
        frames = noise_frames(2, side, side, rng)
        every, kept = run(model, frames), run(made, frames)
        assert kept["boxes"].shape == (2, rows, 4) and kept["scores"].shape == (2, rows, 4)
        best = np.sort(every["scores"].max(2))[:, ::-1][:, :rows]
        np.testing.assert_array_equal(kept["scores"].max(2), best)


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("opset", [11, 12, 13, 17, 18, 21])
def test_the_tail_is_valid_in_every_operator_set(opset: int, free: bool) -> None:
    """ONNX Runtime checks each node against the operator set that the graph says it is of."""
    rng = np.random.default_rng(opset)
    model = detector(rng, rows=128, opset=opset, free=free)
    made = prepare(model, card(4, segmentation=False, detection=True), "fp32", tail=Tail(top_k=20))
    onnx.checker.check_model(made, full_check=True)
    frames = noise_frames(2, 16, 16, rng)
    every, kept = run(model, frames), run(made, frames)
    for i in range(2):
        order = np.argsort(-every["scores"][i].max(1), kind="stable")[:20]
        np.testing.assert_array_equal(kept["scores"][i], every["scores"][i][order])
        np.testing.assert_array_equal(kept["boxes"][i], every["boxes"][i][order])


def test_an_operator_set_that_is_too_old_for_the_tail_is_told() -> None:
    model = detector(np.random.default_rng(0), rows=128)
    model.opset_import[0].version = 10
    with pytest.raises(ModelError, match=r"operator set is 10, at least 11"):
        prepare(model, card(4, segmentation=False, detection=True), "fp32", tail=Tail(top_k=20))


def test_top_k_leaves_few_boxes_alone() -> None:
    model = detector(np.random.default_rng(0), rows=64)
    made = prepare(model, card(4, segmentation=False, detection=True), "fp32", tail=Tail(top_k=64))
    assert "TopK" not in {n.op_type for n in made.graph.node}


@pytest.mark.parametrize("tail", [{"top_k": 0}, {"top_k": TOP_K_LIMIT + 1}])
def test_a_tail_that_makes_no_sense(tail: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Tail(**tail)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(n for n, p in model_paths().items() if read_card(p).quantization is None))
def test_shipped_models_keep_their_masks_in_half_precision(name: str) -> None:
    path = model_paths()[name]
    described = read_card(path)
    if described.segmentation is None:
        pytest.skip("no masks")
    spec, output = described.input, described.segmentation.output
    with open_source("synthetic:?size=640x360&frames=1") as source:
        (frame,) = source
    picture, box = to_input(frame.picture, spec.width, spec.height, spec.resize)
    made = {p: prepare(load_onnx(path), described, p, tail=Tail()) for p in ("fp32", "fp16")}  # type: ignore[arg-type]
    exact, half = (class_mask(run(model, picture[None])[output][0], box) for model in made.values())
    assert exact.shape == (360, 640) and len(np.unique(exact)) > 1
    assert (exact == half).mean() > 0.97
