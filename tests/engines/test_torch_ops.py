"""Each operation of the torch engine against ONNX's own reference implementation."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

pytest.importorskip("torch")

import torch

from perception.engines.torch_ops import OPERATIONS


def f32(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


X = f32(2, 4, 7, 6)
SMALL = f32(1, 2, 5, 4)
POSITIVE = np.abs(X) + 0.1

# name of the case: (operator, inputs, attributes, number of outputs, opset)
CASES: dict[str, tuple[str, list[Any], dict[str, Any], int, int]] = {}


def case(name: str, op: str, *inputs: Any, outputs: int = 1, opset: int = 18, **attributes: Any) -> None:
    assert name not in CASES
    CASES[name] = (op, list(inputs), attributes, outputs, opset)


for op in ("Abs", "Ceil", "Erf", "Exp", "Floor", "HardSwish", "Identity", "Neg", "Relu", "Round", "Sigmoid", "Tanh"):
    case(op, op, X)
for op in ("Softplus", "Elu", "LeakyRelu", "HardSigmoid"):
    case(op, op, X)
for op in ("Log", "Sqrt", "Reciprocal"):
    case(op, op, POSITIVE)
for op in ("Add", "Sub", "Mul", "Div", "Max", "Min"):
    case(op, op, X, f32(4, 1, 6, seed=1))
for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"):
    case(op, op, np.round(X), np.round(f32(2, 4, 7, 6, seed=1)))
for op in ("And", "Or"):
    case(op, op, X > 0, f32(2, 4, 7, 6, seed=1) > 0)
case("not", "Not", X > 0)
case("pow", "Pow", POSITIVE, np.float32(1.7))
case("sum of three", "Sum", X, f32(6, seed=1), f32(7, 1, seed=2))
case("div of integers rounds to zero", "Div", ints(-7, 7, 9), ints(2, 2, -4))
case("elu alpha", "Elu", X, alpha=0.3)
case("leaky alpha", "LeakyRelu", X, alpha=0.3)
case("hard sigmoid", "HardSigmoid", X, alpha=0.3, beta=0.4)
case("prelu", "PRelu", X, f32(4, 1, 1, seed=1))
case("gelu", "Gelu", X, opset=20)
case("gelu tanh", "Gelu", X, opset=20, approximate="tanh")
case("clip", "Clip", X, np.float32(-0.5), np.float32(0.5))
case("clip from below", "Clip", X, np.float32(-0.5))
case("clip from above", "Clip", X, None, np.float32(0.5))
case("clip by attributes", "Clip", X, opset=6, min=-0.5, max=0.5)
case("where", "Where", X > 0, X, f32(1, 4, 1, 1, seed=1))
case("cast to float", "Cast", np.arange(12, dtype=np.uint8).reshape(3, 4), to=onnx.TensorProto.FLOAT)
case("cast to integer cuts", "Cast", X * 5, to=onnx.TensorProto.INT32)
case("dropout", "Dropout", X)

case("conv", "Conv", X, f32(5, 4, 3, 3, seed=1), f32(5, seed=2), pads=[1, 1, 1, 1], kernel_shape=[3, 3])
case("conv strided, dilated", "Conv", X, f32(5, 4, 2, 2, seed=1), strides=[2, 1], dilations=[1, 2])
case("conv grouped", "Conv", X, f32(4, 1, 3, 3, seed=1), group=4, pads=[1, 1, 1, 1])
case("conv uneven pads", "Conv", X, f32(5, 4, 3, 3, seed=1), pads=[0, 1, 2, 0], strides=[2, 2])
case("conv same upper", "Conv", X, f32(5, 4, 3, 3, seed=1), auto_pad="SAME_UPPER", strides=[2, 2])
case("conv same lower", "Conv", X, f32(5, 4, 3, 3, seed=1), auto_pad="SAME_LOWER", strides=[2, 2])
case("conv 1d", "Conv", f32(2, 3, 9), f32(4, 3, 3, seed=1), pads=[1, 1])
case("transposed conv", "ConvTranspose", X, f32(4, 3, 2, 2, seed=1), f32(3, seed=2), strides=[2, 2])
case("transposed conv padded", "ConvTranspose", X, f32(4, 3, 4, 4, seed=1), strides=[2, 2], pads=[1, 1, 1, 1])
case(
    "transposed conv output padding", "ConvTranspose", X, f32(4, 3, 3, 3, seed=1), strides=[2, 2],
    pads=[1, 1, 1, 1], output_padding=[1, 1],
)  # fmt: skip
case("batch norm", "BatchNormalization", X, *(np.abs(f32(4, seed=s)) + 0.1 for s in range(1, 5)), epsilon=1e-3)
case("max pool", "MaxPool", X, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
case("max pool uneven pads", "MaxPool", X - 5, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
case("average pool", "AveragePool", X, kernel_shape=[2, 3], strides=[2, 3])
case("average pool padded", "AveragePool", X, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
case("average pool counts pads", "AveragePool", X, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
case("global average", "GlobalAveragePool", X)
case("global max", "GlobalMaxPool", X)
case("matmul", "MatMul", f32(2, 3, 4), f32(2, 4, 5, seed=1))
case("gemm", "Gemm", f32(4, 3), f32(5, 4, seed=1), f32(5, seed=2), transA=1, transB=1, alpha=0.5, beta=2.0)
case("softmax", "Softmax", X, axis=1)
case("log softmax", "LogSoftmax", X, axis=1)

for op in ("ReduceMean", "ReduceMax", "ReduceMin"):
    case(f"{op} by attribute", op, X, opset=13, axes=[2, 3], keepdims=0)
    case(f"{op} by input", op, X, ints(-1), opset=18)
case("sum by input", "ReduceSum", X, ints(1, 2), keepdims=0)
case("sum of all", "ReduceSum", X)
case("sum of none", "ReduceSum", X, ints(), noop_with_empty_axes=1)
case("argmax", "ArgMax", X, axis=1, keepdims=0)
case("argmin", "ArgMin", X, axis=-1)
case("top k", "TopK", f32(3, 8), ints(3), outputs=2)
case("gather elements", "GatherElements", f32(3, 8), np.array([[0, -1], [7, 2], [3, 3]]), axis=1)
case("bottom k", "TopK", f32(3, 8), ints(3), outputs=2, axis=0, largest=0)

case("concat", "Concat", X, X[:, :1], axis=1)
case("transpose", "Transpose", X, perm=[0, 2, 3, 1])
case("transpose all", "Transpose", X)
case("reshape keeps", "Reshape", X, ints(0, -1, 6))
case("flatten", "Flatten", X, axis=2)
case("squeeze", "Squeeze", f32(1, 3, 1, 2), ints(0, -2))
case("squeeze all", "Squeeze", f32(1, 3, 1, 2))
case("squeeze by attribute", "Squeeze", f32(1, 3, 1, 2), opset=11, axes=[2])
case("unsqueeze", "Unsqueeze", f32(3, 2), ints(0, -1))
case("slice", "Slice", X, ints(1, 0), ints(6, -1), ints(2, 3), ints(2, 1))
case("slice beyond", "Slice", X, ints(-100), ints(2**62), ints(2))
case("slice nothing", "Slice", X, ints(5), ints(2), ints(2))
case("slice backwards", "Slice", X, ints(-1), ints(-(2**62)), ints(3), ints(-2))
case("slice without axes", "Slice", X, ints(0, 1), ints(1, 3))
case("split", "Split", X, ints(1, 3), outputs=2, axis=1)
case("split evenly", "Split", f32(7, 2), outputs=3, num_outputs=3)
case("gather", "Gather", X, np.array([[0, -1], [2, 1]]), axis=2)
case("gather one", "Gather", X, np.array(1), axis=1)
case("expand", "Expand", f32(3, 1), ints(2, 1, 4))
case("tile", "Tile", f32(2, 3), ints(2, 1))
case("shape", "Shape", X)
case("shape of the middle", "Shape", X, start=1, end=-1)
case("range", "Range", np.array(2), np.array(11), np.array(3))
case(
    "constant of shape", "ConstantOfShape", ints(2, 3), value=helper.make_tensor("v", onnx.TensorProto.INT64, [1], [7])
)
case("pad", "Pad", SMALL, ints(0, 0, 1, 2, 0, 1, 0, 3), np.float32(1.5))
case("pad chosen axes", "Pad", SMALL, ints(1, 2), None, ints(-1))
case("pad reflects", "Pad", SMALL, ints(0, 0, 1, 2, 0, 0, 1, 3), mode="reflect")
case("pad repeats the edge", "Pad", SMALL, ints(0, 0, 1, 2, 0, 0, 1, 3), mode="edge")
case("depth to space", "DepthToSpace", f32(2, 8, 3, 2), blocksize=2)
case("depth to space crd", "DepthToSpace", f32(2, 8, 3, 2), blocksize=2, mode="CRD")
case("space to depth", "SpaceToDepth", f32(2, 2, 4, 6), blocksize=2)

TWICE, SIZE = np.array([1, 1, 2, 2], np.float32), ints(1, 2, 8, 11)
case("resize", "Resize", SMALL, None, TWICE, mode="linear")
case("resize to a size", "Resize", SMALL, None, None, SIZE, mode="linear")
case(
    "resize by corners",
    "Resize",
    SMALL,
    None,
    None,
    SIZE,
    mode="linear",
    coordinate_transformation_mode="align_corners",
)
case(
    "resize nearest", "Resize", SMALL, None, TWICE, mode="nearest", coordinate_transformation_mode="asymmetric",
    nearest_mode="floor",
)  # fmt: skip
case("resize nearest by centres", "Resize", SMALL, None, None, ints(1, 2, 10, 12), mode="nearest")
case("resize cubic", "Resize", SMALL, None, None, SIZE, mode="cubic")

ZERO_I8, ZERO_U8 = np.array(3, np.int8), np.array([3, 120], np.uint8)
case("quantize", "QuantizeLinear", SMALL * 4, np.float32(0.05), ZERO_I8, opset=19)
case("quantize by channel", "QuantizeLinear", SMALL, np.array([0.02, 0.01], np.float32), ZERO_U8, axis=1, opset=19)
case("dequantize", "DequantizeLinear", np.arange(-4, 4, dtype=np.int8), np.float32(0.5), ZERO_I8, opset=19)
case("constant", "Constant", value=helper.make_tensor("v", onnx.TensorProto.FLOAT, [2], [1.5, 2]))
case("constant floats", "Constant", value_floats=[1.5, 2.5])
case("constant integer", "Constant", value_int=3)


@pytest.mark.parametrize("name", CASES)
def test_like_the_onnx_reference(name: str) -> None:
    op, arrays, attributes, count, opset = CASES[name]
    inputs = ["" if array is None else f"x{i}" for i, array in enumerate(arrays)]
    outputs = [f"y{i}" for i in range(count)]
    node = helper.make_node(op, inputs, outputs, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(i, helper.np_dtype_to_tensor_dtype(np.asarray(a).dtype), np.asarray(a).shape)
            for i, a in zip(inputs, arrays, strict=True)
            if i
        ],
        [helper.make_value_info(name, onnx.TypeProto()) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    given = {i: np.asarray(a) for i, a in zip(inputs, arrays, strict=True) if i}
    expected = ReferenceEvaluator(model).run(None, given)

    read = {a.name: helper.get_attribute_value(a) for a in node.attribute} | {"opset": opset, "outputs": count}
    results = OPERATIONS[op](read, *(None if a is None else torch.from_numpy(np.array(a)) for a in arrays))

    results = results if isinstance(results, tuple) else (results,)
    assert len(results) == count
    for result, right in zip(results, expected, strict=True):
        got = result.numpy()
        assert got.shape == np.shape(right)
        assert got.dtype == np.asarray(right).dtype
        np.testing.assert_allclose(got, right, rtol=1e-5, atol=1e-5)


def test_every_operation_has_a_case() -> None:
    assert {op for op, *_ in CASES.values()} == set(OPERATIONS)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Resize", {"mode": b"linear", "coordinate_transformation_mode": b"tf_crop_and_resize"}),
        ("Resize", {"mode": b"nearest", "nearest_mode": b"ceil"}),
        ("ConvTranspose", {"auto_pad": b"SAME_UPPER"}),
        ("ArgMax", {"select_last_index": 1}),
    ],
)
def test_what_is_not_known_is_refused(op: str, attributes: dict[str, Any]) -> None:
    x = torch.zeros(1, 2, 4, 4)
    more = [None, torch.tensor([1.0, 1, 2, 2])] if op == "Resize" else [x] if op == "ConvTranspose" else []
    with pytest.raises(NotImplementedError):
        OPERATIONS[op]({"opset": 18, "outputs": 1, **attributes}, x, *more)


def test_softmax_before_opset_13_flattens() -> None:
    rows = np.exp(X.reshape(2, -1) - X.max())
    expected = (rows / rows.sum(1, keepdims=True)).reshape(X.shape)
    result = OPERATIONS["Softmax"]({"opset": 11, "axis": 1}, torch.from_numpy(X))
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5)


def test_negative_padding_cuts() -> None:
    result = OPERATIONS["Pad"]({}, torch.from_numpy(SMALL), torch.tensor([0, 0, -1, 0, 0, 0, 0, -2]))
    np.testing.assert_array_equal(result.numpy(), SMALL[:, :, 1:, :-2])
