"""The ONNX graph as TensorRT takes it: precision written into it, and a tail that makes results small.

TensorRT is strongly typed here on every version: it computes in the types that the graph says and nothing else.
So half precision is a matter of the graph, and no builder flag can be ignored in silence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from perception.card import DetectionTask, ModelCard
from perception.engines.trt.signed import make_signed
from perception.errors import ModelError, UsageError

GraphPrecision = Literal["fp32", "fp16", "bf16", "int8"]

TYPES = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}

TOP_K = 1000
"""The most boxes of a frame that leave the GPU."""

TOP_K_LIMIT = 3840
"""The most that TensorRT's TopK layer takes."""

_LEAST_OPSET = 11
"""The first with all operators of the tail, in the form that it writes them."""
_AXES_AS_INPUT = 18
"""From here on ``ReduceMax`` has its axes as an input."""

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "GRU", "LSTM", "RNN"})
_QUANTISED = frozenset({"QuantizeLinear", "DequantizeLinear"})
_ALWAYS_FLOAT = {"Resize": (1, 2), "Upsample": (1,)}
"""Inputs that ONNX wants in float32 whatever the data are: region of interest and scales."""


@dataclass(frozen=True, slots=True)
class Tail:
    """The nodes that are appended to the graph of a detector.

    Attributes:
        top_k: how many boxes are kept for each frame, those with the highest score of any class.
    """

    top_k: int = TOP_K

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= TOP_K_LIMIT:
            raise UsageError(f"top_k must be in 1..{TOP_K_LIMIT}, not {self.top_k}")


def prepare(
    model: onnx.ModelProto,
    card: ModelCard,
    precision: GraphPrecision,
    *,
    size: tuple[int, int] | None = None,
    tail: Tail | None = None,
) -> onnx.ModelProto:
    """Prepare a graph for TensorRT's parser; ``model`` is left as it is.

    Args:
        model: a model file's graph.
        card: its card.
        precision: ``fp16`` and ``bf16`` compute from the first to the last convolution or matrix product in that type;
            what comes before (scaling of the pixels) and after (decoding of boxes) stays float32. ``fp32`` and
            ``int8`` leave the types as they are, but for unsigned Q/DQ nodes, which TensorRT does not have; for
            ``int8`` the file must hold Q/DQ nodes.
        size: (width, height) to fix the input to; None leaves it as free as it is.
        tail: what to append; None leaves the outputs as they are.

    Returns:
        A graph with the same input. With a tail, boxes ``[N, k, 4]`` and scores ``[N, k, C]`` are those of the k best
        boxes, best first. Names stay.

    Raises:
        UsageError: the precision does not fit the graph.
        ModelError: half precision of a graph with control flow; a tail on a detector of an operator set before 11.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    _check_quantisation(graph, precision)
    make_signed(graph)
    for node in graph.graph.node:
        node.name = node.name or node.output[0]  # so that the parser's faults can be told by node
    if size is not None:
        _fix_size(graph, card.input.name, size)
    _cast_first(graph, card.input.name)
    if precision in ("fp16", "bf16"):
        _narrow(graph, TYPES[precision])
    if tail is not None and card.detection is not None:
        _append(graph, card.detection, tail.top_k)
    return graph


def is_quantised(model: onnx.ModelProto) -> bool:
    """True where a graph holds Q/DQ nodes."""
    return any(node.op_type in _QUANTISED for node in model.graph.node)


def _check_quantisation(model: onnx.ModelProto, precision: str) -> None:
    quantised = is_quantised(model)
    if precision == "int8" and not quantised:
        raise UsageError(
            "int8 needs a quantised file (QuantizeLinear and DequantizeLinear nodes); use fp16, or quantise the model "
            "first"
        )
    if precision in ("fp16", "bf16") and quantised:
        raise UsageError(f"this file is quantised; build it in int8, not in {precision}")


def _fix_size(model: onnx.ModelProto, name: str, size: tuple[int, int]) -> None:
    for value in model.graph.input:
        if value.name == name:
            dims = value.type.tensor_type.shape.dim
            dims[1].dim_value, dims[2].dim_value, dims[3].dim_value = size[1], size[0], 3


def _cast_first(model: onnx.ModelProto, name: str) -> None:
    """Turn the camera's bytes into floats at once: TensorRT does nothing else with uint8 than to cast it."""
    graph = model.graph
    cast = f"{name}/float"
    for node in graph.node:
        _rename_inputs(node, {name: cast})
    graph.node.insert(0, helper.make_node("Cast", [name], [cast], name=cast, to=TensorProto.FLOAT))
    del graph.value_info[:]  # some of them say uint8


