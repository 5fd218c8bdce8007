"""What is done on a GPU before the network and after it, to the same bytes as on the CPU.

Frames are fitted into its input as `perception.picture.resize.to_input` does, and its class logits get their argmax, as
`perception.postprocess.cells.label` finds it: drawing and counting need it, and what they need besides is cheap.

Arrays on the GPU are those of numba-cuda, or anything with ``__cuda_array_interface__``. Work is put on a stream and
not waited for. Float products are rounded before they are added, as on the CPU: a compiler for GPUs would else fuse
the two and now and then round to another byte.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import numba.cuda
import numpy as np
from numba.core import config as numba_config

from perception.picture.conversions import conversion
from perception.picture.letterbox import PAD, Letterbox
from perception.picture.resize import axis_taps
from perception.postprocess.segmentation import STRANGE

cuda: Any = numba.cuda
_config: Any = numba_config
SIMULATED = bool(_config.ENABLE_CUDASIM)
"""True where Numba's simulator stands in for a GPU."""

launching: Any = threading.Lock() if SIMULATED else nullcontext()
"""Held while a kernel is launched: the simulator runs it then, and ``cuda`` is something else here meanwhile."""

_THREADS = 256
_TILE = (4, 4) if SIMULATED else (16, 16)  # the simulator makes a thread of the system for each

if SIMULATED:

    class _SimulatedStream(cuda.stream):
        """A stream with a number, as real ones have."""

        def __int__(self) -> int:
            return 1

    def multiply(a, b):  # type: ignore[no-untyped-def]
        """The product, rounded to float32."""
        return a * b

    def add(a, b):  # type: ignore[no-untyped-def]
        """The sum, rounded to float32."""
        return a + b
else:
    from numba.cuda import libdevice

    multiply, add = libdevice.fmul_rn, libdevice.fadd_rn


@cuda.jit
def fit_kernel(source, sx, wx, sy, wy, left, top, out):  # type: ignore[no-untyped-def]
    """One thread a pixel of ``out [h, w, 3]``; the frame fills a rectangle of it, the rest is grey."""
    x, y = cuda.grid(2)
    if y >= out.shape[0] or x >= out.shape[1]:
        return
    column, line = x - left, y - top
    if column < 0 or line < 0 or column >= sx.shape[0] or line >= sy.shape[0]:
        for i in range(3):
            out[y, x, i] = np.uint8(PAD)
        return
    for i in range(3):
        total = np.float32(0)
        for t in range(wx.shape[1]):
            c = sx[column] + t
            value = multiply(wy[line, 0], np.float32(source[sy[line], c, i]))
            for k in range(1, wy.shape[1]):
                weight = wy[line, k]
                if weight != np.float32(0):
                    value = add(value, multiply(weight, np.float32(source[sy[line] + k, c, i])))
            total = add(total, multiply(wx[column, t], value))
        out[y, x, i] = np.uint8(add(min(max(total, np.float32(0)), np.float32(255)), np.float32(0.5)))


@cuda.jit(device=True, inline="always")  # so that the kernel alone is compiled
def _mean(source, sx, wx, sy, wy, column, line):  # type: ignore[no-untyped-def]
    """The weighted mean of the samples under one pixel, added up in the order of `perception.picture.resize`."""
    taps = wx.shape[1]
    total, rest = np.float32(0), np.float32(0)
    for t in range(taps):
        c = sx[column] + t
        value = multiply(wy[line, 0], np.float32(source[sy[line], c]))
        for k in range(1, wy.shape[1]):
            weight = wy[line, k]
            if weight != np.float32(0):
                value = add(value, multiply(weight, np.float32(source[sy[line] + k, c])))
        if taps == 4 and t >= 2:  # four are added up in pairs there
            rest = add(rest, multiply(value, wx[column, t]))
        else:
            total = add(total, multiply(value, wx[column, t]))
    return add(total, rest)


