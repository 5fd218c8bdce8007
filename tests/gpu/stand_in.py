"""A GPU for the TensorRT engine where there is none: its runtime, on memory that Numba simulates.

The graph is prepared, parsed, built and cached by TensorRT for RTX; the stand-in computes the same graph with ONNX
Runtime, reading and writing the memory whose addresses it was given.
"""

from __future__ import annotations

import ctypes
import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from perception.common import hardware
from perception.common.hardware import Gpu
from perception.engines import tensorrt
from perception.engines.trt.flavour import Flavour


class Context:
    """Stands in for IExecutionContext."""

    def __init__(self, engine: CudaEngine, own_memory: bool) -> None:
        self.engine = engine
        self.scratch = (0, engine.device_memory_size_v2) if own_memory else None
        self.addresses: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.running = 0
        self.lock = threading.Lock()

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        batch = self.shapes["frames"][0]
        shape = self.engine.get_tensor_shape(name)
        if min(shape[1:]) < 0:  # the size of frames is free, too: ask for results
            names = [o.name for o in self.engine.session.get_outputs()]
            results = self.engine.session.run(names, {"frames": np.zeros(self.shapes["frames"], np.uint8)})
            return next(tuple(r.shape) for n, r in zip(names, results, strict=True) if n == name)
        return tuple(batch if n < 0 else n for n in shape)

    def set_device_memory(self, where: int, size: int) -> None:
        self.scratch = (where, size)

    def set_tensor_address(self, name: str, where: int) -> bool:
        self.addresses[name] = where
        return True

    def memory(self, name: str, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer((ctypes.c_uint8 * size).from_address(self.addresses[name]), dtype).reshape(shape)

    def execute_async_v3(self, stream: int) -> bool:
        assert stream != 0  # never the default stream
        assert self.scratch is not None and self.scratch[1] >= self.engine.device_memory_size_v2
        with self.lock:
            self.running += 1
            assert self.running == 1, "two calls in one context at once"
        if self.engine.broken:
            raise RuntimeError("CUDA error 999: the GPU has fallen off the bus")
        frames = self.memory("frames", np.uint8, self.shapes["frames"])
        self.engine.executions.append(len(frames))
        names = [o.name for o in self.engine.session.get_outputs()]
        for name, result in zip(names, self.engine.session.run(names, {"frames": frames}), strict=True):
            self.memory(name, result.dtype, result.shape)[...] = result
        with self.lock:
            self.running -= 1
        return True


class CudaEngine:
    """Stands in for ICudaEngine."""

    device_memory_size_v2 = 1000

    def __init__(self, graph: bytes, inspection: Any) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.tensors = [*inspection.inputs, *inspection.outputs]
        self.inputs = {t.name for t in inspection.inputs}
        self.num_io_tensors = len(self.tensors)
        self.broken = False
        self.contexts: list[Context] = []
        self.executions: list[int] = []

    def get_tensor_name(self, index: int) -> str:
        return self.tensors[index].name

    def _tensor(self, name: str) -> Any:
        return next(t for t in self.tensors if t.name == name)

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self.inputs else "output"

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self._tensor(name).dtype)

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._tensor(name).shape


class RuntimeCache:
    def serialize(self) -> bytes:
        return b"compiled kernels"


class StandIn:
    """What the tests look at and turn."""

    def __init__(self) -> None:
        self.built: list[Any] = []
        self.engines: list[CudaEngine] = []
        self.contexts_that_fit = 99
        self.loads = True
        self.refused = 0
        """So many of the next ones do not load."""
        self.why = "Version tag does not match"
        self.runtime_caches: list[bytes] = []


def install(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Put the stand-in where the GPU would be, for one test."""
    state = StandIn()
    obtain = tensorrt.obtain

    def remember(recipe: Any, unusable: Any = None) -> Any:
        state.built.append(obtain(recipe, unusable=unusable))
        return state.built[-1]

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> CudaEngine | None:
            assert plan == state.built[-1].engine.plan and len(plan) > 1000
            refused = not state.loads or state.refused > 0
            state.refused = max(state.refused - 1, 0)
            if refused:
                self.logger.log(Flavour("rtx").trt.ILogger.ERROR, state.why)
                return None
            state.engines.append(CudaEngine(state.built[-1].recipe.graph, state.built[-1].inspection))
            return state.engines[-1]

    class Module:
        TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")

        def __init__(self, real: Any) -> None:
            self.Runtime, self.real = Runtime, real

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    class Fake(Flavour):
        def __init__(self) -> None:
            super().__init__("rtx")
            self.trt = Module(self.trt)

        def create_context(self, engine: Any, runtime_cache: bytes, *, own_memory: bool = True) -> tuple[Any, Any]:
            state.runtime_caches.append(runtime_cache)
            if len(engine.contexts) >= state.contexts_that_fit:
                return None, None
            engine.contexts.append(Context(engine, own_memory))
            return engine.contexts[-1], RuntimeCache()

    from numba import cuda

    from perception.postprocess import cuda as kernels

    upload = cuda.cudadrv.devicearray.FakeCUDAArray.copy_to_device

    class Stream:
        """Copies at once, and sees to it that nobody writes into the pinned memory before the stream has come there."""

        def __init__(self) -> None:
            self.under_way: list[tuple[np.ndarray, np.ndarray]] = []

        def __int__(self) -> int:
            return 7

        def synchronize(self) -> None:
            for pinned, copied in self.under_way:
                assert np.array_equal(pinned, copied), "pinned memory was written while it was being copied"
            self.under_way.clear()

    def copy_to_device(self: Any, array: Any, stream: Any = 0) -> None:
        upload(self, array, stream)
        if isinstance(stream, Stream):
            stream.under_way.append((array, array.copy()))

    gpu = Gpu("NVIDIA Simulated", (8, 9), 8 << 30)
    monkeypatch.setattr(hardware, "nvidia_gpus", lambda: ([gpu], "CUDA driver 13.0"))
    monkeypatch.setattr(tensorrt, "obtain", remember)
    monkeypatch.setattr(tensorrt, "find_flavour", Fake)
    monkeypatch.setattr(kernels, "make_stream", Stream)
    monkeypatch.setattr(cuda.cudadrv.devicearray.FakeCUDAArray, "copy_to_device", copy_to_device)
    return state