def _narrow(model: onnx.ModelProto, dtype: int) -> None:
    """Compute from the first to the last product in ``dtype``, with casts where that region begins and ends."""
    graph = model.graph
    for node in graph.node:
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
            raise ModelError(f"half precision does not support control flow ({node.op_type}); use fp32")
    floats = _float_tensors(model)
    narrow = _between_products(graph.node)
    weights = {w.name: w for w in graph.initializer}
    constants = {n.output[0]: n for n in graph.node if n.op_type == "Constant"}
    made_narrow = {output for i in narrow for output in graph.node[i].output if output in floats}
    nodes: list[onnx.NodeProto] = []
    copies: dict[str, str] = {}

    def narrowed(tensor: str) -> str:
        """Return the name of a float32 tensor's copy in ``dtype``."""
        if tensor not in copies:
            copies[tensor] = f"{tensor}/narrow"
            value = weights.get(tensor)
            if value is None and tensor in constants:
                value = next((a.t for a in constants[tensor].attribute if a.name == "value"), None)
            if value is None:
                nodes.append(helper.make_node("Cast", [tensor], [copies[tensor]], name=copies[tensor], to=dtype))
            else:
                graph.initializer.append(_converted(value, copies[tensor], dtype))
        return copies[tensor]

    def widened(tensor: str) -> str:
        """Return the name of the float32 copy of a tensor that is in ``dtype``."""
        if tensor not in copies:
            copies[tensor] = f"{tensor}/wide"
            nodes.append(
                helper.make_node("Cast", [tensor], [copies[tensor]], name=copies[tensor], to=TensorProto.FLOAT)
            )
        return copies[tensor]

    for index, node in enumerate(graph.node):
        inside = index in narrow
        if node.op_type == "Cast" and node.input[0] in floats and node.output[0] in floats:
            node.op_type = "Identity"  # float32 to float32, whatever that will be
            del node.attribute[:]
        keep = _ALWAYS_FLOAT.get(node.op_type, ())
        for place, tensor in enumerate(node.input):
            if inside and place not in keep:
                if tensor in floats and tensor not in made_narrow:
                    node.input[place] = narrowed(tensor)
            elif tensor in made_narrow:
                node.input[place] = widened(tensor)
        if inside:
            _set_type(node, dtype)
        nodes.append(node)
    renamed = {}
    for output in graph.output:
        if output.name in made_narrow:
            renamed[output.name] = f"{output.name}/inner"
    for node in nodes:
        _rename_inputs(node, renamed)
        for place, tensor in enumerate(node.output):
            node.output[place] = renamed.get(tensor, tensor)
    nodes += [
        helper.make_node("Cast", [inner], [name], name=f"{name}/end", to=TensorProto.FLOAT)
        for name, inner in renamed.items()
    ]
    used = {tensor for node in nodes for tensor in node.input} | {o.name for o in graph.output}
    kept = [n for n in nodes if n.op_type != "Constant" or n.output[0] in used]
    kept_weights = [w for w in graph.initializer if w.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(kept_weights)


def _between_products(nodes: Iterable[onnx.NodeProto]) -> set[int]:
    """Indices of the nodes that are products, or have one above and one below them."""
    nodes = list(nodes)
    above: set[str] = set()
    after = set()
    for i, node in enumerate(nodes):
        if node.op_type in _PRODUCTS or any(tensor in above for tensor in node.input):
            above.update(node.output)
            after.add(i)
    below: set[str] = set()
    between = set()
    for i in reversed(range(len(nodes))):
        node = nodes[i]
        if node.op_type in _PRODUCTS or any(tensor in below for tensor in node.output):
            below.update(node.input)
            if i in after:
                between.add(i)
    return between


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    """Return the names of all float32 tensors of a graph."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = [*inferred.value_info, *inferred.input, *inferred.output]
    types = {v.name: v.type.tensor_type.elem_type for v in values}
    types |= {w.name: w.data_type for w in inferred.initializer}
    unknown = [t for node in inferred.node for t in node.output if t and t not in types]
    if unknown:
        raise ModelError(f"half precision: cannot infer the type of {unknown[0]!r} in the graph; use fp32")
    return {name for name, elem_type in types.items() if elem_type == TensorProto.FLOAT}


def _set_type(node: onnx.NodeProto, dtype: int) -> None:
    """The attribute in which a node names float32 as the type of its result, name ``dtype``."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = dtype
        elif node.op_type in ("Constant", "ConstantOfShape") and attribute.t.data_type == TensorProto.FLOAT:
            attribute.t.CopyFrom(_converted(attribute.t, attribute.t.name, dtype))


def _converted(tensor: TensorProto, name: str, dtype: int) -> TensorProto:
    """Convert a float32 tensor to ``dtype``, rounded to nearest and clipped to the range of float16."""
    values = numpy_helper.to_array(tensor).astype(np.float32)
    if dtype == TensorProto.FLOAT16:
        return numpy_helper.from_array(np.clip(values, -65504, 65504).astype(np.float16), name)
    # by hand: NumPy has no bfloat16, and not every version of ONNX brings one
    bits = values.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    rounded = np.where(np.isnan(values), np.uint32(0x7FC0), rounded).astype("<u2")
    return helper.make_tensor(name, dtype, values.shape, rounded.tobytes(), raw=True)


def _append(model: onnx.ModelProto, task: DetectionTask, k: int) -> None:
    """Keep the ``k`` boxes whose best class scores highest."""
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)
    if opset < _LEAST_OPSET:
        raise ModelError(f"its operator set is {opset}, at least {_LEAST_OPSET} is needed: export it again")
    graph, boxes, scores, classes = model.graph, task.boxes, task.scores, len(task.classes)
    rows = _rows(model, scores)
    if rows is not None and rows <= k:
        return  # nothing to gain
    p = f"{scores}/top/"
    all_boxes, all_scores = _take_output(graph, boxes), _take_output(graph, scores)
    nodes = []
    if rows is not None:
        _constant(graph, p + "k", np.array([k], np.int64))
    else:  # their number depends on the size, or is beyond what can be inferred
        _constant(graph, p + "most", np.array([k], np.int64))
        _constant(graph, p + "one", np.array([1], np.int64))
        _constant(graph, p + "two", np.array([2], np.int64))
        nodes += [
            helper.make_node("Shape", [all_scores], [p + "shape"]),
            helper.make_node("Slice", [p + "shape", p + "one", p + "two"], [p + "there"]),
        ]
        if opset >= 12:
            nodes.append(helper.make_node("Min", [p + "there", p + "most"], [p + "k"]))
        else:  # whose Min takes floats only
            nodes.append(helper.make_node("Concat", [p + "there", p + "most"], [p + "either"], axis=0))
            nodes.append(helper.make_node("ReduceMin", [p + "either"], [p + "k"]))
    if opset < _AXES_AS_INPUT:
        nodes.append(helper.make_node("ReduceMax", [all_scores], [p + "best"], axes=[2]))
    else:
        _constant(graph, p + "axes", np.array([2], np.int64))
        nodes.append(helper.make_node("ReduceMax", [all_scores, p + "axes"], [p + "best"]))
    nodes.append(helper.make_node("TopK", [p + "best", p + "k"], [p + "values", p + "rows"], axis=1))  # [N, k, 1]
    # operators that are the same from opset 11 on, unlike Unsqueeze and GatherND
    for name, whole, width in ((boxes, all_boxes, 4), (scores, all_scores, classes)):
        _constant(graph, f"{p}{name}/width", np.array([1, 1, width], np.int64))
        nodes += [
            helper.make_node("Expand", [p + "rows", f"{p}{name}/width"], [f"{p}{name}/rows"]),
            helper.make_node("GatherElements", [whole, f"{p}{name}/rows"], [name], axis=1),
        ]
    for node in nodes:
        node.name = f"tail/{node.output[0]}"
    graph.node.extend(nodes)
    kept = None if rows is None else k
    _replace_output(graph, helper.make_tensor_value_info(boxes, TensorProto.FLOAT, ["N", kept, 4]))
    _replace_output(graph, helper.make_tensor_value_info(scores, TensorProto.FLOAT, ["N", kept, classes]))


def _rows(model: onnx.ModelProto, scores: str) -> int | None:
    """K of the scores ``[N, K, C]``, if it can be told."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for output in inferred.graph.output:
        if output.name == scores:
            dims = output.type.tensor_type.shape.dim
            if len(dims) == 3:
                return dims[1].dim_value or None
    return None


def _take_output(graph: onnx.GraphProto, name: str) -> str:
    """Rename the tensor of an output, so that the name is free for what is appended; returns the new name."""
    inner = f"{name}/whole"
    for node in graph.node:
        _rename_inputs(node, {name: inner})
        for place, tensor in enumerate(node.output):
            if tensor == name:
                node.output[place] = inner
    return inner


def _rename_inputs(node: onnx.NodeProto, names: dict[str, str]) -> None:
    for place, tensor in enumerate(node.input):
        if tensor in names:
            node.input[place] = names[tensor]


def _replace_output(graph: onnx.GraphProto, value: Any) -> None:
    for output in graph.output:
        if output.name == value.name:
            output.CopyFrom(value)


def _constant(graph: onnx.GraphProto, name: str, value: np.ndarray) -> None:
    graph.initializer.append(numpy_helper.from_array(value, name))
