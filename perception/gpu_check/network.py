"""A network in place of TensorRT's: one kernel, on the same addresses and the same stream.

It takes what the real worker gives to TensorRT and checks it by what it computes: the mask of a pixel is a number that
depends on all of its three bytes, and its logits are those bytes.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from perception.postprocess.cuda import SIMULATED, cuda, launching
from perception.types import U8

_TILE = 16 if SIMULATED else 128


@cuda.jit
def _mix_kernel(frames, masks, logits):  # type: ignore[no-untyped-def]
    """One thread a pixel, of ``frames [P, 3]``, ``masks [P]``, and ``logits [N, 3, P / N]``."""
    pixel = cuda.grid(1)
    if pixel < masks.shape[0]:
        size = logits.shape[2]
        for c in range(3):
            logits[pixel // size, c, pixel % size] = np.float32(frames[pixel, c])
        b, g, r = np.int64(frames[pixel, 0]), np.int64(frames[pixel, 1]), np.int64(frames[pixel, 2])
        masks[pixel] = np.uint8((b + 3 * g + 7 * r) % 251)


def mixed(frames: U8) -> U8:
    """Compute on the CPU what the network does: uint8 ``[..., 3]`` to ``[...]``."""
    b, g, r = (frames[..., i].astype(np.int64) for i in range(3))
    return np.asarray((b + 3 * g + 7 * r) % 251, np.uint8)


class Network:
    """Has what `perception.engines.trt.worker.Worker` asks of an engine, for frames of one size.

    Args:
        size: (width, height) of its frames in pixels.
    """

    num_io_tensors = 3
    device_memory_size_v2 = 1

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def get_tensor_name(self, index: int) -> str:
        """Return the name of an input or output."""
        return ("frames", "masks", "logits")[index]

    def get_tensor_mode(self, name: str) -> str:
        """Return which of both it is."""
        return "input" if name == "frames" else "output"

    def get_tensor_dtype(self, name: str) -> Any:
        """Return its type."""
        return SimpleNamespace(name="FLOAT" if name == "logits" else "UINT8")

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Return its shape; -1 for the number of frames."""
        width, height = self.size
        return {"frames": (-1, height, width, 3), "masks": (-1, height, width), "logits": (-1, 3, height, width)}[name]


class Context:
    """Has what the worker asks of an execution context."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._count = 0
        self._places: dict[str, int] = {}
        self._arrays: dict[str, Any] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """Take the number of frames."""
        self._count = shape[0]
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Return a shape, for that many frames."""
        return (self._count, *self._network.get_tensor_shape(name)[1:])

    def set_device_memory(self, where: int, size: int) -> None:
        """Take scratch memory, of which it needs none."""

    def set_tensor_address(self, name: str, where: int) -> bool:
        """Take the memory of an input or output."""
        width, height = self._network.size
        size = width * height
        pixels = self._count * size
        shapes: dict[str, tuple[int, ...]] = {
            "frames": (pixels, 3),
            "masks": (pixels,),
            "logits": (self._count, 3, size),
        }
        self._arrays[name] = _at(where, shapes[name], np.float32 if name == "logits" else np.uint8)
        return True

    def execute_async_v3(self, stream: int) -> bool:
        """Put the network on a stream."""
        masks = self._arrays["masks"]
        grid = -(-masks.shape[0] // _TILE)
        there = 0 if SIMULATED else cuda.external_stream(stream)
        with launching:
            _mix_kernel[grid, _TILE, there](self._arrays["frames"], masks, self._arrays["logits"])
        return True


class NetworkFlavour:
    """Has what the worker asks of a `perception.engines.trt.flavour.Flavour`."""

    portable = False  # so that the worker records a graph
    trt = SimpleNamespace(TensorIOMode=SimpleNamespace(INPUT="input", OUTPUT="output"))

    def create_context(self, engine: Network, runtime_cache: bytes, *, own_memory: bool = True) -> tuple[Context, None]:
        """Create a context."""
        return Context(engine), None


def _at(where: int, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
    """Return the array at an address of the GPU's memory, or of the simulator's."""
    kind = np.dtype(dtype)
    if SIMULATED:
        import ctypes

        size = int(np.prod(shape)) * kind.itemsize
        memory: Any = (ctypes.c_uint8 * size).from_address(where)
        return np.frombuffer(memory, kind).reshape(shape)
    interface = {"shape": shape, "typestr": kind.str, "data": (where, False), "version": 3, "strides": None}
    return cuda.as_cuda_array(SimpleNamespace(__cuda_array_interface__=interface), sync=False)