@cuda.jit
def fit_planes_kernel(  # type: ignore[no-untyped-def]
    src_y, src_u, src_v, sx, wx, sy, wy, csx, cwx, csy, cwy, factors, black, left, top, out
):
    """One thread a pixel of ``out [h, w, 3]``, from planes; the frame fills a rectangle of it, the rest is grey."""
    x, y = cuda.grid(2)
    if y >= out.shape[0] or x >= out.shape[1]:
        return
    column, line = x - left, y - top
    if column < 0 or line < 0 or column >= sx.shape[0] or line >= sy.shape[0]:
        for i in range(3):
            out[y, x, i] = np.uint8(PAD)
        return
    luma = multiply(_mean(src_y, sx, wx, sy, wy, column, line) - black, factors[0])
    u = _mean(src_u, csx, cwx, csy, cwy, column, line) - np.float32(128)
    v = _mean(src_v, csx, cwx, csy, cwy, column, line) - np.float32(128)
    zero, most, half = np.float32(0), np.float32(255), np.float32(0.5)
    blue = add(luma, multiply(factors[1], u))
    green = add(add(luma, multiply(factors[2], u)), multiply(factors[3], v))
    red = add(luma, multiply(factors[4], v))
    out[y, x, 0] = np.uint8(add(min(max(blue, zero), most), half))
    out[y, x, 1] = np.uint8(add(min(max(green, zero), most), half))
    out[y, x, 2] = np.uint8(add(min(max(red, zero), most), half))


@cuda.jit
def label_kernel(logits, labels):  # type: ignore[no-untyped-def]
    """The argmax over classes of ``logits [N, C, h, w]``, the lowest where several are best; a thread takes a cell.

    NaN and infinities become what they count as.
    """
    _, classes, height, width = logits.shape
    for i in range(cuda.grid(1), labels.size, cuda.gridsize(1)):
        x, y, n = i % width, i // width % height, i // (width * height)
        best, index = np.float32(-np.inf), 0
        for c in range(classes):
            value = logits[n, c, y, x]
            if not abs(value) < np.float32(np.inf):
                value = np.float32(STRANGE if value > np.float32(0) else -STRANGE)  # NaN is not greater
                logits[n, c, y, x] = value
            if value > best:
                best, index = value, c
        labels[n, y, x] = index


def fit(image: Any, letterbox: Letterbox, out: Any, stream: Any = 0) -> None:
    """Resize a frame into a network's input, as `perception.picture.resize.to_input` does.

    Args:
        image: uint8 ``[H, W, 3]`` BGR on the GPU, of the frame's size.
        letterbox: where the frame goes.
        out: uint8 ``[h, w, 3]`` on the GPU, of the input's size; all of it is written.
        stream: where the work is put.

    Raises:
        ValueError: an array is of another size.
    """
    _check("image", image, (letterbox.frame_height, letterbox.frame_width, 3))
    _check("out", out, (letterbox.input_height, letterbox.input_width, 3))
    taps = _device_taps(letterbox)
    with launching:
        fit_kernel[_grid(out), _TILE, stream](image, *taps, letterbox.left, letterbox.top, out)


