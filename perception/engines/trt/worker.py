"""All that one call of a TensorRT engine needs: contexts, a stream, and memory on both sides of the bus."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

import numpy as np

from perception.engines.trt.flavour import Flavour
from perception.errors import EngineError
from perception.picture.letterbox import Letterbox
from perception.postprocess.post_processing import labels_of
from perception.types import U8, Frame

_DTYPES: dict[str, type[np.generic]] = {
    "FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "INT32": np.int32, "INT8": np.int8,
    "UINT8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
"""The types of results: what the contract has, and what other outputs of foreign graphs may be."""

_OUT_OF_MEMORY = 2
"""``CUDA_ERROR_OUT_OF_MEMORY``."""

_SHAPES_KEPT = 4
"""Frames beyond those of a call whose memory is kept: for clients whose frames differ in size and take turns."""

_log = logging.getLogger("perception")


class Worker:
    """Execution contexts, a stream of its own, and buffers, for one call at a time.

    Args:
        engine: a loaded engine.
        flavour: which TensorRT it is of.
        batch: most frames of a call; an engine for a fixed number takes that one.
        size: (width, height) of its frames in pixels; of those that it takes, where it takes several.
        compiled: kernels that earlier contexts compiled; may be empty.
        logits: name of the output whose argmax comes with it, see `perception.postprocess.post_processing.labels_of`.

    Attributes:
        batch: most frames of a call.
        compiled: the kernels that all contexts so far have compiled; empty where the flavour keeps none.

    Raises:
        MemoryError: the GPU has no room for it.
        EngineError: the engine does not take the memory or the work.
    """

    def __init__(
        self,
        engine: Any,
        flavour: Flavour,
        batch: int,
        size: tuple[int, int],
        compiled: bytes,
        logits: str | None = None,
    ) -> None:
        from numba import cuda

        from perception.postprocess.cuda import make_stream

        trt = flavour.trt
        tensors = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        (source,) = [name for name in tensors if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        fixed, shape = engine.get_tensor_shape(source)[0], (size[1], size[0], 3)
        self.batch = batch if fixed < 0 else int(fixed)
        self.compiled = compiled
        self.stream: Any = make_stream()
        host = cuda.pinned_array((self.batch, *shape), np.uint8)
        frames = cuda.device_array((self.batch, *shape), np.uint8)
        self._slots = [frames[slot] for slot in range(self.batch)]
        self._staging = _Staging(self.batch + _SHAPES_KEPT, self.stream)
        self._passes: dict[int, _Pass] = {}
        outputs: dict[str, tuple[Any, Any]] = {}
        labels: dict[str, tuple[Any, Any]] = {}  # of which the engine knows nothing
        # Contexts compute one after the other, so that one scratch memory serves all of them.
        self._scratch = None if self.batch == 1 or fixed > 0 else cuda.device_array(_scratch_size(engine), np.uint8)
        # All of them now, the largest first: so no frame waits for one, and what does not fit shows at once.
        for count in range(self.batch, 0, -1) if fixed < 0 else [self.batch]:
            context, cache = flavour.create_context(engine, self.compiled, own_memory=self._scratch is None)
            if context is None:
                raise MemoryError("cannot create an execution context")
            if self._scratch is not None:
                context.set_device_memory(address(self._scratch), self._scratch.nbytes)
            context.set_input_shape(source, (count, *shape))
            for name in tensors:
                if name not in outputs and name != source:
                    size = tuple(context.get_tensor_shape(name))  # known now that the input's is
                    dtype = _numpy_type(name, engine.get_tensor_dtype(name).name)
                    outputs[name] = (cuda.device_array(size, dtype), cuda.pinned_array(size, dtype))
            for name, array in {source: frames, **{name: device for name, (device, _) in outputs.items()}}.items():
                if not context.set_tensor_address(name, address(array)):
                    raise EngineError(f"the engine does not accept memory for {name!r}")
            if logits is not None and not labels:
                most, _, *cells = outputs[logits][0].shape
                cells = most, *cells
                labels[labels_of(logits)] = cuda.device_array(cells, np.uint8), cuda.pinned_array(cells, np.uint8)
            results = {
                name: (device[:count], pinned[:count]) for name, (device, pinned) in {**outputs, **labels}.items()
            }
            # the other flavour makes CUDA graphs by itself
            made = _Pass(context, self.stream, (frames[:count], host[:count]), results, logits, not flavour.portable)
            self._passes[count] = made
            if cache is not None:
                self.compiled = bytes(cache.serialize())

    def run(self, frames: U8) -> dict[str, Any]:
        """Run the engine on at most ``batch`` frames, uint8 ``[n, H, W, 3]``; return new arrays ``[n, ...]``."""
        device, host = self._pass(len(frames)).frames
        np.copyto(host, frames)
        device.copy_to_device(host, stream=self.stream)
        return self.finish(len(frames))

    def fit(self, frame: Frame, letterbox: Letterbox, slot: int = 0) -> None:
        """Bring a frame to the GPU as it is, and fit it there into one of the input's; `finish` does the rest.

        Raises:
            MemoryError: not enough GPU memory for a frame of this size.
        """
        from perception.postprocess import cuda as kernels

        planes = frame.planes
        arrays = (frame.image,) if planes is None else (planes.y, planes.u, planes.v)
        on_gpu = self._staging.upload(arrays)
        if planes is None:
            kernels.fit(on_gpu[0], letterbox, self._slots[slot], self.stream)
        else:
            kernels.fit_planes(on_gpu, planes.matrix, planes.full_range, letterbox, self._slots[slot], self.stream)

    def finish(self, count: int) -> dict[str, Any]:
        """Run the network on the first ``count`` frames on the GPU, in one go, and bring back its outputs.

        Returns:
            arrays of the caller's own, ``[count, ...]``, or of the number that the engine is fixed to.
        """
        chosen = self._pass(count)
        chosen.start()
        for device, host in chosen.results.values():
            device.copy_to_host(host, stream=self.stream)
        self.stream.synchronize()
        self._staging.recycle()
        return {name: np.array(host) for name, (_, host) in chosen.results.items()}

    @property
    def replays(self) -> bool:
        """True where the network is a recorded CUDA graph, for every number of frames."""
        return all(each.replays for each in self._passes.values())

    def poison(self, value: int) -> None:
        """Overwrite all results in both memories, so that ones of an earlier call cannot pass for new ones."""
        for device, host in self._pass(self.batch).results.values():
            host.view(np.uint8)[...] = value
            device.copy_to_device(host, stream=self.stream)
        self.stream.synchronize()

    def abandon(self) -> None:
        """Let go of frames that were fitted for a call that failed."""
        with suppress(Exception):  # a GPU that is lost; the caller has that error already
            self.stream.synchronize()
        self._staging.recycle()

    def release(self) -> None:
        """Let go of the contexts and their graphs, before their engine goes."""
        for each in self._passes.values():
            each.release()
        self._passes.clear()
        self._staging.clear()

    def _pass(self, count: int) -> _Pass:
        return self._passes.get(count) or self._passes[self.batch]


class _Pass:
    """The network for one number of frames: a context with its shapes, and its CUDA graph.

    A graph holds the shapes that the context had, and TensorRT does not allow to change a context that was captured:
    so there is one for each number of frames.

    Args:
        context: an execution context, with shapes and addresses set.
        stream: where it runs.
        frames: the input's memory on the GPU, and pinned.
        results: the same for the outputs, by name.
        logits: name of the one that gets an argmax.
        graph: whether to record a CUDA graph.

    Raises:
        EngineError: the GPU does not take the work.
    """

    def __init__(
        self,
        context: Any,
        stream: Any,
        frames: tuple[Any, Any],
        results: dict[str, tuple[Any, Any]],
        logits: str | None,
        graph: bool,
    ) -> None:
        self.context = context
        self.frames = frames
        self.results = results
        self._stream = stream
        self._logits = logits
        self._graph: _Graph | None = None
        self._enqueue()  # the first time compiles and allocates, which cannot be captured
        stream.synchronize()
        if graph:
            self._graph = capture(self._enqueue, stream)

    def start(self) -> None:
        """Put the network on the stream."""
        if self._graph is not None:
            self._graph.launch(self._stream)
        else:
            self._enqueue()

    @property
    def replays(self) -> bool:
        """True where it is a recorded graph."""
        return self._graph is not None

    def release(self) -> None:
        """Let go of the graph."""
        if self._graph is not None:
            self._graph.release()
            self._graph = None

    def _enqueue(self) -> None:
        if not self.context.execute_async_v3(int(self._stream)):
            raise EngineError("the GPU did not accept the work")
        if self._logits is not None:
            from perception.postprocess.cuda import label

            label(self.results[self._logits][0], self.results[labels_of(self._logits)][0], self._stream)


class _Staging:
    """Memory, pinned and on the GPU, for frames as they come; kept for the next ones of the same shapes.

    Args:
        limit: frames whose memory is kept at most.
        stream: on which frames are copied.
    """

    def __init__(self, limit: int, stream: Any) -> None:
        self._limit = limit
        self._stream = stream
        self._free: list[list[tuple[Any, Any]]] = []  # the one used last at the end
        self._used: list[list[tuple[Any, Any]]] = []

    def upload(self, arrays: tuple[U8, ...]) -> list[Any]:
        """Arrays on the GPU with what ``arrays`` hold; theirs until `recycle`.

        Raises:
            MemoryError: the GPU has no room for them.
        """
        pairs = self._take([array.shape for array in arrays])
        self._used.append(pairs)
        for array, (host, device) in zip(arrays, pairs, strict=True):
            np.copyto(host, array)
            device.copy_to_device(host, stream=self._stream)
        return [device for _, device in pairs]

    def recycle(self) -> None:
        """Take back the memory of all frames; the stream has come to its end."""
        self._free += self._used
        self._used.clear()

    def clear(self) -> None:
        """Give back all memory."""
        self._free.clear()
        self._used.clear()

    def _take(self, shapes: list[tuple[int, ...]]) -> list[tuple[Any, Any]]:
        from numba import cuda

        for index in reversed(range(len(self._free))):
            if [host.shape for host, _ in self._free[index]] == shapes:
                return self._free.pop(index)
        while self._free and len(self._free) + len(self._used) >= self._limit:
            del self._free[0]
        while True:
            try:
                return [(cuda.pinned_array(s, np.uint8), cuda.device_array(s, np.uint8)) for s in shapes]
            except Exception as error:
                if not out_of_memory(error):
                    raise
                if not self._free:
                    height, width = shapes[0][:2]
                    raise MemoryError(f"not enough GPU memory for a frame of {width}x{height}") from error
                self._free.clear()


def _scratch_size(engine: Any) -> int:
    return max(int(engine.device_memory_size_v2), 1)


def _numpy_type(name: str, dtype: str) -> type[np.generic]:
    if dtype not in _DTYPES:
        raise EngineError(f"output {name!r} is of a type that NumPy does not have: {dtype.lower()}")
    return _DTYPES[dtype]


def address(array: Any) -> int:
    """Return the address of an array on the GPU."""
    interface = getattr(array, "__cuda_array_interface__", None)
    return int(array._ary.ctypes.data if interface is None else interface["data"][0])  # Numba's simulator has none


def out_of_memory(error: BaseException) -> bool:
    """True where an error of CUDA, or of Numba about CUDA, says that memory is used up."""
    code = getattr(error, "code", None)
    return isinstance(error, MemoryError) or (isinstance(code, int) and int(code) == _OUT_OF_MEMORY)


class _Graph:
    """The engine's kernels as one launch."""

    def __init__(self, executable: Any) -> None:
        self._executable = executable

    def launch(self, stream: Any) -> None:
        from cuda.bindings import driver

        _checked(driver.cuGraphLaunch(self._executable, int(stream)))

    def release(self) -> None:
        """Give back its memory, which the driver keeps otherwise."""
        from cuda.bindings import driver

        driver.cuGraphExecDestroy(self._executable)  # fails only where the GPU is lost, and all with it


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
        try:
            (executable,) = _checked(driver.cuGraphInstantiate(graph, 0))
        finally:
            driver.cuGraphDestroy(graph)
        return _Graph(executable)
    except Exception as error:
        _log.debug("no CUDA graph: %s", error)
        return None


def _checked(result: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the values of a CUDA call, without its error code; raise an error if it failed."""
    if int(result[0]):
        raise RuntimeError(f"CUDA: {result[0]}")
    return result[1:]
