"""TensorRT: the engine of choice on NVIDIA GPUs. Frames go in, masks and candidate boxes come out."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from perception.card import ModelCard, load_onnx, read_card
from perception.common import hardware
from perception.common.files import write_atomic
from perception.common.private import read_private
from perception.common.waits import say_progress
from perception.engines.base import Engine, EngineOptions, FrameResult, brief
from perception.engines.trt.build import DEFAULT_TAIL, Built, GpuMemoryError, kept_batch, obtain, smaller
from perception.engines.trt.cache import EngineCache
from perception.engines.trt.flavour import Flavour, find_flavour, installed, kernels_fault, not_installed
from perception.engines.trt.graph import GraphPrecision, is_quantised
from perception.engines.trt.inspection import Inspection, Tensor
from perception.engines.trt.recipe import Recipe, graph_precision, make_profile, make_recipe
from perception.engines.trt.reports import build_logger
from perception.engines.trt.worker import Worker, out_of_memory
from perception.errors import EngineError, PerceptionError
from perception.picture.letterbox import Letterbox, ResizeMode
from perception.types import U8, Frame

_STREAMS = 2
"""While one call computes, another one copies. In latency mode there is one where a call takes all frames that wait."""

_TRY_AGAIN_S = 60.0
"""After which a frame of a size that was too large for the GPU's memory is tried there again."""

_log = logging.getLogger("perception")


def available() -> tuple[bool, str]:
    """Tell if there are a GPU, a TensorRT and numba-cuda; what is there, or what is missing and how to get it."""
    gpus, driver = hardware.nvidia_gpus()
    if not gpus:
        return False, f"{driver}; TensorRT runs on NVIDIA GPUs only"
    flavours = installed()
    if not flavours:
        return False, not_installed()
    if find_spec("numba_cuda") is None:
        return False, "numba-cuda is not installed; `pip install 'numba-cuda[cu13]'`"
    try:
        flavour = find_flavour()
    except EngineError as error:
        return False, str(error)
    fault = flavour.driver_fault(driver) or kernels_fault(driver)
    return (False, fault) if fault else (True, f"{flavour.title} on {gpus[0].name}")


def open_model(path: Path, options: EngineOptions) -> Engine:
    """Build an engine for this machine's GPU, or take it from the cache, and load it.

    Raises:
        EngineError: it cannot be built or loaded; no memory left on the GPU.
        UsageError: a precision that does not fit the file.
    """
    return TensorRtEngine(path, options)


