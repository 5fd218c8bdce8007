"""Editing an ONNX graph: nodes in front of it and behind it, with names that clash with nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from perception.engines.contract import declared, graph_inputs, list_tensors
from perception.errors import ModelError

OLDEST_OPSET = 11
"""The oldest in which every operation that is added here means what it does today."""

Shape = tuple[int | None, ...]


class Graph:
    """A foreign graph under change. Added nodes are collected and put in by `finish`.

    Args:
        model: is changed.
        path: where it came from, for messages.
        reserved: names that the finished graph's inputs and outputs will have; tensors of the foreign graph that
            have them already are renamed. Callers go on using the old names, through `tensor`.

    Raises:
        ModelError: an operator set that is too old.
    """

    def __init__(self, model: onnx.ModelProto, path: Path, reserved: Sequence[str]) -> None:
        self.model = model
        self.path = path
        self.inputs = declared(graph_inputs(model))
        self.outputs = declared(model.graph.output)
        opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)
        if opset < OLDEST_OPSET:
            raise self.fault(
                f"its operator set is {opset}, at least {OLDEST_OPSET} is needed; export it again, or convert it with "
                f"onnx.version_converter.convert_version(model, {OLDEST_OPSET + 2})"
            )
        self._shapes = _inferred_shapes(model)
        self._used = {name for graph in _graphs(model.graph) for name in _names(graph)} | set(reserved)
        self._renamed: dict[str, str] = {}
        for name in reserved:
            if any(name in _names(graph) for graph in _graphs(model.graph)):
                self._renamed[name] = self._free(f"{name}_foreign")
        for graph in _graphs(model.graph):
            _rename(graph, self._renamed)
        self._front: list[onnx.NodeProto] = []
        self._back: list[onnx.NodeProto] = []
        self._new_inputs: list[onnx.ValueInfoProto] = []
        self._new_outputs: list[onnx.ValueInfoProto] = []

    def fault(self, message: str) -> ModelError:
        """Build an error that shows what the graph has."""
        return ModelError(
            f"the adapter does not fit the graph: {message}. The graph has inputs {list_tensors(self.inputs)}; "
            f"outputs {list_tensors(self.outputs)}",
            self.path,
        )

    def tensor(self, name: str) -> str:
        """Return the name that a tensor of the original graph has now."""
        return self._renamed.get(name, name)

    def shape(self, tensor: str) -> Shape | None:
        """Sizes of a tensor of the original graph by its name now, None for those that are free, or None altogether."""
        original = next((old for old, new in self._renamed.items() if new == tensor), tensor)
        return self._shapes.get(original)

    def fix_input(self, name: str, shape: Sequence[int | None]) -> None:
        """Give an original input sizes that the graph left free (None: still free), so that more shapes follow."""
        (value,) = [v for v in self.model.graph.input if v.name == self.tensor(name)]
        for dimension, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
            if size is not None:
                dimension.dim_value = size
        names = {new: old for old, new in self._renamed.items()}
        self._shapes = {names.get(n, n): shape for n, shape in _inferred_shapes(self.model).items()}

    def output(self, name: str | None, where: str) -> str:
        """Return the current name of the output called ``name``, or of the only one; ``where`` is the card's field."""
        if name is None:
            if len(self.outputs) != 1:
                raise self.fault(f"it has {len(self.outputs)} outputs; say which with {where}")
            name = next(iter(self.outputs))
        if name not in self.outputs:
            raise self.fault(f"it has no output {name!r}, as {where} says")
        return self.tensor(name)

    def with_batch(self, tensor: str, rank: int, batch: int | str) -> str:
        """Put a batch of one in front of a tensor that has all axes but that: ``rank`` is their number with it."""
        shape = self.shape(tensor)
        if batch != 1 or shape is None or len(shape) != rank - 1:
            return tensor
        sizes = self.add("Concat", self.constant([1], np.int64), self.add("Shape", tensor), axis=0)
        batched = self.add("Reshape", tensor, sizes)
        self._shapes[batched] = (1, *shape)
        return batched

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Add an initializer; return its name."""
        name = self._free("adapter_constant")
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def initializer(self, tensor: str) -> NDArray[Any] | None:
        """Return the value of a tensor if it is a constant of the graph."""
        for candidate in self.model.graph.initializer:
            if candidate.name == tensor:
                try:
                    value: NDArray[Any] = numpy_helper.to_array(candidate)
                except (ValueError, TypeError, KeyError, OverflowError, MemoryError):
                    raise self.fault(f"the values of {tensor!r:.100} are not of the shape that it says") from None
                return value
        return None

    def add(self, op: str, *inputs: str, front: bool = False, result: str | None = None, **attributes: Any) -> str:
        """Add a node, in front of the foreign graph or behind it; return the name of its output."""
        result = result or self._free(f"adapter_{op.lower()}")
        node = helper.make_node(op, list(inputs), [result], name=result, **attributes)
        (self._front if front else self._back).append(node)
        return result

    def columns(self, tensor: str, start: int, stop: int, axis: int = 2) -> str:
        """Slices ``start`` to ``stop`` of an axis."""
        bounds = [self.constant([value], np.int64) for value in (start, stop, axis)]
        return self.add("Slice", tensor, *bounds)

    def reshape(self, tensor: str, *shape: int) -> str:
        """Reshape, where 0 keeps a size and -1 is what is left."""
        return self.add("Reshape", tensor, self.constant(shape, np.int64))

    def cast(self, tensor: str, dtype: int = TensorProto.FLOAT, front: bool = False) -> str:
        return self.add("Cast", tensor, front=front, to=dtype)

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """Return the foreign node that makes a tensor."""
        return next((node for node in self.model.graph.node if tensor in node.output), None)

    def consumers(self, tensor: str) -> list[onnx.NodeProto]:
        """Return the foreign nodes that take a tensor, also by a loop or a branch inside them."""
        return [node for node in self.model.graph.node if tensor in _taken(node)]

    def set_input(self, name: str, dtype: int, shape: Sequence[int | str | None]) -> str:
        """Set the input of the finished graph."""
        self._new_inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def set_output(self, name: str, tensor: str, shape: Sequence[int | str | None]) -> None:
        """An output that the finished graph has, float32, from a tensor of any type of number."""
        self.add("Cast", tensor, result=name, to=TensorProto.FLOAT)
        self._new_outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))

    def finish(self) -> onnx.ModelProto:
        """Put the new nodes in, and leave out what nothing needs any more."""
        graph = self.model.graph
        nodes = [*self._front, *graph.node, *self._back]
        wanted = {output.name for output in self._new_outputs}
        kept = []
        for node in reversed(nodes):
            if wanted.intersection(node.output):
                wanted |= _taken(node)
                kept.append(node)
        weights = [weight for weight in graph.initializer if weight.name in wanted]
        sparse = [weight for weight in graph.sparse_initializer if weight.values.name in wanted]
        for field, values in (
            ("node", kept[::-1]),
            ("input", self._new_inputs),
            ("output", self._new_outputs),
            ("initializer", weights),
            ("sparse_initializer", sparse),
            ("value_info", []),  # sizes there may no longer be true
        ):
            copies = [type(value).FromString(value.SerializeToString()) for value in values]
            graph.ClearField(field)
            getattr(graph, field).extend(copies)
        return self.model

    def _free(self, name: str) -> str:
        """Reserve a name like ``name`` that no tensor and no node has."""
        unique, number = name, 1
        while unique in self._used:
            number += 1
            unique = f"{name}_{number}"
        self._used.add(unique)
        return unique


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and those inside its nodes: the bodies of loops and branches."""
    yield graph
    for node in graph.node:
        for inner in _bodies(node):
            yield from _graphs(inner)


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [body for a in node.attribute for body in ([a.g] if a.HasField("g") else list(a.graphs))]


