"""ONNX operations as torch calls, for the torch engine.

Each takes the node's attributes (and ``opset``: the graph's; ``outputs``: how many it has) and its inputs, None for
an input that is left out. What each means: the ONNX operator reference, https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Attributes = dict[str, Any]


def _ints(value: Tensor | Sequence[int]) -> list[int]:
    return [int(v) for v in (value.tolist() if isinstance(value, Tensor) else value)]


def _dtype(code: int) -> torch.dtype:
    from onnx import helper

    return torch.from_numpy(helper.tensor_dtype_to_np_dtype(code).type(0).reshape(1)).dtype


def _axes(a: Attributes, given: Tensor | None) -> list[int] | None:
    """Axes are an attribute in old opsets, an input in new ones, and absent where all are meant."""
    if given is not None:
        return _ints(given)
    return _ints(a["axes"]) if "axes" in a else None


def _pads(a: Attributes, x: Tensor, kernel: Sequence[int]) -> list[int]:
    """Padding as ONNX has it: all beginnings, then all ends."""
    spatial = len(kernel)
    mode = a.get("auto_pad", b"NOTSET")
    if mode in (b"NOTSET", b""):
        return _ints(a.get("pads", [0] * 2 * spatial))
    if mode == b"VALID":
        return [0] * 2 * spatial
    strides, dilations = a.get("strides", [1] * spatial), a.get("dilations", [1] * spatial)
    begins, ends = [], []
    for size, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        small, large = total // 2, total - total // 2
        begins.append(large if mode == b"SAME_LOWER" else small)
        ends.append(small if mode == b"SAME_LOWER" else large)
    return begins + ends


def _pad_spatial(x: Tensor, pads: Sequence[int], value: float = 0.0) -> Tensor:
    spatial = len(pads) // 2
    flat = [p for i in reversed(range(spatial)) for p in (pads[i], pads[i + spatial])]
    return F.pad(x, flat, value=value)


def _split_pads(x: Tensor, pads: Sequence[int], value: float = 0.0) -> tuple[Tensor, list[int]]:
    """Return the input and the symmetric padding that the torch call takes; other padding is applied beforehand."""
    spatial = len(pads) // 2
    if list(pads[:spatial]) == list(pads[spatial:]):
        return x, list(pads[:spatial])
    return _pad_spatial(x, pads, value), [0] * spatial


def _conv(a: Attributes, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    spatial = w.ndim - 2
    x, padding = _split_pads(x, _pads(a, x, w.shape[2:]))
    call = (F.conv1d, F.conv2d, F.conv3d)[spatial - 1]
    one = [1] * spatial
    return call(x, w, b, a.get("strides", one), padding, a.get("dilations", one), a.get("group", 1))


def _conv_transpose(a: Attributes, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    spatial = w.ndim - 2
    if "output_shape" in a or a.get("auto_pad", b"NOTSET") not in (b"NOTSET", b""):
        raise NotImplementedError("ConvTranspose with output_shape or auto_pad")
    pads = _ints(a.get("pads", [0] * 2 * spatial))
    one, zero = [1] * spatial, [0] * spatial
    extra = [begin - end for begin, end in zip(pads[:spatial], pads[spatial:], strict=True)]
    padding = [e + max(d, 0) for e, d in zip(pads[spatial:], extra, strict=True)]
    if padding != pads[:spatial]:
        raise NotImplementedError("ConvTranspose with more padding at the end")
    missing = [p + e for p, e in zip(a.get("output_padding", zero), extra, strict=True)]
    call = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[spatial - 1]
    return call(x, w, b, a.get("strides", one), padding, missing, a.get("group", 1), a.get("dilations", one))


def _max_pool(a: Attributes, x: Tensor) -> Tensor:
    kernel = _ints(a["kernel_shape"])
    x, padding = _split_pads(x, _pads(a, x, kernel), -torch.inf)
    one = [1] * len(kernel)
    call = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel) - 1]
    pooled: Tensor = call(
        x, kernel, a.get("strides", one), padding, a.get("dilations", one), ceil_mode=bool(a.get("ceil_mode", 0))
    )
    return pooled


def _average_pool(a: Attributes, x: Tensor) -> Tensor:
    kernel = _ints(a["kernel_shape"])
    pads = _pads(a, x, kernel)
    spatial = len(kernel)
    counted = bool(a.get("count_include_pad", 0))
    if pads[:spatial] != pads[spatial:] and not counted:
        raise NotImplementedError("AveragePool with uneven padding that does not count")
    x, padding = _split_pads(x, pads)
    call: Any = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[spatial - 1]
    pooled: Tensor = call(x, kernel, a.get("strides", [1] * spatial), padding, bool(a.get("ceil_mode", 0)), counted)
    return pooled


def _batch_norm(a: Attributes, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    return F.batch_norm(x, mean, var, scale, bias, eps=a.get("epsilon", 1e-5))


def _clip(a: Attributes, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    if low is None and high is None:
        least, most = a.get("min"), a.get("max")
        return x if least is None and most is None else x.clamp(least, most)
    # limits stay where they are: to read them from a GPU, each call would wait for it
    return x.clamp(None if low is None else low.reshape(()), None if high is None else high.reshape(()))


def _reduce(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
        wanted = _axes(a, axes)
        if not wanted and a.get("noop_with_empty_axes", 0):
            return x
        return call(x, wanted or list(range(x.ndim)), keepdim=bool(a.get("keepdims", 1)))

    return run


def _arg(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(a: Attributes, x: Tensor) -> Tensor:
        if a.get("select_last_index", 0):
            raise NotImplementedError("ArgMax and ArgMin with select_last_index")
        return call(x, dim=a.get("axis", 0), keepdim=bool(a.get("keepdims", 1)))

    return run


def _resize(a: Attributes, x: Tensor, *rest: Tensor | None) -> Tensor:
    """Inputs are (x, scales) before opset 11, (x, roi, scales, sizes) since."""
    inputs = [None, rest[0]] if a["opset"] < 11 else list(rest)
    inputs += [None] * (3 - len(inputs))
    scales, sizes = (None if t is None or not t.numel() else t.tolist() for t in inputs[1:3])
    if "axes" in a or a.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise NotImplementedError("Resize of chosen axes, or keeping the aspect ratio")
    mode = a.get("mode", b"nearest").decode()
    where = a.get("coordinate_transformation_mode", b"half_pixel").decode()
    rounding = a.get("nearest_mode", b"round_prefer_floor").decode()
    known = {
        ("nearest", "asymmetric", "floor"): ("nearest", None),
        ("nearest", "half_pixel", "round_prefer_floor"): ("nearest-exact", None),
        ("nearest", "half_pixel", "round_prefer_ceil"): ("nearest-exact", None),
        ("linear", "half_pixel", ""): ("bilinear", False),
        ("linear", "pytorch_half_pixel", ""): ("bilinear", False),
        ("linear", "align_corners", ""): ("bilinear", True),
        ("cubic", "half_pixel", ""): ("bicubic", False),
        ("cubic", "align_corners", ""): ("bicubic", True),
    }
    choice = known.get((mode, where, rounding if mode == "nearest" else ""))
    if choice is None or x.ndim != 4:
        raise NotImplementedError(f"Resize {mode} {where} {rounding} of {x.ndim} dimensions")
    how, corners = choice
    options: dict[str, Any] = {"mode": how, "align_corners": corners}
    if mode != "nearest":
        options["antialias"] = bool(a.get("antialias", 0))
    if mode == "cubic" and abs(a.get("cubic_coeff_a", -0.75) + 0.75) > 1e-6:
        raise NotImplementedError("Resize cubic with a coefficient other than -0.75")
    if sizes is not None:
        return F.interpolate(x, size=_ints(sizes[2:]), **options)
    assert scales is not None
    return F.interpolate(x, scale_factor=[float(s) for s in scales[2:]], **options)


def _pad(a: Attributes, x: Tensor, pads: Tensor | None = None, value: Tensor | None = None, *axes: Tensor) -> Tensor:
    amounts = _ints(a["pads"] if pads is None else pads)
    chosen = _ints(axes[0]) if axes and axes[0] is not None else list(range(x.ndim))
    begins, ends = [0] * x.ndim, [0] * x.ndim
    for i, axis in enumerate(chosen):
        begins[axis], ends[axis] = amounts[i], amounts[i + len(chosen)]
    flat = [p for i in reversed(range(x.ndim)) for p in (begins[i], ends[i])]
    mode = a.get("mode", b"constant").decode()
    if mode == "constant":
        return F.pad(x, flat, value=float(a.get("value", 0.0) if value is None else value.item()))
    while len(flat) > 4 and not flat[-1] and not flat[-2]:
        flat = flat[:-2]  # torch pads spatial axes only, in these modes
    return F.pad(x, flat, mode={"reflect": "reflect", "edge": "replicate", "wrap": "circular"}[mode])


def _slice(a: Attributes, x: Tensor, *given: Any) -> Tensor:
    starts, ends = _ints(given[0] if given else a["starts"]), _ints(given[1] if given else a["ends"])
    axes = _axes(a, given[2] if len(given) > 2 else None) or list(range(len(starts)))
    steps = _ints(given[3]) if len(given) > 3 and given[3] is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        chosen = range(x.shape[axis])[start:end:step]
        if step > 0:
            x = x.narrow(
                axis, chosen.start if len(chosen) else 0, 0 if not len(chosen) else chosen[-1] - chosen.start + 1
            )
            x = x if step == 1 else x.index_select(axis, torch.arange(0, x.shape[axis], step, device=x.device))
        else:
            x = x.index_select(axis, torch.tensor(list(chosen), dtype=torch.int64, device=x.device))
    return x


def _split(a: Attributes, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = a.get("axis", 0)
    if sizes is not None or "split" in a:
        return x.split(_ints(a["split"] if sizes is None else sizes), axis)
    parts = int(a.get("num_outputs") or a["outputs"])
    return x.split(-(-x.shape[axis] // parts), axis)


def _gather(a: Attributes, x: Tensor, indices: Tensor) -> Tensor:
    axis = a.get("axis", 0) % x.ndim
    indices = indices.to(x.device, torch.int64)
    indices = torch.where(indices < 0, indices + x.shape[axis], indices)
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    return x.index_select(axis, indices.reshape(-1)).reshape(shape)


def _gather_elements(a: Attributes, x: Tensor, indices: Tensor) -> Tensor:
    axis = a.get("axis", 0) % x.ndim
    indices = indices.to(x.device, torch.int64)
    return x.gather(axis, torch.where(indices < 0, indices + x.shape[axis], indices))


def _reshape(a: Attributes, x: Tensor, shape: Tensor | None = None) -> Tensor:
    wanted = _ints(a["shape"] if shape is None else shape)
    if not a.get("allowzero", 0):
        wanted = [x.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    return x.reshape(wanted)


def _squeeze(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    wanted = _axes(a, axes)
    return x.squeeze() if wanted is None else x.squeeze(tuple(wanted))


def _unsqueeze(a: Attributes, x: Tensor, axes: Tensor | None = None) -> Tensor:
    wanted = _axes(a, axes) or []
    for axis in sorted(n % (x.ndim + len(wanted)) for n in wanted):
        x = x.unsqueeze(axis)
    return x


def _flatten(a: Attributes, x: Tensor) -> Tensor:
    axis = a.get("axis", 1)
    rows = reduce(operator.mul, x.shape[:axis], 1)
    return x.reshape(rows, -1)


def _softmax(a: Attributes, x: Tensor) -> Tensor:
    if a["opset"] >= 13:
        return x.softmax(a.get("axis", -1))
    return _flatten({"axis": a.get("axis", 1)}, x).softmax(1).reshape(x.shape)


def _gemm(a: Attributes, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    x, w = (x.t() if a.get("transA", 0) else x), (w.t() if a.get("transB", 0) else w)
    product = a.get("alpha", 1.0) * (x @ w)
    return product if b is None else product + a.get("beta", 1.0) * b


def _depth_to_space(a: Attributes, x: Tensor) -> Tensor:
    side = a["blocksize"]
    if a.get("mode", b"DCR") == b"CRD":
        return F.pixel_shuffle(x, side)
    n, c, h, w = x.shape
    blocks = x.reshape(n, side, side, c // side**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c // side**2, h * side, w * side)


def _space_to_depth(a: Attributes, x: Tensor) -> Tensor:
    side = a["blocksize"]
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // side, side, w // side, side).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(n, c * side**2, h // side, w // side)


def tensor_of(proto: Any) -> Tensor:
    """Convert an ``onnx.TensorProto``."""
    from onnx import numpy_helper

    return torch.from_numpy(numpy_helper.to_array(proto).copy())


def _constant(a: Attributes) -> Tensor:
    if "value" in a:
        value = a["value"]
        return value if isinstance(value, Tensor) else tensor_of(value)
    for key, dtype in (("value_float", torch.float32), ("value_floats", torch.float32)):
        if key in a:
            return torch.tensor(a[key], dtype=dtype)
    return torch.tensor(a.get("value_int", a.get("value_ints")), dtype=torch.int64)


def _constant_of_shape(a: Attributes, shape: Tensor) -> Tensor:
    value = _constant(a) if "value" in a else torch.zeros(1)
    return value.reshape(()).expand(_ints(shape)).clone()


def _shape(a: Attributes, x: Tensor) -> Tensor:
    return torch.tensor(x.shape[a.get("start", 0) : a.get("end")], dtype=torch.int64)


def _div(a: Attributes, x: Tensor, y: Tensor) -> Tensor:
    return x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def _scale_along(a: Attributes, x: Tensor, parameter: Tensor) -> Tensor:
    """Return a scale or zero point per tensor as it is, one per channel shaped to stand along the channels."""
    parameter = parameter.to(x.device)
    if parameter.numel() == 1:
        return parameter.reshape(())
    shape = [1] * x.ndim
    shape[a.get("axis", 1)] = -1
    return parameter.reshape(shape)


def _quantize(a: Attributes, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    dtype = torch.uint8 if zero is None else zero.dtype
    limits = torch.iinfo(dtype)
    steps = torch.round(x / _scale_along(a, x, scale))
    shifted = steps if zero is None else steps + _scale_along(a, x, zero).float()
    return shifted.clamp(limits.min, limits.max).to(dtype)


def _dequantize(a: Attributes, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    steps = x.to(scale.device).float()
    shifted = steps if zero is None else steps - _scale_along(a, steps, zero).float()
    return shifted * _scale_along(a, steps, scale)


def _top_k(a: Attributes, x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    found = x.topk(int(k.item()), a.get("axis", -1), bool(a.get("largest", 1)), bool(a.get("sorted", 1)))
    return found.values, found.indices


OPERATIONS: dict[str, Callable[..., Any]] = {
    "Abs": lambda a, x: x.abs(),
    "Add": lambda a, x, y: x + y,
    "And": lambda a, x, y: x & y,
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": lambda a, x: x.to(_dtype(a["to"])),
    "Ceil": lambda a, x: x.ceil(),
    "Clip": _clip,
    "Concat": lambda a, *xs: torch.cat(xs, a["axis"]),
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "DequantizeLinear": _dequantize,
    "Div": _div,
    "Dropout": lambda a, x, *_: x,
    "Elu": lambda a, x: F.elu(x, a.get("alpha", 1.0)),
    "Equal": lambda a, x, y: x == y,
    "Erf": lambda a, x: x.erf(),
    "Exp": lambda a, x: x.exp(),
    "Expand": lambda a, x, shape: x.expand(torch.broadcast_shapes(x.shape, _ints(shape))),
    "Flatten": _flatten,
    "Floor": lambda a, x: x.floor(),
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Gelu": lambda a, x: F.gelu(x, approximate=a.get("approximate", b"none").decode()),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda a, x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
    "GlobalMaxPool": lambda a, x: x.amax(tuple(range(2, x.ndim)), keepdim=True),
    "Greater": lambda a, x, y: x > y,
    "GreaterOrEqual": lambda a, x, y: x >= y,
    "HardSigmoid": lambda a, x: (x * a.get("alpha", 0.2) + a.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": lambda a, x: F.hardswish(x),
    "Identity": lambda a, x: x,
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "Less": lambda a, x, y: x < y,
    "LessOrEqual": lambda a, x, y: x <= y,
    "Log": lambda a, x: x.log(),
    "LogSoftmax": lambda a, x: _softmax(a, x).log(),
    "MatMul": lambda a, x, y: x @ y,
    "Max": lambda a, *xs: reduce(torch.maximum, xs),
    "MaxPool": _max_pool,
    "Min": lambda a, *xs: reduce(torch.minimum, xs),
    "Mul": lambda a, x, y: x * y,
    "Neg": lambda a, x: -x,
    "Not": lambda a, x: ~x,
    "Or": lambda a, x, y: x | y,
    "PRelu": lambda a, x, slope: torch.where(x < 0, x * slope, x),
    "Pad": _pad,
    "Pow": lambda a, x, y: x**y,
    "QuantizeLinear": _quantize,
    "Range": lambda a, start, end, step: torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype),
    "Reciprocal": lambda a, x: x.reciprocal(),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceSum": _reduce(torch.sum),
    "Relu": lambda a, x: x.relu(),
    "Reshape": _reshape,
    "Resize": _resize,
    "Round": lambda a, x: x.round(),
    "Shape": _shape,
    "Sigmoid": lambda a, x: x.sigmoid(),
    "Slice": _slice,
    "Softmax": _softmax,
    "Softplus": lambda a, x: F.softplus(x),
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Sqrt": lambda a, x: x.sqrt(),
    "Squeeze": _squeeze,
    "Sub": lambda a, x, y: x - y,
    "Sum": lambda a, *xs: reduce(operator.add, xs),
    "Tanh": lambda a, x: x.tanh(),
    "Tile": lambda a, x, repeats: x.repeat(_ints(repeats)),
    "TopK": _top_k,
    "Transpose": lambda a, x: x.permute(a.get("perm", tuple(reversed(range(x.ndim))))),
    "Unsqueeze": _unsqueeze,
    "Where": lambda a, condition, x, y: torch.where(condition, x, y),
}
"""The operators of the torch engine, by ONNX operator."""