class TensorRtEngine(Engine):
    """See `Engine`. Execution contexts, a CUDA stream and a set of buffers per worker; threads borrow them.

    Frames go through one by one, unless the file takes several at once, or an engine was asked for, now or ahead with
    ``perception build --batch``, that does. A frame of a source crosses the bus once, as planes if it has them; it is
    fitted into its place in the input on the GPU, and only logits, their argmax, and candidate boxes come back.
    """

    name = "tensorrt"

    def __init__(self, path: Path, options: EngineOptions) -> None:
        if options.device.upper() not in ("CPU", "GPU", "CUDA", "CUDA:0"):  # CPU is what nobody asked for
            raise EngineError(
                f"tensorrt runs on the first GPU, not on {options.device!r}; the environment variable "
                "CUDA_VISIBLE_DEVICES says which one is the first"
            )
        flavour = find_flavour()
        card = options.card or read_card(path)
        self.path = path
        self._logits = None if card.segmentation is None else card.segmentation.output
        precision = _choose_precision(path, options.precision)
        self.precision = precision
        width, height = self._size = options.size
        recipe = self._choose_recipe(card, flavour, precision, options)
        self._lock = threading.Lock()
        self._too_large, self._too_large_since = math.inf, 0.0
        self._closed = False
        _make_current()
        while True:
            try:
                together = options.mode == "latency" and recipe.profile.batch > 1
                self._load(recipe, flavour, 1 if together else _STREAMS)
                break
            except GpuMemoryError as error:
                recipe = smaller(recipe, error)
        fixed = int(self._engine.get_tensor_shape(card.input.name)[0]) > 0
        self.input_shape = (self.batch if fixed else None, height, width, 3)
        gpus, _ = hardware.nvidia_gpus()
        self.description = (
            f"{flavour.title} {self.precision}, {self.streams} stream{'s' if self.streams > 1 else ''}"
            f"{f' of up to {self.batch} frames' if self.batch > 1 else ''}, {gpus[0].name if gpus else 'GPU'}"
        )

    def _choose_recipe(
        self, card: ModelCard, flavour: Flavour, precision: GraphPrecision, options: EngineOptions
    ) -> Recipe:
        """Choose what is in the cache already where it serves: for more frames a call, or for more sizes."""

        def recipe_for(size: tuple[int, int] | str) -> Recipe:
            return make_recipe(
                self.path, card, flavour, precision, make_profile(card, options.batch or 1, size),
                capabilities=_own_capability(flavour), tail=DEFAULT_TAIL,
            )  # fmt: skip

        def kept(recipe: Recipe) -> int:
            if options.batch is None and options.mode == "latency":
                return kept_batch(recipe)
            # One frame a call, where each has a stream of its own: kernels that were tuned for more are slower then.
            return recipe.profile.batch if EngineCache().holds(recipe.key_fields()) else 0

        recipe = recipe_for(options.size)
        if batch := kept(recipe):
            return recipe.with_batch(batch)
        if card.input.multiple is not None:
            dynamic = recipe_for("dynamic")
            if dynamic.profile.takes(options.size) and (batch := kept(dynamic)):
                return dynamic.with_batch(batch)
        return recipe

    def _load(self, recipe: Recipe, flavour: Flavour, streams: int) -> None:
        """Take a recipe's engine, from the cache or newly built, to the GPU, and make its workers.

        Raises:
            GpuMemoryError: the GPU has not enough memory; for fewer frames a call it may have.
            EngineError: it cannot be built, loaded or run.
        """
        self._engine: Any = None  # one that was too large makes room
        built = obtain(recipe)
        try:
            self._deserialize(built, flavour)
        except GpuMemoryError:
            raise
        except EngineError as error:
            if built.engine.built:
                raise
            _log.warning("%s; it is built again", error)
            built = obtain(recipe, unusable=built.engine)
            self._deserialize(built, flavour)
        kept = built.engine
        self._runtime_cache_path = None if kept.path is None else kept.path.with_suffix(".runtime")
        self._workers: SimpleQueue[Worker] = SimpleQueue()
        self.streams = self._start_workers(flavour, recipe.profile.batch, streams)

    def _deserialize(self, built: Built, flavour: Flavour) -> None:
        """Take an engine to the GPU.

        Raises:
            GpuMemoryError: the GPU has not enough memory.
            EngineError: it cannot be loaded, or is not the one that was built.
        """
        path, kept = self.path, built.engine
        if kept.built:
            _log.info("%s: engine built in %.0f s: %s", path.name, built.seconds, built.inspection)
        logger = build_logger(flavour.trt)
        runtime = flavour.trt.Runtime(logger)
        engine = runtime.deserialize_cuda_engine(kept.plan)
        if engine is None and logger.lacks_memory():
            raise GpuMemoryError(
                "not enough GPU memory to load the engine; close other programs that use the GPU", path
            )
        if engine is None:
            raise EngineError(
                f"{flavour.title} cannot load the engine for this GPU: {logger.said() or 'no reason was given'}", path
            )
        check_engine(engine, built.inspection, path)
        self._engine = engine
        self._runtime, self._logger = runtime, logger  # must outlive the engine

    def _start_workers(self, flavour: Flavour, batch: int, wanted: int) -> int:
        """Make the workers; fewer than wanted where the GPU's memory does not suffice for all. Returns their number."""
        path = self._runtime_cache_path
        compiled = b"" if path is None else read_private(path)
        made = 0
        for index in range(wanted):
            try:
                if index == 0:
                    _try_kernels()
                worker = Worker(self._engine, flavour, batch, self._size, compiled, self._logits)
            except Exception as error:
                if index == 0 and out_of_memory(error):
                    raise GpuMemoryError(
                        f"cannot run on the GPU: {error}; is its memory used up?", self.path
                    ) from error
                if index == 0:
                    raise EngineError(f"cannot run on the GPU: {brief(error)}", self.path) from error
                _log.warning("%s: only %d of %d streams: not enough GPU memory (%s)", self.path, index, wanted, error)
                break
            self.batch, compiled = worker.batch, worker.compiled
            self._workers.put(worker)
            made += 1
        if compiled and path is not None:
            try:
                write_atomic(path, compiled, private=True)
            except OSError as error:
                _log.debug("compiled kernels are not kept: %s", error)
        return made

    def _run(self, frames: U8) -> dict[str, Any]:
        worker = self._borrow()
        try:
            results = [worker.run(frames[i : i + self.batch]) for i in range(0, len(frames), self.batch)]
        finally:
            self._workers.put(worker)
        if len(results) == 1:
            return results[0]
        return {name: np.concatenate([result[name] for result in results]) for name in results[0]}

    def infer_frames(self, frames: Sequence[Frame], resize: ResizeMode, buffer: U8) -> list[FrameResult]:
        """See `Engine.infer_frames`. On the CPU only where the GPU has no room for frames of their size."""
        results: list[FrameResult] = []
        for first in range(0, len(frames), self.batch):
            together = frames[first : first + self.batch]
            largest = max(frame.width * frame.height for frame in together)
            if largest < self._too_large or time.monotonic() - self._too_large_since > _TRY_AGAIN_S:
                try:
                    results += self._infer_together(together, resize)
                    if largest >= self._too_large:
                        self._too_large = math.inf
                    continue
                except MemoryError as error:
                    if largest < self._too_large:
                        _log.warning("%s: frames are resized on the CPU: %s", self.path.name, error)
                    self._too_large, self._too_large_since = min(largest, self._too_large), time.monotonic()
            results += super().infer_frames(together, resize, buffer)
        return results

    def _infer_together(self, frames: Sequence[Frame], resize: ResizeMode) -> list[FrameResult]:
        """At most ``batch`` frames, each fitted into its place of the input on the GPU, in one execution."""
        _, height, width, _ = self.input_shape
        fitted: list[tuple[Letterbox, float]] = []
        worker = self._borrow()
        try:
            for slot, frame in enumerate(frames):
                start = time.perf_counter()
                letterbox = Letterbox.fit(frame.width, frame.height, width, height, resize)
                worker.fit(frame, letterbox, slot)
                fitted.append((letterbox, (time.perf_counter() - start) * 1e3))
            start = time.perf_counter()
            outputs = worker.finish(len(frames))
            infer_ms = (time.perf_counter() - start) * 1e3
        except BaseException as error:
            worker.abandon()
            if isinstance(error, (MemoryError, PerceptionError)) or not isinstance(error, Exception):
                raise
            # CUDA's, and Numba's about CUDA
            raise EngineError(f"{self.name} failed while running the model: {brief(error)}", self.path) from error
        finally:
            self._workers.put(worker)
        return [
            ({name: array[i : i + 1] for name, array in outputs.items()}, box, {"resize": ms, "infer": infer_ms})
            for i, (box, ms) in enumerate(fitted)
        ]

    def _borrow(self) -> Worker:
        if self._closed:
            raise self._closed_error()
        worker = self._workers.get()
        if self._closed:
            self._workers.put(worker)  # for the next one that waits
            raise self._closed_error()
        return worker

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            workers = [self._workers.get() for _ in range(self.streams)]  # waits for calls that run
            for worker in workers:
                worker.release()
            self._workers.put(workers[0])  # a caller that waits already finds the engine closed
            self._engine = None


