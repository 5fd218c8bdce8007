"""The ONNX graph before and after quantisation: made ready for it, and layers taken back out of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operations that eight bits make faster."""

QUANTISERS = frozenset({"QuantizeLinear", "DequantizeLinear"})


def is_quantised(model: onnx.ModelProto) -> bool:
    """Return whether a graph holds Q/DQ nodes."""
    return any(node.op_type in QUANTISERS for node in model.graph.node)


def tidied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a graph as quantisers need it.

    Every node has a name of its own, weights that are stored in another type are float32 again, and no cast is without
    effect.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    taken: set[str] = set()
    for number, node in enumerate(made.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
            while node.name in taken:
                node.name += "_"
        taken.add(node.name)
    _widen_weights(made)
    _drop_idle_casts(made)
    return made


def outside_products(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes that have no convolution or matrix product above them or none below.

    That is the scaling of the pixels, and the decoding of boxes and scores: eight bits gain nothing there, and a box in
    steps of a 256th of the picture is no box.
    """
    nodes = list(model.graph.node)
    above = _reached(nodes, lambda node: node.input, lambda node: node.output)
    below = _reached(nodes[::-1], lambda node: node.output, lambda node: node.input)
    return [node.name for node in nodes if node.name not in above or node.name not in below]


def quantised_layers(model: onnx.ModelProto) -> list[str]:
    """Return the names of the nodes fed by a DequantizeLinear: those that compute in eight bits."""
    dequantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return [
        node.name
        for node in model.graph.node
        if node.op_type not in QUANTISERS and any(tensor in dequantised for tensor in node.input)
    ]


def with_float_layers(quantised: onnx.ModelProto, original: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """Return a copy of the quantised graph in which some layers compute as they did in the original.

    Args:
        quantised: the graph with Q/DQ nodes; nodes and tensors have the names of the original.
        original: the graph without.
        names: nodes to put back, with the weights and the bias that they had.
    """
    made = onnx.ModelProto()
    made.CopyFrom(quantised)
    before = {node.name: node for node in original.graph.node}
    weights = {w.name: w for w in original.graph.initializer}
    restored: dict[str, str] = {}
    for node in made.graph.node:
        if node.name in names:
            node.input[:] = before[node.name].input
            for place, tensor in enumerate(node.input):
                if tensor in weights:  # under its own name may stand a bias that was corrected for rounding
                    node.input[place] = restored.setdefault(tensor, f"{tensor}/float")
    for tensor, name in restored.items():
        weight = onnx.TensorProto()
        weight.CopyFrom(weights[tensor])
        weight.name = name
        made.graph.initializer.append(weight)
    _drop_unused(made)
    del made.graph.value_info[:]  # some of it is of tensors that are gone
    return made


def _reached(
    nodes: Iterable[onnx.NodeProto],
    sources: Callable[[onnx.NodeProto], Iterable[str]],
    results: Callable[[onnx.NodeProto], Iterable[str]],
) -> set[str]:
    """Return the names of the products and of all that follow them, in the order of ``nodes``."""
    tensors: set[str] = set()
    names = set()
    for node in nodes:
        if node.op_type in PRODUCTS or any(tensor in tensors for tensor in sources(node)):
            tensors.update(t for t in results(node) if t)
            names.add(node.name)
    return names


def _widen_weights(model: onnx.ModelProto) -> None:
    """Compute casts of weights to float32 here and now: what comes out of a cast is no weight to a quantiser."""
    graph = model.graph
    weights = {w.name: w for w in graph.initializer}
    kept = []
    for node in graph.node:
        stored = weights.get(node.input[0]) if node.op_type == "Cast" else None
        if stored is None or helper.get_node_attr_value(node, "to") != TensorProto.FLOAT:
            kept.append(node)
            continue
        values = numpy_helper.to_array(stored).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
    del graph.node[:]
    graph.node.extend(kept)
    _drop_unused(model)


def _drop_idle_casts(model: onnx.ModelProto) -> None:
    """Take out casts from a type to itself; where one ends in an output of the graph, its source takes that name."""
    graph = model.graph
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.input, *inferred.output)}
    outputs = {value.name for value in graph.output}
    fixed = outputs | {value.name for value in graph.input} | {w.name for w in graph.initializer}
    kept = []
    names: dict[str, str] = {}
    for node in graph.node:
        source, result = (node.input[0], node.output[0]) if node.op_type == "Cast" else ("", "")
        origin = _last(names, source)
        if node.op_type != "Cast" or types.get(source) != helper.get_node_attr_value(node, "to"):
            kept.append(node)
        elif result not in outputs:
            names[result] = origin
        elif origin not in fixed:
            names[origin] = result
        else:
            kept.append(node)
    for node in kept:
        node.input[:] = [_last(names, tensor) for tensor in node.input]
        node.output[:] = [_last(names, tensor) for tensor in node.output]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(kept)


def _last(names: dict[str, str], tensor: str) -> str:
    while tensor in names:
        tensor = names[tensor]
    return tensor


def _drop_unused(model: onnx.ModelProto) -> None:
    """Take out nodes whose results nobody reads, and weights that no node does."""
    graph = model.graph
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if any(tensor in wanted for tensor in node.output):
            wanted.update(node.input)
            kept.append(node)
    weights = [w for w in graph.initializer if w.name in wanted]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(weights)
