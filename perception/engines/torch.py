"""PyTorch, the reference: the graph's operations one by one, eagerly, on any device that torch has.

It is here to compare the fast engines with, and to try a graph on a device that no other engine knows. It is not
fast: nothing is fused.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perception.card import load_onnx
from perception.common import hardware
from perception.common.distribution import install_hint
from perception.engines.base import Engine, EngineOptions
from perception.errors import EngineError
from perception.types import F32, U8

if TYPE_CHECKING:
    import torch


def available() -> tuple[bool, str]:
    """Tell if PyTorch is installed, and its version or how to get it."""
    if find_spec("torch") is None:
        return False, f"PyTorch is not installed; `{install_hint('train', 'torch')}`"
    return True, f"PyTorch {version('torch')}"


def open_model(path: Path, options: EngineOptions) -> Engine:
    """Load an ONNX file as a list of torch calls.

    Raises:
        EngineError: the graph has an operation that is not known here, or torch does not have the device.
    """
    return TorchEngine(path, options)


@dataclass(frozen=True, slots=True)
class _Step:
    """One node: what to call on which values; values that no later node takes are dropped after it."""

    name: str
    call: Callable[..., Any]
    attributes: dict[str, Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    drop: tuple[str, ...]


class TorchEngine(Engine):
    """See `Engine`. In bf16 and fp16 convolutions and matrix products run in that precision (autocast).

    The number of threads is one per process in torch: ``threads`` sets it for all of torch.
    """

    name = "torch"

    def __init__(self, path: Path, options: EngineOptions) -> None:
        import torch

        self.path = path
        self.streams = 1
        self.precision = "fp32" if options.precision == "auto" else options.precision
        self._device = _device(options.device)
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        model = load_onnx(path)
        self._weights: dict[str, torch.Tensor] | None = self._read_weights(model)
        self._steps = _steps(model, path, self._device)
        (frames,) = [i for i in model.graph.input if i.name not in self._weights]
        self._input = frames.name
        self._outputs = options.outputs
        batch = frames.type.tensor_type.shape.dim[0]
        width, height = options.size
        self.input_shape = (batch.dim_value if batch.HasField("dim_value") else None, height, width, 3)
        self.batch = self.input_shape[0] or options.batch or 1
        cpu = self._device.type == "cpu"
        device = hardware.cpu_name() if cpu else torch.cuda.get_device_name(self._device)
        self.description = f"PyTorch {version('torch')} {self.precision} eager, 1 stream, {device}"

    def _read_weights(self, model: Any) -> dict[str, torch.Tensor]:
        return {tensor.name: _on_device(tensor, self._device) for tensor in model.graph.initializer}

    def _run(self, frames: U8) -> dict[str, F32]:
        import torch

        results = self.compute(torch.tensor(frames, device=self._device))
        return {name: value.float().contiguous().cpu().numpy() for name, value in results.items()}

    def compute(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run the network on frames that are on its device, and leave its outputs there: what `infer` does between.

        Args:
            frames: uint8 ``[N, H, W, 3]``.

        Raises:
            EngineError: torch failed, or the engine is closed.
        """
        import torch

        weights = self._weights
        if weights is None:
            raise self._closed_error()
        half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)
        cast = nullcontext() if half is None else torch.autocast(self._device.type, dtype=half)
        with torch.inference_mode(), cast:
            values: dict[str, Any] = {self._input: frames}
            for step in self._steps:
                given = [None if not i else values[i] if i in values else weights[i] for i in step.inputs]
                try:
                    results = step.call(step.attributes, *given)
                except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError) as error:
                    raise EngineError(f"torch failed at node {step.name}: {error}", self.path) from error
                # a node may give more than the graph takes of it
                several = results if isinstance(results, (tuple, list)) else [results]
                values.update(zip(step.outputs, several, strict=False))
                for value in step.drop:
                    values.pop(value, None)
            return {name: values[name] if name in values else weights[name] for name in self._outputs}

    def close(self) -> None:
        self._weights = None


def _on_device(proto: Any, device: torch.device) -> torch.Tensor:
    from perception.engines.torch_ops import tensor_of

    value = tensor_of(proto)
    # whole numbers are shapes and indices, which the host reads
    return value.to(device) if value.is_floating_point() else value


def _steps(model: Any, path: Path, device: torch.device) -> list[_Step]:
    from onnx import TensorProto, helper

    from perception.engines.torch_ops import OPERATIONS

    unknown = sorted({node.op_type for node in model.graph.node if node.op_type not in OPERATIONS})
    if unknown:
        raise EngineError(f"the torch engine does not support {', '.join(unknown)}; use openvino or onnxruntime", path)
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)
    last_use = {name: i for i, node in enumerate(model.graph.node) for name in node.input}
    kept = {output.name for output in model.graph.output}
    steps = []
    for i, node in enumerate(model.graph.node):
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        attributes = {
            name: _on_device(value, device) if isinstance(value, TensorProto) else value
            for name, value in attributes.items()
        }
        attributes |= {"opset": opset, "outputs": len(node.output)}
        steps.append(
            _Step(
                f"{node.name or node.output[0]} ({node.op_type})",
                OPERATIONS[node.op_type],
                attributes,
                tuple(node.input),
                tuple(node.output),
                tuple({name for name in node.input if name and last_use[name] == i and name not in kept}),
            )
        )
    return steps


def _device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device("cuda" if name.upper() == "GPU" else name.lower())
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise EngineError(f"torch has no device {name!r} here: {str(error).splitlines()[0]}") from None
    return device
