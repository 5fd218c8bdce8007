"""Preprocessing for a foreign graph: from camera bytes to its input."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from perception.foreign.adapter import ForeignCard, ForeignInput
from perception.foreign.graph import Graph

_FLOATS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}


def adapt_input(graph: Graph, card: ForeignCard) -> int | str:
    """Replace the image input by uint8 ``[N, height, width, 3]`` BGR, and fix all other inputs.

    Returns:
        The batch size N, a text where it is free.

    Raises:
        ModelError: the input that the card describes is not the one that the graph has.
    """
    spec = card.adapter.input
    name = _image_input(graph, spec)
    dtype, shape = graph.inputs[name]
    alone = len(shape) == 3  # one picture without an axis for the batch, as torchvision's detectors take it
    shape = (1, *shape) if alone else tuple(shape)
    width, height, free = card.input.width, card.input.height, card.input.multiple is not None
    axis = 1 if spec.layout == "NCHW" else 3
    rows, columns = (2, 3) if axis == 1 else (1, 2)
    if len(shape) != 4 or shape[axis] not in (3, None):
        raise graph.fault(f"input {name!r} is not {spec.layout} with 3 channels, as adapter.input.layout says")
    if shape[rows] not in (height, None) or shape[columns] not in (width, None):
        raise graph.fault(
            f"input {name!r} takes {shape[columns] or 'any'}x{shape[rows] or 'any'} (width x height), and the card's "
            f"input says {width}x{height}"
        )
    if free and None not in (shape[rows], shape[columns]):
        raise graph.fault(f"input {name!r} has one size only: leave out input.multiple")
    if not free and (shape[rows] is None or shape[columns] is None):
        sizes = [None, None, height, width] if axis == 1 else [None, height, width, None]
        graph.fix_input(name, sizes[1:] if alone else sizes)
    batch: int | str = shape[0] or "N"
    size = ["height", "width"] if free else [height, width]
    frames = graph.set_input(card.input.name, TensorProto.UINT8, [batch, *size, 3])
    _set_constants(graph, spec, name)
    image = graph.tensor(name)
    if dtype == "uint8":
        frames = _bytes(graph, spec, frames, name)
    elif dtype in _FLOATS:
        frames = _normalise(graph, spec, graph.cast(frames, front=True), image, axis == 1 and not alone)
        if dtype != "float32":
            frames = graph.cast(frames, _FLOATS[dtype], front=True)
    else:
        raise graph.fault(f"input {name!r} is {dtype}; float32, float16 and uint8 are known")
    if alone:
        frames = graph.add("Gather", frames, graph.constant(0, np.int64), front=True, axis=0)
    # Planes last: CPU engines compute with the channels of a pixel side by side, and need not move anything.
    if axis == 1:
        graph.add("Transpose", frames, front=True, result=image, perm=[2, 0, 1] if alone else [0, 3, 1, 2])
    else:
        graph.add("Identity", frames, front=True, result=image)
    return batch


def _image_input(graph: Graph, spec: ForeignInput) -> str:
    unknown = [name for name in spec.constants if name not in graph.inputs]
    if unknown:
        raise graph.fault(f"it has no input {unknown[0]!r}, as adapter.input.constants says")
    left = [name for name in graph.inputs if name not in spec.constants]
    if spec.name is None:
        if len(left) != 1:
            raise graph.fault(
                f"it has {len(left)} inputs that are not fixed: name the image in adapter.input.name and give values "
                "for the others in adapter.input.constants"
            )
        return left[0]
    if spec.name not in graph.inputs:
        raise graph.fault(f"it has no input {spec.name!r}, as adapter.input.name says")
    others = [name for name in left if name != spec.name]
    if others:
        raise graph.fault(f"give values for its other inputs in adapter.input.constants: {', '.join(others)}")
    if spec.name not in left:
        raise graph.fault(f"input {spec.name!r} is both the image and in adapter.input.constants")
    return spec.name


def _set_constants(graph: Graph, spec: ForeignInput, image: str) -> None:
    for name, value in spec.constants.items():
        dtype, shape = graph.inputs[name]
        try:
            array = np.asarray(value, dtype=np.dtype(dtype))
        except (TypeError, ValueError):
            raise graph.fault(f"adapter.input.constants.{name} must be numbers of type {dtype}") from None
        if array.ndim != len(shape) or any(
            want not in (got, None) for want, got in zip(shape, array.shape, strict=True)
        ):
            raise graph.fault(f"adapter.input.constants.{name} has shape {list(array.shape)}, which the input has not")
        graph.model.graph.initializer.append(numpy_helper.from_array(array, graph.tensor(name)))


def _bytes(graph: Graph, spec: ForeignInput, frames: str, name: str) -> str:
    if spec.scale != 1 or any(spec.mean) or spec.std != (1, 1, 1):
        raise graph.fault(f"input {name!r} is uint8, so scaling is inside the graph: scale and std are 1, mean is 0")
    return _swapped(graph, frames) if spec.channels == "RGB" else frames


def _normalise(graph: Graph, spec: ForeignInput, frames: str, image: str, planes: bool) -> str:
    """``(pixel * scale - mean) / std`` in the graph's channel order, from float ``[N, H, W, 3]`` BGR."""
    gain = np.float64(spec.scale) / np.array(spec.std)
    offset = np.array(spec.mean) / spec.scale  # in units of pixels
    swap = spec.channels == "RGB"
    convolution = _first_convolution(graph, image) if planes else None
    if convolution is not None:
        # The first convolution takes over gain and channel order, so that they cost nothing. An offset cannot go
        # there: the zeros that the convolution pads with are zeros after normalisation.
        node, weights = convolution
        scaled = weights * gain[:, None, None].astype(np.float32)
        node.input[1] = graph.constant(scaled[:, ::-1] if swap else scaled)
        return _offset(graph, frames, offset[::-1] if swap else offset)
    if swap:
        frames = _swapped(graph, frames)
    frames = _offset(graph, frames, offset)
    return frames if (gain == 1).all() else graph.add("Mul", frames, _channels(graph, gain), front=True)


def _first_convolution(graph: Graph, image: str) -> tuple[onnx.NodeProto, NDArray[np.float32]] | None:
    """Find the only node that takes the image, if it is a convolution, with its weights ``[out, 3, h, w]``."""
    consumers = graph.consumers(image)
    if len(consumers) != 1 or any(output.name == image for output in graph.model.graph.output):
        return None
    node = consumers[0]
    if node.op_type != "Conv" or node.domain not in ("", "ai.onnx") or node.input[0] != image:
        return None
    attributes: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    weights = graph.initializer(node.input[1])
    if weights is None or weights.dtype != np.float32 or weights.shape[1:2] != (3,) or attributes.get("group", 1) != 1:
        return None
    return node, weights


def _offset(graph: Graph, frames: str, offset: NDArray[np.float64]) -> str:
    return graph.add("Sub", frames, _channels(graph, offset), front=True) if offset.any() else frames


def _swapped(graph: Graph, frames: str) -> str:
    return graph.add("Gather", frames, graph.constant([2, 1, 0], np.int64), front=True, axis=3)


def _channels(graph: Graph, values: NDArray[np.float64]) -> str:
    return graph.constant(values.reshape(1, 1, 1, 3))
