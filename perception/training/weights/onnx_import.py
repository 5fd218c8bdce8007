"""Loading weights from ONNX: a model file as a network that can be trained.

In a file, most batch norms are folded into the convolutions before them. Such convolutions are found by the names of
their nodes, which are those of the modules; what a norm did comes back as its scale and shift, around statistics that
are measured on pictures. All other weights have kept their names. The network then computes what the file computes, and
trains as if it had never been one.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

from perception.errors import ModelError
from perception.networks.detector import DetectionHead

log = logging.getLogger(__name__)

Value = NDArray[np.float32]
ROOT = "network."  # what `perception.networks.camera.CameraGraph` calls the network
EPSILON = 1e-12


class _Tensors(NamedTuple):
    """The tensors of a file.

    Attributes:
        named: tensors by the names that they have in the network's state.
        folded: weight and bias of a convolution by its name and how often it had been called before.
        scales: of the detection head's levels.
    """

    named: dict[str, Value]
    folded: dict[tuple[str, int], tuple[Value, Value]]
    scales: list[float]


class OnnxWeights(NamedTuple):
    """The outcome of `load_onnx_weights`.

    Attributes:
        norms: how many convolutions with a norm behind them were found in the file.
        missing: names of the network's weights that were not; they are as they were.
    """

    norms: int
    missing: list[str]


def load_onnx_weights(network: nn.Module, path: Path, images: Tensor) -> OnnxWeights:
    """Give ``network`` the weights of a model file, wherever its tensors have the names and shapes of the file's.

    Batch norms become scales and shifts around statistics 0 and 1; `measure_norms` gives them real ones.

    Args:
        network: of the recipe; in evaluation mode afterwards.
        path: an ``.onnx`` written by ``perception train`` or ``perception export``, or a shipped one.
        images: float ``[N, 3, H, W]``, normalised: anything that the network can be run on.

    Raises:
        ModelError: The file cannot be read, is quantised, or has nothing that fits.
    """
    weights = _read(path)
    colours: nn.Conv2d | None = getattr(network, "first_convolution", None)
    before = None if colours is None else colours.weight.detach().clone()
    state = network.state_dict()
    named = {k: torch.from_numpy(v) for k, v in weights.named.items() if k in state and state[k].shape == v.shape}
    network.load_state_dict(named, strict=False)
    calls = _normed_calls(network, images)
    found = 0
    turns: Counter[str] = Counter()
    first: dict[str, Tensor] = {}
    with torch.no_grad():
        for name, convolution, norm in calls:
            weight, bias = weights.folded.get((name, turns[name]), (None, None))
            turns[name] += 1
            if weight is None or bias is None or weight.shape != convolution.weight.shape:
                continue
            found += 1
            now = torch.from_numpy(weight).flatten(1)
            if name not in first:
                first[name] = now
                convolution.weight.copy_(now.reshape_as(convolution.weight))
            # A convolution that several levels share keeps the weights of the first; the norm of each has the factor
            # between them and its own.
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean.zero_()
            norm.running_var.fill_(1 - norm.eps)
            norm.weight.copy_((now * first[name]).sum(1) / first[name].square().sum(1).clamp(min=EPSILON))
            norm.bias.copy_(torch.from_numpy(bias))
        for head in (m for m in network.modules() if isinstance(m, DetectionHead)):
            if len(weights.scales) == len(head.log_scales):
                head.log_scales.copy_(torch.tensor(weights.scales))
        if not found and not named:
            raise ModelError("nothing in this model fits the network", path)
        if colours is not None and before is not None and not torch.equal(colours.weight, before):
            colours.weight.copy_(colours.weight.flip(1))  # files take BGR
    log.info("%d of %d convolutions with norms come from %s", found, len(calls), path)
    taken = named.keys() | {f"{name}.weight" for name in first}
    return OnnxWeights(found, [name for name, p in network.named_parameters() if p.ndim > 1 and name not in taken])


def measure_norms(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give every batch norm the statistics of what it sees in ``batches``; the network computes what it did before.

    Scale and shift take up what the statistics change, so training, which normalises by each batch's own statistics,
    starts from nearly the same function.

    Args:
        network: with norms as `load_onnx_weights` leaves them.
        batches: float ``[N, 3, H, W]``, normalised.
    """
    network.eval()
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    sums = {n: torch.zeros(3, n.num_features, dtype=torch.float64, device=n.weight.device) for n in norms}

    def look(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].double().transpose(0, 1).flatten(1)
        assert isinstance(norm, _BatchNorm)
        sums[norm] += torch.stack((torch.full_like(x[:, 0], x.shape[1]), x.sum(1), x.square().sum(1)))

    hooks = [norm.register_forward_pre_hook(look) for norm in norms]
    try:
        with torch.inference_mode():
            for images in batches:
                network(images)
    finally:
        _remove(hooks)
    with torch.no_grad():
        for norm, (count, total, squares) in sums.items():
            if not count[0] or norm.running_mean is None or norm.running_var is None:
                continue
            before = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
            shift = norm.bias.double() - before * norm.running_mean.double()
            mean = total / count
            variance = (squares / count - mean.square()).clamp(min=0)
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.copy_(before * (variance + norm.eps).sqrt())
            norm.bias.copy_(shift + before * mean)