def fit_planes(
    planes: Sequence[Any], matrix: str, full_range: bool, letterbox: Letterbox, out: Any, stream: Any = 0
) -> None:
    """Resize a frame of YUV 4:2:0 into a network's input, as `perception.picture.resize.to_input` does.

    Args:
        planes: y, u, v, each uint8 ``[rows, columns]`` on the GPU, as in `perception.types.Planes`.
        matrix, full_range: how they are coded, see `perception.types.Planes`.
        letterbox: where the frame goes.
        out: uint8 ``[h, w, 3]`` BGR on the GPU, of the input's size; all of it is written.
        stream: where the work is put.

    Raises:
        ValueError: an array is of another size.
    """
    height, width = letterbox.frame_height, letterbox.frame_width
    chroma = ((height + 1) // 2, (width + 1) // 2)
    for name, plane, shape in zip("yuv", planes, ((height, width), chroma, chroma), strict=True):
        _check(name, plane, shape)
    _check("out", out, (letterbox.input_height, letterbox.input_width, 3))
    taps, factors = _device_plane_taps(letterbox), _device_factors(matrix, full_range)
    with launching:
        fit_planes_kernel[_grid(out), _TILE, stream](
            *planes, *taps, *factors, letterbox.left, letterbox.top, out
        )  # fmt: skip


def label(logits: Any, labels: Any, stream: Any = 0) -> None:
    """Find the class of each cell, as `perception.postprocess.segmentation` does first; the logits are finite then.

    Args:
        logits: float32 ``[N, C, h, w]`` on the GPU, C at most 255. NaN becomes -1e30, infinities become +-1e30.
        labels: uint8 ``[N, h, w]`` on the GPU, to be written.
        stream: where the work is put.

    Raises:
        ValueError: the arrays do not fit.
    """
    n, classes, h, w = (int(side) for side in logits.shape)
    if logits.dtype != np.float32 or not 1 <= classes <= 255:
        raise ValueError(f"logits must be float32 [N, C, h, w], C in 1..255, got {logits.dtype} {list(logits.shape)}")
    _check("labels", labels, (n, h, w))
    blocks, threads = (1, 1) if SIMULATED else (-(-n * h * w // _THREADS), _THREADS)
    with launching:
        label_kernel[blocks, threads, stream](logits, labels)


def make_stream() -> Any:
    """Make a stream that neither waits for the legacy stream nor makes it wait, as those of `numba.cuda.stream` do."""
    if SIMULATED:
        return _SimulatedStream()
    from cuda.bindings import driver

    cuda.current_context()  # made, and this thread's
    error, handle = driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING)
    if int(error):
        raise RuntimeError(f"CUDA: {error}")
    stream = cuda.external_stream(int(handle))
    weakref.finalize(stream, driver.cuStreamDestroy, handle).atexit = False  # the driver may be gone by then
    return stream


def try_kernels(stream: Any) -> None:
    """Compile every kernel for this GPU, run each once on what is small, and wait for that.

    Raises:
        Exception: whatever Numba or CUDA raise where one cannot be compiled or run.
    """
    box = Letterbox.fit(2, 2, 2, 2)
    with launching:
        out, image = (cuda.device_array((2, 2, 3), np.uint8) for _ in range(2))
        planes = [cuda.device_array(shape, np.uint8) for shape in ((2, 2), (1, 1), (1, 1))]
        logits, labels = cuda.device_array((1, 2, 1, 1), np.float32), cuda.device_array((1, 1, 1), np.uint8)
    fit(image, box, out, stream)
    fit_planes(planes, "bt601", False, box, out, stream)
    label(logits, labels, stream)
    stream.synchronize()


def _check(name: str, array: Any, shape: tuple[int, ...]) -> None:
    if tuple(array.shape) != shape or array.dtype != np.uint8:
        raise ValueError(f"{name} must be uint8 {list(shape)}, got {array.dtype} {list(array.shape)}")


def _grid(array: Any) -> tuple[int, int]:
    return -(-int(array.shape[1]) // _TILE[0]), -(-int(array.shape[0]) // _TILE[1])


@lru_cache(maxsize=16)
def _device_taps(box: Letterbox) -> tuple[Any, ...]:
    """Return the pixels that make each pixel of the input, and their weights; for the columns, then for the rows."""
    if (box.frame_width, box.frame_height) == (box.width, box.height):
        axes = [(np.arange(n, dtype=np.int64), np.ones((n, 1), np.float32)) for n in (box.width, box.height)]
    else:
        axes = [
            axis_taps(box.frame_width, float(box.frame_width), box.width),
            axis_taps(box.frame_height, float(box.frame_height), box.height),
        ]
    return _upload(array for axis in axes for array in axis)


@lru_cache(maxsize=16)
def _device_plane_taps(box: Letterbox) -> tuple[Any, ...]:
    """Return the taps of planes: columns and rows of the luma, columns and rows of the chroma."""
    sides = ((box.frame_width, box.width), (box.frame_height, box.height))
    axes = [axis_taps(samples, float(samples), size) for samples, size in sides]
    axes += [axis_taps((samples + 1) // 2, samples / 2, size) for samples, size in sides]
    return _upload(array for axis in axes for array in axis)


@lru_cache(maxsize=4)
def _device_factors(matrix: str, full_range: bool) -> tuple[Any, np.float32]:
    factors, black = conversion(matrix, full_range)
    return *_upload([factors.astype(np.float32)]), np.float32(black)


def _upload(arrays: Iterable[Any]) -> tuple[Any, ...]:
    """Bring constants to the GPU, where they are when this returns: any stream may read them then.

    Not on the legacy stream, on which nothing may be put while another thread records a graph.
    """
    stream, kept = make_stream(), list(arrays)  # kept until they are there
    with launching:
        uploaded = tuple(cuda.to_device(array, stream=stream) for array in kept)
    stream.synchronize()
    return uploaded