def _try_kernels() -> None:
    """Compile our own kernels, and run them: what is wrong with numba-cuda shows now, and no frame waits for it."""
    from perception.postprocess.cuda import make_stream, try_kernels

    say_progress("kernels for the GPU are compiled, which takes some seconds at each start")
    try:
        try_kernels(make_stream())
    except Exception as error:
        if out_of_memory(error):
            raise
        raise EngineError(f"numba-cuda cannot compile or run a kernel: {brief(error)}") from error


def _make_current() -> None:
    """Make the GPU's context the calling thread's, before TensorRT looks for one."""
    from numba import cuda

    cuda.current_context()


def check_engine(engine: Any, built: Inspection, path: Path) -> None:
    """Compare what was loaded with what was built: names, types and shapes of all inputs and outputs.

    Raises:
        EngineError: they differ.
    """
    wanted = {t.name: t for t in (*built.inputs, *built.outputs)}
    loaded = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        loaded[name] = Tensor(name, engine.get_tensor_dtype(name).name, tuple(engine.get_tensor_shape(name)))
    same = loaded.keys() == wanted.keys() and all(_fits(tensor, wanted[name]) for name, tensor in loaded.items())
    if not same:
        has, needs = (", ".join(map(str, tensors.values())) for tensors in (loaded, wanted))
        raise EngineError(f"the engine is not the one that was built: it has {has}, not {needs}", path)


def _fits(loaded: Tensor, wanted: Tensor) -> bool:
    if loaded.dtype != wanted.dtype or len(loaded.shape) != len(wanted.shape):
        return False
    return all(a == b or -1 in (a, b) for a, b in zip(loaded.shape, wanted.shape, strict=True))


def _choose_precision(path: Path, wanted: str) -> GraphPrecision:
    """Half precision unless something else is asked for; int8 where the file says so, whatever is asked for."""
    if is_quantised(load_onnx(path)):
        if wanted not in ("auto", "fp32"):
            raise EngineError(f"the file is quantised: it runs in int8, not in {wanted}", path)
        return "int8"
    return graph_precision(wanted)


def _own_capability(flavour: Flavour) -> tuple[str, ...]:
    """Return the GPU's compute capability, if engines are built for that; so one that was built elsewhere is found."""
    gpus, _ = hardware.nvidia_gpus()
    if not flavour.portable or not gpus:
        return ()
    name = f"{gpus[0].capability[0]}{gpus[0].capability[1]}"
    return (name,) if name in flavour.known_capabilities() else ()
