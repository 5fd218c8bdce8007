"""An ONNX graph as a torch module that gradients pass through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from perception.card import ModelCard, load_onnx
from perception.errors import ModelError


class _Clip(nn.Module):
    """Clipping from 0 up as a ReLU and a limit: guided backpropagation and deconvnet look for ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor, high: float | None) -> Tensor:
        y: Tensor = self.relu(x)
        return y if high is None else y.clamp(max=high)


class GraphNetwork(nn.Module):
    """Takes camera bytes as floats, ``[N, H, W, 3]`` BGR in 0..255, gives the graph's values by name.

    Probabilities are flat where a network is sure of itself, and scores are squeezed: where an output of a class ends
    in a softmax or a sigmoid, what goes into it is given too, as ``NAME/logits``.

    Args:
        path: the ONNX file.
        card: its card.

    Raises:
        ModelError: the graph has an operation that torch is not used for here.
    """

    def __init__(self, path: Path, card: ModelCard) -> None:
        super().__init__()
        from onnx import helper, numpy_helper

        from perception.engines.torch_ops import OPERATIONS

        model = load_onnx(path)
        unknown = sorted({node.op_type for node in model.graph.node} - {*OPERATIONS})
        if unknown:
            raise ModelError(f"cannot be explained: no gradients for {', '.join(unknown)}", path)
        self.where = path
        self.input = card.input.name
        self.weights = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in model.graph.initializer}
        opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)
        self.relus = nn.ModuleDict()
        self.steps: list[tuple[Callable[..., Any], list[str], list[str]]] = []
        producers = {}
        for number, node in enumerate(model.graph.node):
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            attributes |= {"opset": opset, "outputs": len(node.output)}
            call = self._call(number, node.op_type, attributes, OPERATIONS[node.op_type], list(node.input))
            self.steps.append((call, list(node.input), list(node.output)))
            producers.update(dict.fromkeys(node.output, node))
        self.named = {output.name: output.name for output in model.graph.output}
        for name in [*self.named]:
            node = producers.get(name)
            if node is not None and node.op_type in ("Softmax", "Sigmoid"):
                self.named[f"{name}/logits"] = node.input[0]

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """See the class.

        Raises:
            ModelError: torch cannot run a node.
        """
        values: dict[str, Any] = {self.input: frames}
        for call, inputs, outputs in self.steps:
            given = [None if not name else values[name] if name in values else self.weights[name] for name in inputs]
            try:
                results = call(*given)
            except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError) as error:
                reason = str(error).splitlines()[0]
                raise ModelError(f"torch failed at {outputs[0]}: {reason}", self.where) from error
            several = results if isinstance(results, (tuple, list)) else [results]
            values.update(zip(outputs, several, strict=False))
        return {name: values[source] for name, source in self.named.items()}

    def _call(
        self, number: int, kind: str, attributes: dict[str, Any], operation: Callable[..., Any], inputs: Sequence[str]
    ) -> Callable[..., Any]:
        """Return the function of a node; ReLUs are modules, so that they can be hooked into."""
        if kind == "Relu":
            relu = self.relus[str(number)] = nn.ReLU()
            return relu
        if kind == "Clip":
            limits = [self._constant(name) for name in inputs[1:]] or [attributes.get("min"), attributes.get("max")]
            low, high = (*limits, None)[:2]
            if low == 0.0:
                clip = self.relus[str(number)] = _Clip()
                return lambda x, *_: clip(x, high)
        return lambda *given: operation(attributes, *given)

    def _constant(self, name: str) -> float | None:
        """Return the number of an input that is a weight or a constant made by an earlier node."""
        if not name:
            return None
        if name in self.weights:
            return float(self.weights[name])
        made = next((call for call, inputs, outputs in self.steps if outputs == [name] and not inputs), None)
        return None if made is None else float(made())
