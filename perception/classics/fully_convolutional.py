"""A classifier of one image size becomes a map over images of any larger size (Long et al. 2015; Sermanet et al. 2014).

A dense layer behind flattened maps is a convolution with a kernel as large as the maps. Written so, the network slides
itself over a larger image: what neighbouring windows have in common is computed once.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from perception.errors import ModelError
from perception.networks.flatten import Flatten
from perception.networks.summary import Reader, trace

Shape = tuple[int, int, int]

TOLERANCE = 1e-4  # of the largest output: how far the converted network may be from what it was made from


def to_fully_convolutional(network: nn.Module, input_shape: Shape) -> fx.GraphModule:
    """Return a copy of ``network`` with convolutions in the place of flatten and dense layers, with the same weights.

    On images of ``input_shape`` its outputs are the same, as maps of 1x1. On larger ones they are maps
    ``[N, C, H', W']``: at each place what the network says of the window there (exactly where no layer pads; with
    padding, windows see their neighbours where the network saw zeros). Global pooling becomes pooling by as much as it
    was global over.

    Args:
        network: float ``[N, C, H, W]`` to vectors ``[N, classes]``, or to a dict of such; traceable by torch.fx.
        input_shape: (C, H, W) of the images that it was made for.

    Returns:
        In evaluation mode, with the attributes ``window``, (H, W), and ``step``, (rows, columns): pixels between the
        windows of two neighbouring outputs.

    Raises:
        ModelError: the network cannot be traced, has no dense layer, or does something with its vectors that cannot be
            done with maps.
        UsageError: its dense layers do not fit images of ``input_shape``.
    """
    traced = trace(network)
    reader = Reader(traced)
    image = torch.randn(2, *input_shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = reader.run(image)
    converter = _Converter(traced, reader)
    converter.convert()
    with torch.inference_mode():
        try:
            results = traced(image)
        except (RuntimeError, ValueError, IndexError) as error:
            raise ModelError(f"its vectors cannot become maps: {str(error).splitlines()[0]}") from None
    _check(expected, results)
    steps = converter.steps
    traced.window = input_shape[1:]  # type: ignore[assignment]
    traced.step = (max(s[0] for s in steps), max(s[1] for s in steps))  # type: ignore[assignment]
    return traced


class _Converter:
    """Rewrites a traced network in place."""

    def __init__(self, traced: fx.GraphModule, reader: Reader) -> None:
        self.traced = traced
        self.reader = reader
        self.modules = dict(traced.named_modules())
        self.maps: dict[fx.Node, tuple[int, int, int]] = {}  # vectors of the network, and the maps they are flat of
        self.steps: list[tuple[int, int]] = []
        self.made = 0

    def convert(self) -> None:
        for node in list(self.traced.graph.nodes):
            if node.op in ("call_module", "call_function", "call_method"):
                self._convert(node)
        if not self.steps:
            raise ModelError("there is no dense layer behind maps: this network takes any size as it is")
        self.traced.graph.lint()
        self.traced.recompile()

    def _convert(self, node: fx.Node) -> None:
        before, after = self._shape(node.all_input_nodes[0]), self._shape(node)
        if before is None or after is None:
            return
        module = self.modules.get(str(node.target)) if node.op == "call_module" else None
        source = node.all_input_nodes[0]
        if len(before) == 4 and len(after) == 2 and before[1] * before[2] * before[3] == after[1]:
            self._flatten(node, source, module, before)
        elif isinstance(module, nn.AdaptiveAvgPool2d) or node.target is F.adaptive_avg_pool2d:
            self._pool(node, source, before, (int(after[2]), int(after[3])))
        elif node.target in (torch.mean, "mean") and len(before) == 4 and len(after) == 2:
            self._pool(node, source, before, (1, 1))
            self.maps[node] = (before[1], 1, 1)
        elif source in self.maps:
            self._with_maps(node, module, self.maps[source], after)

    def _flatten(self, node: fx.Node, source: fx.Node, module: nn.Module | None, shape: torch.Size) -> None:
        if not (
            isinstance(module, (nn.Flatten, Flatten)) or node.target in (torch.flatten, "flatten", "view", "reshape")
        ):
            return
        self.maps[node] = (shape[1], shape[2], shape[3])
        self._note_step(source)
        self._become(node, source, nn.Identity())

    def _pool(self, node: fx.Node, source: fx.Node, shape: torch.Size, output: tuple[int, int]) -> None:
        height, width = shape[2], shape[3]
        if (height, width) == output:
            self._become(node, source, nn.Identity())
            return
        if height % output[0] or width % output[1]:
            raise ModelError(f"a pooling of {height}x{width} maps to {output[0]}x{output[1]} has uneven windows")
        kernel = (height // output[0], width // output[1])
        if output == (1, 1):
            self._note_step(source)
        self._become(node, source, nn.AvgPool2d(kernel, 1 if output == (1, 1) else kernel))

    def _with_maps(self, node: fx.Node, module: nn.Module | None, shape: Shape, after: torch.Size) -> None:
        """A layer that took a vector and now takes maps."""
        self.maps[node] = (after[1], 1, 1) if len(after) == 2 and after[1] != shape[0] * shape[1] * shape[2] else shape
        if isinstance(module, nn.Linear):
            self._replace(node, _as_convolution(module, shape))
            self.maps[node] = (module.out_features, 1, 1)
        elif isinstance(module, nn.BatchNorm1d):
            if shape[1:] != (1, 1):
                raise ModelError(
                    f"{node.target}: a batch normalisation of flattened maps has statistics for each place"
                )
            self._replace(node, _of_maps(module))
        elif isinstance(module, (nn.Softmax, nn.LogSoftmax)):
            self._replace(node, type(module)(dim=1))
        elif "dim" in node.kwargs and node.kwargs["dim"] == -1:
            node.kwargs = {**node.kwargs, "dim": 1}

    def _shape(self, node: fx.Node) -> torch.Size | None:
        value = self.reader.env.get(node)
        return value.shape if isinstance(value, Tensor) else None

    def _note_step(self, source: fx.Node) -> None:
        fields = self.reader.fields.get(source)
        if fields is not None:
            self.steps.append((fields[0].step, fields[1].step))

    def _replace(self, node: fx.Node, module: nn.Module) -> None:
        self.traced.set_submodule(str(node.target), module)

    def _become(self, node: fx.Node, source: fx.Node, module: nn.Module) -> None:
        """``node`` becomes a call of a new module on ``source`` alone."""
        name = f"fully_convolutional_{self.made}"
        self.made += 1
        self.traced.add_submodule(name, module.eval())
        node.op, node.target, node.args, node.kwargs = "call_module", name, (source,), {}


def _as_convolution(dense: nn.Linear, shape: Shape) -> nn.Conv2d:
    """Return the dense layer on flattened maps of ``shape`` (C, h, w) as a convolution."""
    channels, height, width = shape
    with torch.no_grad():
        convolution = nn.Conv2d(channels, dense.out_features, (height, width), bias=dense.bias is not None)
        convolution.weight.copy_(dense.weight.view(dense.out_features, channels, height, width))
        if dense.bias is not None and convolution.bias is not None:
            convolution.bias.copy_(dense.bias)
    return convolution.eval()


def _of_maps(norm: nn.BatchNorm1d) -> nn.BatchNorm2d:
    """Return the same normalisation for maps."""
    made = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    made.load_state_dict(norm.state_dict())
    return made.eval()


def _check(expected: Any, results: Any) -> None:
    """Compare vectors ``[N, C]`` with maps ``[N, C, 1, 1]``, alone or in a dict."""
    pairs = [(expected, results)] if isinstance(expected, Tensor) else [(expected[k], results[k]) for k in expected]
    for vector, maps in pairs:
        if maps.shape != (*vector.shape, 1, 1):
            raise ModelError(f"an output {list(vector.shape)} became {list(maps.shape)}, not maps of 1x1")
        error = float((maps.flatten(1) - vector.flatten(1)).abs().max())
        if not error <= TOLERANCE * max(1.0, float(vector.abs().max())):
            raise ModelError(f"the converted network differs from the original by {error:.2g}")
