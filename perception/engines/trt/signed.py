"""Quantised activations as TensorRT has them: signed.

CPUs like activations that are never negative in uint8. TensorRT has no such type: its parser reads uint8 as int8 with
the same scale, says so in a warning, and whatever is above half of the range is cut off. So the range is kept here and
the steps are made twice as wide.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

_WIDER = 255 / 127


def make_signed(model: onnx.ModelProto) -> None:
    """Turn uint8 Q/DQ pairs with a zero point of 0 into int8 ones of the same range, in place.

    Others are left: TensorRT's parser names those whose zero point is not 0.
    """
    graph = model.graph
    constants = {w.name: w for w in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    made: dict[str, str] = {}
    turned: set[str] = set()
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            unsigned = len(node.input) < 3 or _is_unsigned_zero(constants.get(node.input[2]))
        elif node.op_type == "DequantizeLinear":
            given = constants.get(node.input[2]) if len(node.input) > 2 else None
            unsigned = node.input[0] in turned or (node.input[0] not in constants and _is_unsigned_zero(given))
        else:
            continue
        scale = constants.get(node.input[1])
        if not unsigned or scale is None:
            continue
        if node.input[1] not in made:
            steps = numpy_helper.to_array(scale)
            wider, zero = f"{node.input[1]}/signed", f"{node.input[1]}/signed/zero"
            graph.initializer.append(numpy_helper.from_array((steps * _WIDER).astype(steps.dtype), wider))
            graph.initializer.append(numpy_helper.from_array(np.zeros(steps.shape, np.int8), zero))
            made[node.input[1]] = wider
        wider = made[node.input[1]]
        node.input[:] = [node.input[0], wider, f"{wider}/zero"]
        turned.update(node.output)
    said = [value for value in graph.value_info if value.name not in turned]  # they say uint8
    del graph.value_info[:]
    graph.value_info.extend(said)


def _is_unsigned_zero(tensor: onnx.TensorProto | None) -> bool:
    return tensor is not None and tensor.data_type == onnx.TensorProto.UINT8 and not numpy_helper.to_array(tensor).any()
