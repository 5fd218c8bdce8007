"""The summary of a model file, from its ONNX graph: as exported, with batch norms folded."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from perception.card import load_onnx, read_card
from perception.errors import ModelError
from perception.model import check_size
from perception.networks.arithmetic import Field, convolution_multiplications
from perception.networks.layers import Fields, Layer, Summary, joined
from perception.weights.library import find_model

POOLINGS = ("MaxPool", "AveragePool")
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
UNPACKING = ("Cast", "DequantizeLinear", "Identity")
QUANTISING = ("QuantizeLinear", "DequantizeLinear")
SHOWN = (*WEIGHTED, *POOLINGS, "GlobalAveragePool", "BatchNormalization", "Resize", "Softmax")


def summarise_graph(name: str, size: tuple[int, int] | None = None) -> Summary:
    """Summarise a model file: sizes, cost and receptive fields of its layers with weights, and its poolings.

    Args:
        name: of a model, or an ``.onnx`` file.
        size: (width, height) of the image; the card's where None.

    Raises:
        ModelError: it cannot be read, or its shapes cannot be worked out.
        UsageError: a size that it cannot take.
    """
    import onnx
    from onnx import helper, shape_inference

    path: Path = find_model(name)
    card = read_card(path)
    width, height = check_size(card, size, path)
    model = load_onnx(path)
    given = next(i for i in model.graph.input if i.name == card.input.name)
    for dimension, value in zip(given.type.tensor_type.shape.dim, (1, height, width, 3), strict=True):
        dimension.dim_value = value
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        inferred = shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        raise ModelError(f"its shapes cannot be inferred: {str(error).splitlines()[0]}", path) from None
    graph = inferred.graph
    shapes = {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.output, given)
    }
    weights = {t.name: tuple(t.dims) for t in graph.initializer if t.data_type in (1, 10, 11, 16, 3, 2)}
    # weights may be stored in half or in eight bits
    scales = {name for node in graph.node if node.op_type in QUANTISING for name in node.input[1:]}
    for node in graph.node:
        if node.op_type in UNPACKING and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    fields: dict[str, Fields] = {card.input.name: (Field(), Field())}
    layers = []
    for node in graph.node:
        attributes: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        before = [fields[i] for i in node.input if i in fields]
        after = _seen(node.op_type, joined(before) if before else (Field(), Field()), attributes, weights, node.input)
        if node.op_type == "Resize" and after is not None:
            after = _enlarged(after, shapes.get(node.input[0], ()), shapes.get(node.output[0], ()))
        fields.update(dict.fromkeys(node.output, after))
        if node.op_type in SHOWN:
            layers.append(_layer(node, attributes, shapes, weights, after))
    parameters = sum(prod(t.dims) for t in graph.initializer if t.data_type in (1, 10, 16, 3) and t.name not in scales)
    return Summary(card.name, (3, height, width), layers, int(parameters))


def _layer(
    node: Any, attributes: dict[str, Any], shapes: dict[str, tuple[int, ...]], weights: dict[str, tuple[int, ...]],
    after: Fields,
) -> Layer:  # fmt: skip
    output = shapes.get(node.output[0], ())
    own = [weights[i] for i in node.input if i in weights]
    multiplications, kind = 0, node.op_type
    if node.op_type == "Conv" and own and len(output) == 4:
        out_channels, per_group, *kernel = own[0]
        groups = attributes.get("group", 1)
        multiplications = convolution_multiplications(
            per_group * groups, out_channels, (kernel[0], kernel[1]), (output[2], output[3]), groups
        )
    elif node.op_type == "ConvTranspose" and own and len(output) == 4:
        strides = attributes.get("strides", [1, 1])
        multiplications = prod(own[0]) * output[2] * output[3] // prod(strides)
    elif node.op_type in ("Gemm", "MatMul") and own:
        multiplications = prod(own[0]) * prod(output[1:-1])
    taps = attributes.get("kernel_shape") or (list(own[0][2:]) if node.op_type == "Conv" and own else None)
    if taps:
        kind += f" {'x'.join(map(str, taps))}"
        if max(attributes.get("strides", [1])) > 1:
            kind += f"/{attributes['strides'][0]}"
        if attributes.get("group", 1) > 1:
            kind += f", {attributes['group']} groups"
    return Layer(
        node.name or node.output[0],
        kind,
        output[1:],
        sum(prod(shape) for shape in own),
        multiplications,
        None if after is None else (after[0].size, after[1].size),
        None if after is None else (after[0].step, after[1].step),
    )


def _enlarged(before: tuple[Field, Field], given: tuple[int, ...], made: tuple[int, ...]) -> tuple[Field, Field]:
    """Receptive fields behind bilinear enlargement: one neighbour more, nearer to each other."""
    if len(given) != 4 or len(made) != 4 or 0 in (*given[2:], *made[2:]):
        return before
    steps = [max(round(f.step * given[axis] / made[axis]), 1) for f, axis in zip(before, (2, 3), strict=True)]
    rows, columns = (Field(f.size + f.step, step) for f, step in zip(before, steps, strict=True))
    return rows, columns


def _seen(
    kind: str, before: Fields, attributes: dict[str, Any], weights: dict[str, tuple[int, ...]], inputs: Any
) -> Fields:
    """Return the receptive fields behind a node."""
    if before is None or kind in ("GlobalAveragePool", "ReduceMean", "Gemm"):
        return None
    if kind == "Conv" or kind in POOLINGS:
        kernel = attributes.get("kernel_shape") or weights[inputs[1]][2:]
        strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
        rows, columns = (before[i].after(kernel[i], strides[i], dilations[i]) for i in (0, 1))
        return rows, columns
    return before
