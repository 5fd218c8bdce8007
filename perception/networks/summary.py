"""Summary of a network: shape, cost and receptive field of each layer, read off the traced network."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from perception.errors import ModelError, UsageError
from perception.networks.arithmetic import Field, convolution_multiplications
from perception.networks.classifier import build_classifier
from perception.networks.flatten import Flatten
from perception.networks.graph_summary import summarise_graph
from perception.networks.layers import Fields, Layer, Summary, joined
from perception.weights.library import model_paths

POOLINGS = (nn.MaxPool2d, nn.AvgPool2d)


class LeafTracer(fx.Tracer):
    """Traces networks down to their layers.

    `Flatten` asks for a size, which tracing does not know, and our own convolutions look at how they are run: they are
    steps as torch's are.
    """

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (Flatten, nn.Conv2d)) or super().is_leaf_module(m, module_qualified_name)


def trace(network: nn.Module) -> fx.GraphModule:
    """Trace ``network`` as a graph of its layers, in evaluation mode; its modules are copies.

    Raises:
        ModelError: its forward decides by values and cannot be traced.
    """
    network = copy.deepcopy(network).eval()
    tracer = LeafTracer()
    try:
        graph = tracer.trace(network)
    except (fx.proxy.TraceError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"{type(network).__name__} cannot be traced layer by layer: {reason}") from None
    return fx.GraphModule(network, graph)


def summarise(network: nn.Module, input_shape: tuple[int, int, int], name: str = "") -> Summary:
    """Summarise a network: sizes, parameters, multiplications and receptive fields, layer by layer.

    Args:
        network: takes float ``[N, C, H, W]``.
        input_shape: (C, H, W) of the image.
        name: to call it by.

    Raises:
        UsageError: a size that a layer cannot take.
        ModelError: it cannot be traced.
    """
    traced = trace(network)
    reader = Reader(traced)
    with torch.inference_mode():
        try:
            reader.run(torch.zeros(1, *input_shape))
        except RuntimeError as error:
            channels, height, width = input_shape
            reason = str(error).splitlines()[0]
            raise UsageError(f"it cannot take images of {channels}x{height}x{width}: {reason}", name or None) from None
    parameters = sum(p.numel() for p in network.parameters())
    return Summary(name or type(network).__name__, input_shape, reader.layers, parameters)


def summarise_named(name: str, classes: int | None = None, size: tuple[int, int] | None = None) -> Summary:
    """Summarise a classifier (`perception.networks.classifier.build_classifier`) or of a model file.

    Args:
        name: of a classifier, of a model, or an ``.onnx`` file.
        classes: of a classifier's head; its own where None.
        size: (width, height) of the image; its own where None.

    Raises:
        UsageError: there is none of that name, or a size that it cannot take.
        ModelError: it cannot be read.
    """
    if name.endswith(".onnx") or name in model_paths():
        if classes is not None:
            raise UsageError("a model file has its classes; leave the number of classes out", name)
        return summarise_graph(name, size)
    network = build_classifier(name, classes)
    channels, height, width = cast("tuple[int, int, int]", network.input_shape)
    width, height = size or (width, height)
    return summarise(network, (channels, height, width), name)


class Reader(fx.Interpreter):
    """Runs the graph once and notes each layer."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced, garbage_collect_values=False)
        self.layers: list[Layer] = []
        self.fields: dict[fx.Node, Fields] = {}
        self.extra_traceback = False  # an error of ours is one line

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op == "placeholder":
            self.fields[n] = (Field(), Field())
            return result
        inputs = [self.fields[i] for i in n.all_input_nodes if i in self.fields]
        before = joined(inputs) if inputs else (Field(), Field())
        after = before
        if n.op == "call_module":
            module = self.submodules[str(n.target)]
            taken = self.env[n.all_input_nodes[0]]
            after = _seen(module, before, taken)
            self._note(str(n.target), module, result, after)
        elif n.target in (F.max_pool2d, F.avg_pool2d) and before is not None:
            options = dict(zip(("kernel_size", "stride"), n.args[1:], strict=False)) | n.kwargs
            kernel, stride = _pair(options["kernel_size"]), _pair(options.get("stride") or options["kernel_size"])
            after = before[0].after(kernel[0], stride[0]), before[1].after(kernel[1], stride[1])
        elif n.target in (F.adaptive_avg_pool2d, torch.mean, "mean"):  # as some networks write their global pooling
            after = None
        self.fields[n] = after
        return result

    def _note(self, name: str, module: nn.Module, result: Any, after: Fields) -> None:
        if not isinstance(result, Tensor):
            return
        multiplications = 0
        kind = type(module).__name__
        if isinstance(module, nn.Conv2d):
            kernel = (int(module.kernel_size[0]), int(module.kernel_size[1]))
            size = (int(result.shape[2]), int(result.shape[3]))
            multiplications = convolution_multiplications(
                module.in_channels, module.out_channels, kernel, size, module.groups
            )
            kind = f"{kind} {_kernel(module)}"
        elif isinstance(module, nn.Linear):
            multiplications = module.in_features * module.out_features
        elif isinstance(module, POOLINGS):
            kind = f"{kind} {_kernel(module)}"
        self.layers.append(
            Layer(
                name,
                kind,
                tuple(int(side) for side in result.shape[1:]),
                sum(p.numel() for p in module.parameters()),
                multiplications,
                None if after is None else (after[0].size, after[1].size),
                None if after is None else (after[0].step, after[1].step),
            )
        )


def _seen(module: nn.Module, before: Fields, taken: Tensor) -> Fields:
    """Return the receptive fields behind ``module``."""
    if before is None:
        return None
    if isinstance(module, (nn.Conv2d, *POOLINGS)):
        kernel, stride = _pair(module.kernel_size), _pair(module.stride)
        dilation = _pair(getattr(module, "dilation", 1))
        rows, columns = (before[i].after(kernel[i], stride[i], dilation[i]) for i in (0, 1))
        return rows, columns
    if isinstance(module, (nn.Linear, nn.AdaptiveAvgPool2d)):
        return None if taken.ndim == 2 or _is_global(module, taken) else before
    return before


def _is_global(module: nn.Module, taken: Tensor) -> bool:
    """Return whether a pooling takes the whole of its maps."""
    size = _pair(module.output_size) if isinstance(module, nn.AdaptiveAvgPool2d) else tuple(taken.shape[2:])
    return tuple(size) != tuple(taken.shape[2:])


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _kernel(module: Any) -> str:
    kernel, stride = _pair(module.kernel_size), _pair(module.stride)
    text = f"{kernel[0]}x{kernel[1]}"
    if stride != (1, 1):
        text += f"/{stride[0]}" if stride[0] == stride[1] else f"/{stride[0]}x{stride[1]}"
    if (groups := getattr(module, "groups", 1)) > 1:
        text += f", {groups} groups"
    return text
