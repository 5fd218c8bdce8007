"""What one call of a TensorRT engine needs: a context, a stream, and memory on both sides of the bus."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from perception.engines.trt.flavour import Flavour
from perception.errors import EngineError
from perception.preprocess import Letterbox
from perception.types import U8, Frame

_DTYPES = {"FLOAT": np.float32, "UINT8": np.uint8}
"""The types of results: what the contract has."""

_OUT_OF_MEMORY = 2
"""``CUDA_ERROR_OUT_OF_MEMORY``."""

_log = logging.getLogger("perception")


class Worker:
    """An execution context, a stream of its own, and buffers, for one call at a time.

    Args:
        engine: a loaded engine.
        flavour: which TensorRT it is of.
        compiled: kernels that an earlier context compiled; may be empty.

    Attributes:
        batch: frames of a call.
        runtime_cache: the kernels that the context has compiled, or None where the flavour keeps none.

    Raises:
        MemoryError: the GPU has no room for it.
        EngineError: the engine does not take the memory or the work.
    """

    def __init__(self, engine: Any, flavour: Flavour, compiled: bytes) -> None:
        from numba import cuda

        trt = flavour.trt
        self.context, self.runtime_cache = flavour.create_context(engine, compiled)
        if self.context is None:
            raise MemoryError("no execution context can be made")
        self.stream: Any = cuda.stream()
        self._outputs: dict[str, tuple[Any, Any]] = {}
        self._staged: dict[tuple[tuple[int, ...], ...], list[tuple[Any, Any]]] = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                shape = tuple(engine.get_tensor_shape(name))
                self.batch = max(shape[0], 1)
                shape = (self.batch, *shape[1:])
                self.context.set_input_shape(name, shape)
                self._frames_host = cuda.pinned_array(shape, np.uint8)
                self._frames = cuda.device_array(shape, np.uint8)
                self._first = self._frames[0]
                self._bind(name, self._frames)
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT:
                shape = tuple(self.context.get_tensor_shape(name))  # known now that the input's is
                dtype = _DTYPES[engine.get_tensor_dtype(name).name]
                self._outputs[name] = (cuda.device_array(shape, dtype), cuda.pinned_array(shape, dtype))
                self._bind(name, self._outputs[name][0])
        self._graph: Any = None
        self._enqueue()  # the first time compiles and allocates, which cannot be captured
        self.stream.synchronize()
        if not flavour.portable:
            self._graph = capture(self._enqueue, self.stream)  # the other flavour does that by itself

    def run(self, frames: U8) -> dict[str, Any]:
        """Frames uint8 ``[batch, H, W, 3]`` to arrays of the caller's own, ``[batch, ...]``."""
        np.copyto(self._frames_host, frames)
        self._frames.copy_to_device(self._frames_host, stream=self.stream)
        return self.finish()

    def fit(self, frame: Frame, letterbox: Letterbox) -> None:
        """Bring a frame to the GPU as it is, and fit it there into the first of the input's; `finish` does the rest.

        Raises:
            MemoryError: the GPU has no room for a frame of this size.
        """
        from perception.postprocess import cuda as kernels

        planes = frame.planes
        arrays = (frame.image,) if planes is None else (planes.y, planes.u, planes.v)
        on_gpu = self._stage(arrays)
        if planes is None:
            kernels.fit(on_gpu[0], letterbox, self._first, self.stream)
        else:
            kernels.fit_planes(on_gpu, planes.matrix, planes.full_range, letterbox, self._first, self.stream)

    def finish(self) -> dict[str, Any]:
        """Run the network on what is on the GPU, and bring back its outputs, as arrays of the caller's own."""
        if self._graph is not None:
            self._graph.launch(self.stream)
        else:
            self._enqueue()
        for device, host in self._outputs.values():
            device.copy_to_host(host, stream=self.stream)
        self.stream.synchronize()
        return {name: np.array(host) for name, (_, host) in self._outputs.items()}

    def release(self) -> None:
        """Let go of the context, before its engine goes."""
        self.context = None
        self._graph = None
        self._staged.clear()

    def _stage(self, arrays: tuple[U8, ...]) -> list[Any]:
        """Arrays on the GPU with what ``arrays`` hold; their memory is kept for the next frame of the same shapes."""
        from numba import cuda

        shapes = tuple(array.shape for array in arrays)
        if shapes not in self._staged:
            self._staged.clear()  # those of another source
            try:
                made = [(cuda.pinned_array(s, np.uint8), cuda.device_array(s, np.uint8)) for s in shapes]
            except Exception as error:
                if out_of_memory(error):
                    raise MemoryError(f"the GPU has no room for a frame of {shapes[0][1]}x{shapes[0][0]}") from error
                raise
            self._staged[shapes] = made
        for array, (host, device) in zip(arrays, self._staged[shapes], strict=True):
            np.copyto(host, array)
            device.copy_to_device(host, stream=self.stream)
        return [device for _, device in self._staged[shapes]]

    def _bind(self, name: str, array: Any) -> None:
        if not self.context.set_tensor_address(name, address(array)):
            raise EngineError(f"the engine does not take memory for {name!r}")

    def _enqueue(self) -> None:
        if not self.context.execute_async_v3(int(self.stream)):
            raise EngineError("the GPU did not take the work")


def address(array: Any) -> int:
    """Where an array on the GPU is."""
    return int(array.__cuda_array_interface__["data"][0])


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of CUDA, or of Numba about CUDA, says that memory is used up."""
    code = getattr(error, "code", None)
    return isinstance(error, MemoryError) or (isinstance(code, int) and int(code) == _OUT_OF_MEMORY)


class _Graph:
    """The engine's kernels as one launch."""

    def __init__(self, executable: Any) -> None:
        self._executable = executable

    def launch(self, stream: Any) -> None:
        from cuda.bindings import driver

        _checked(driver.cuGraphLaunch(self._executable, int(stream)))


def capture(enqueue: Any, stream: Any) -> _Graph | None:
    """Record what ``enqueue`` puts on a stream, or None where that cannot be recorded; then it is enqueued anew."""
    try:
        from cuda.bindings import driver

        number = int(stream)
        _checked(driver.cuStreamBeginCapture(number, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))
        try:
            enqueue()
        finally:
            (graph,) = _checked(driver.cuStreamEndCapture(number))
        (executable,) = _checked(driver.cuGraphInstantiate(graph, 0))
        return _Graph(executable)
    except Exception as error:
        _log.debug("no CUDA graph: %s", error)
        return None


def _checked(result: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values of a CUDA call, without its error code."""
    if int(result[0]):
        raise RuntimeError(f"CUDA: {result[0]}")
    return result[1:]
