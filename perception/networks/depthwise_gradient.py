"""Gradient of the filters of a depthwise convolution, for channels-last bfloat16 on a CPU.

oneDNN's own takes up to ten times as long with 5x5 filters: it was a quarter of a training step of
`SegmentationDetectionNetwork`.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch
from numba.core import types
from numpy.typing import NDArray
from torch import Tensor

from perception.common.jit import kernel

LANES = 64  # channels at a time: what is in use of them stays in the first two caches

_fused = numba.njit(nogil=True, error_model="numpy", fastmath={"contract"}, inline="never")
_BITS = types.Array(types.int16, 4, "C", readonly=True)


@_fused
def _widen(source, target):  # type: ignore[no-untyped-def]
    """bfloat16 is the upper half of a float32; both are given as integers of their bits."""
    for c in range(source.size):
        target[c] = np.int32(source[c]) << 16


@_fused
def _add_row_of_five(total, x, grad, count):  # type: ignore[no-untyped-def]
    """`_add_row` for five taps and stride 1: the taps share what they load of ``x``."""
    o = 0
    while o + 4 <= count:
        xs, gs = x[o * LANES : (o + 8) * LANES], grad[o * LANES : (o + 4) * LANES]
        for c in range(LANES):
            g0, g1, g2, g3 = gs[c], gs[c + LANES], gs[c + 2 * LANES], gs[c + 3 * LANES]
            x0, x1, x2, x3 = xs[c], xs[c + LANES], xs[c + 2 * LANES], xs[c + 3 * LANES]
            x4, x5, x6, x7 = xs[c + 4 * LANES], xs[c + 5 * LANES], xs[c + 6 * LANES], xs[c + 7 * LANES]
            total[c] += x0 * g0 + x1 * g1 + x2 * g2 + x3 * g3
            total[c + LANES] += x1 * g0 + x2 * g1 + x3 * g2 + x4 * g3
            total[c + 2 * LANES] += x2 * g0 + x3 * g1 + x4 * g2 + x5 * g3
            total[c + 3 * LANES] += x3 * g0 + x4 * g1 + x5 * g2 + x6 * g3
            total[c + 4 * LANES] += x4 * g0 + x5 * g1 + x6 * g2 + x7 * g3
        o += 4
    if o < count:
        _add_row(total, x[o * LANES :], grad[o * LANES :], count - o, 5, 1)


@_fused
def _add_row(total, x, grad, count, taps, stride):  # type: ignore[no-untyped-def]
    """Add to the gradient of one row of the filters what one row of ``x`` and one of ``grad`` give to it.

    Args:
        total: float32 ``[taps * LANES]``.
        x: float32 ``[(count - 1) * stride + taps, LANES]``, padded, flat.
        grad: float32 ``[count, LANES]``, flat.
    """
    for tap in range(taps):
        mine = total[tap * LANES : (tap + 1) * LANES]
        o = 0
        while o + 4 <= count:
            first, step = (o * stride + tap) * LANES, stride * LANES
            a, b = x[first : first + LANES], x[first + step : first + step + LANES]
            d, e = x[first + 2 * step : first + 2 * step + LANES], x[first + 3 * step : first + 3 * step + LANES]
            gs = grad[o * LANES : (o + 4) * LANES]
            for c in range(LANES):
                mine[c] += a[c] * gs[c] + b[c] * gs[c + LANES] + d[c] * gs[c + 2 * LANES] + e[c] * gs[c + 3 * LANES]
            o += 4
        while o < count:
            first = (o * stride + tap) * LANES
            a, gs = x[first : first + LANES], grad[o * LANES : (o + 1) * LANES]
            for c in range(LANES):
                mine[c] += a[c] * gs[c]
            o += 1


@kernel(types.void(_BITS, _BITS, types.Array(types.float32, 2, "C"), types.intp, types.intp, types.intp, types.intp))
def _filter_gradient(x, grad, out, taps, stride, start, stop):  # type: ignore[no-untyped-def]
    """Channels ``start`` to ``stop`` of `filter_gradient`, ``out`` ``[taps * taps, C]``."""
    count, height, width, _ = x.shape
    out_height, out_width = grad.shape[1], grad.shape[2]
    pad = taps // 2
    # One row of the input with its padding, and the rows of the gradient that it meets, one after another in a ring.
    line = np.zeros((width + 2 * pad + stride) * LANES, np.float32)
    side = out_width * LANES
    ring = np.zeros(taps * side, np.float32)
    line_bits, ring_bits = line.view(np.int32), ring.view(np.int32)
    total = np.zeros(taps * taps * LANES, np.float32)
    for c0 in range(start, stop, LANES):
        lanes = min(LANES, stop - c0)
        if lanes < LANES:
            line[:] = 0
            ring[:] = 0
        total[:] = 0
        for n in range(count):
            seen = 0
            for y in range(height):
                for w in range(width):
                    at = (w + pad) * LANES
                    _widen(x[n, y, w, c0 : c0 + lanes], line_bits[at : at + lanes])
                while seen < out_height and seen * stride - pad <= y:
                    for w in range(out_width):
                        at = (seen % taps) * side + w * LANES
                        _widen(grad[n, seen, w, c0 : c0 + lanes], ring_bits[at : at + lanes])
                    seen += 1
                for tap in range(taps):
                    above = y + pad - tap
                    if above < 0 or above % stride or above // stride >= out_height:
                        continue
                    at = (above // stride % taps) * side
                    row = total[tap * taps * LANES : (tap + 1) * taps * LANES]
                    if taps == 5 and stride == 1:
                        _add_row_of_five(row, line, ring[at : at + side], out_width)
                    else:
                        _add_row(row, line, ring[at : at + side], out_width, taps, stride)
        for tap in range(taps * taps):
            for c in range(lanes):
                out[tap, c0 + c] = total[tap * LANES + c]


def filter_gradient(x: Tensor, grad: Tensor, kernel: int, stride: int) -> Tensor:
    """Compute the gradient of each filter value.

    Args:
        x: bfloat16 ``[N, C, H, W]``, the layer's input; fastest if channels are last in memory.
        grad: bfloat16 ``[N, C, ceil(H / stride), ceil(W / stride)]``, the gradient of the layer's output.
        kernel: odd side of the filters; padding is ``kernel // 2``.
        stride: of the layer.

    Returns:
        float32 ``[C, 1, kernel, kernel]``; summed in float32.
    """
    channels = x.shape[1]
    x_bits, grad_bits = _bits(x), _bits(grad)
    out = np.empty((kernel * kernel, channels), np.float32)
    groups = -(-channels // LANES)
    workers = min(torch.get_num_threads(), groups)
    bounds = [min(groups * i // workers * LANES, channels) for i in range(workers + 1)]

    def run(i: int) -> None:
        _filter_gradient(x_bits, grad_bits, out, kernel, stride, bounds[i], bounds[i + 1])

    if workers == 1:
        run(0)
    else:
        list(_pool(workers).map(run, range(workers)))
    return torch.from_numpy(out.T.reshape(channels, 1, kernel, kernel))


def _bits(x: Tensor) -> NDArray[np.int16]:
    """bfloat16 ``[N, C, H, W]`` as the integers of its bits, ``[N, H, W, C]``."""
    return np.asarray(x.detach().permute(0, 2, 3, 1).contiguous().view(torch.int16).numpy())


@functools.cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="depthwise")