def _taken(node: onnx.NodeProto) -> set[str]:
    """Return the names of the tensors that a node needs, including those that its bodies take from outside."""
    names = set(node.input)
    for body in _bodies(node):
        for inner in body.node:
            names |= _taken(inner)
        names.update(output.name for output in body.output)
    return names


def _names(graph: onnx.GraphProto) -> set[str]:
    names = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    names.update(weight.values.name for weight in graph.sparse_initializer)
    for node in graph.node:
        names.update(node.input, node.output, [node.name])
    return names


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename tensors. ONNX has no shadowing: a name means the same tensor inside loops and branches."""
    if not names:
        return
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)
    for weight in graph.sparse_initializer:
        weight.values.name = names.get(weight.values.name, weight.values.name)
    for node in graph.node:
        for field in (node.input, node.output):
            field[:] = [names.get(name, name) for name in field]


def _inferred_shapes(model: onnx.ModelProto) -> dict[str, Shape]:
    """Sizes of all tensors, as far as they follow from the graph."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for weight in bare.graph.initializer:
        # only small constants matter to shapes; without the rest, inference takes milliseconds
        if np.prod(weight.dims, dtype=np.int64) > 1024:
            weight.ClearField("raw_data")
            weight.ClearField("float_data")
    try:
        inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
    except Exception:  # shapes are only needed for better messages; engines judge the graph
        inferred = model.graph
    values = [
        value
        for value in (*inferred.input, *inferred.output, *inferred.value_info)
        if value.type.HasField("tensor_type") and value.type.tensor_type.HasField("shape")
    ]
    return {name: shape for name, (_, shape) in declared(values).items()}