def _read(path: Path) -> _Tensors:
    if not path.is_file():
        raise ModelError("no such model", path)
    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # protobuf has errors of its own for what is no model
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"cannot read this model: {reason}", path) from None
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in graph.node):
        raise ModelError("eight-bit weights cannot be trained; start from the model before quantisation", path)
    tensors = {t.name: t for t in graph.initializer}
    for node in graph.node:  # weights stored in half have a cast behind them, equal ones are stored once
        if node.op_type in ("Cast", "Identity") and node.input[0] in tensors:
            tensors[node.output[0]] = tensors[node.input[0]]

    def value(name: str) -> Value:
        return numpy_helper.to_array(tensors[name]).astype(np.float32)

    weights = _Tensors({}, {}, [])
    weights.named.update({n.removeprefix(ROOT): value(n) for n in tensors if n.startswith(ROOT)})
    turns: Counter[str] = Counter()
    for node in graph.node:
        constants = [name for name in node.input if name in tensors]
        if node.op_type == "Conv" and len(constants) == 2 and not constants[0].startswith(ROOT):
            name = _module_of(node.name)
            weights.folded[name, turns[name]] = value(constants[0]), value(constants[1])
            turns[name] += 1
        elif node.op_type == "Mul" and node.name.startswith("/network/detector/"):
            # the one factor that differs between levels and is no size: what `DetectionHead.log_scales` became, alone
            # or four times before a one
            weights.scales.extend(float(value(name).flat[0]) for name in constants if value(name).size in (1, 5))
    return weights


def _module_of(node: str) -> str:
    """``/network/stages.0/stages.0.1/layers_2/Conv`` to ``stages.0.1.layers``: scopes repeat those around them."""
    scopes = [scope.rsplit("_", 1)[0] if scope.rsplit("_", 1)[-1].isdigit() else scope for scope in node.split("/")]
    path: list[str] = []
    for scope in scopes[2:-1]:
        if path and scope.startswith(f"{path[-1]}."):
            path[-1] = scope
        else:
            path.append(scope)
    return ".".join(path)


def _normed_calls(network: nn.Module, images: Tensor) -> list[tuple[str, nn.Conv2d, _BatchNorm]]:
    """Convolutions with a norm behind them: name, itself and that norm, in the order of the calls."""
    names = {module: name for name, module in network.named_modules()}
    order: list[tuple[nn.Module, Tensor, Tensor]] = []

    def note(module: nn.Module, args: tuple[Tensor, ...], result: Tensor) -> None:
        order.append((module, args[0], result))

    hooks = [m.register_forward_hook(note) for m in names if isinstance(m, (nn.Conv2d, _BatchNorm))]
    try:
        with torch.inference_mode():
            network.eval()(images)
    finally:
        _remove(hooks)
    behind = {id(given): module for module, given, _ in order if isinstance(module, _BatchNorm)}
    return [
        (names[module], module, behind[id(result)])
        for module, _, result in order
        if isinstance(module, nn.Conv2d) and id(result) in behind
    ]


def _remove(hooks: Iterable[RemovableHandle]) -> None:
    for hook in hooks:
        hook.remove()
