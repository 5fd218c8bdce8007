"""Weights stored in half precision: a file of half the size, computed with as before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from perception.card import load_onnx
from perception.errors import ModelError, SinkError

LEAST_VALUES = 1024
"""Smaller tensors, such as biases, stay: nothing is won with them."""


def write_half(model: Path, output: Path) -> float:
    """Write the model file ``model`` to ``output`` with its weights in half; see `store_in_half`.

    Raises:
        ModelError: it cannot be read, or has weights that are too large.
        SinkError: the file cannot be written.
    """
    proto = load_onnx(model)
    try:
        change = store_in_half(proto)
    except ValueError as error:
        raise ModelError(str(error), model) from None
    beside = output.with_name(f".{output.name}.tmp")
    try:
        onnx.save(proto, str(beside))
        beside.replace(output)
    except OSError as error:
        raise SinkError(f"cannot write the model: {error.strerror or error}", output) from None
    finally:
        beside.unlink(missing_ok=True)
    return change


def store_in_half(model: onnx.ModelProto) -> float:
    """Store the large float32 weights of a graph in float16, each with a cast to float32 behind it, in place.

    Runtimes compute such casts once, when the model is loaded. Rounding to float16 moves a weight by at most one part
    in 2048.

    Returns:
        The largest change of a weight, relative to the largest weight of its tensor.

    Raises:
        ValueError: a weight is beyond the range of float16, 65504.
    """
    graph = model.graph
    casts = []
    worst = 0.0
    for weight in graph.initializer:
        if weight.data_type != TensorProto.FLOAT or np.prod(weight.dims) < LEAST_VALUES:
            continue
        name = weight.name
        exact = numpy_helper.to_array(weight)
        largest = float(np.abs(exact).max())
        if largest > float(np.finfo(np.float16).max):
            raise ValueError(f"{name} has the weight {largest:g}, which is too large for float16")
        half = exact.astype(np.float16)
        worst = max(worst, float(np.abs(half.astype(np.float32) - exact).max()) / max(largest, 1e-30))
        weight.CopyFrom(numpy_helper.from_array(half, f"{name}/half"))
        casts.append(helper.make_node("Cast", [weight.name], [name], name=weight.name, to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return worst
