"""Blocks that need TensorRT, and all but one a GPU."""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from perception.card import load_onnx, read_card
from perception.common import hardware
from perception.engines.trt.build import DEFAULT_TAIL, Built, obtain
from perception.engines.trt.cache import EngineCache
from perception.engines.trt.flavour import find_flavour, installed
from perception.engines.trt.graph import is_quantised
from perception.engines.trt.recipe import make_profile, make_recipe
from perception.gpu_check.finding import Absent, Finding, Wrong
from perception.gpu_check.kernel_blocks import random_planes
from perception.types import U8, Frame

LEAST = {"fp32": 0.999, "fp16": 0.995}
"""The least share of pixels whose class is that of ONNX Runtime in float32, by precision."""

PARITY_SIZE = (1280, 720)
"""(width, height) of the frames that engines are compared on."""

GOAL = 0.9
"""Of the engine's own frames per second, for the pipeline."""

CALLS, QUICK_CALLS, WARM_CALLS = 1000, 200, 50
"""Calls that are measured, and before them, until there is memory for frames of their size, and the clock is up."""

FRAMES = 64
"""Of one size, kept in memory."""


def building(quick: bool) -> Finding:
    """Build shipped models in every precision, find them in the cache, and build what is damaged there again.

    A disk that is full costs the cache and not the engine.
    """
    if not installed():
        raise Absent("no TensorRT")
    flavour = find_flavour()
    if not flavour.portable and not hardware.nvidia_gpus()[0]:
        raise Absent(f"{flavour.title} builds on a GPU only")
    from perception.weights.library import model_paths

    paths = {"street-open": model_paths()["street-open"]} if quick else model_paths()
    with tempfile.TemporaryDirectory() as folder:
        engines = EngineCache(Path(folder) / "engines")
        began, built = time.perf_counter(), 0
        for path in paths.values():
            quantised = is_quantised(load_onnx(path))
            for precision in ("int8",) if quantised else ("fp32", "fp16"):
                first = _obtain(path, precision, engines)
                again = _obtain(path, precision, engines)
                if not first.engine.built or again.engine.built:
                    raise Wrong(f"{path.name}, {precision}: the cache does not have what was built")
                built += 1
        seconds = time.perf_counter() - began
        plan = again.engine.path
        if plan is None:
            raise Wrong("the engine was not kept")
        plan.write_bytes(plan.read_bytes()[:-100])
        if not _obtain(path, precision, engines).engine.built:
            raise Wrong("a damaged engine was taken from the cache")
        kept = _obtain(path, precision, engines).engine
        if not obtain(_recipe(path, precision), engines, unusable=kept).engine.built:
            raise Wrong("an engine that does not load was taken from the cache again")
        _fill_disk(_recipe(path, precision), first, Path(folder) / "full")
    return Finding(f"{built} engines in {seconds:.0f} s, {flavour.title}")


def _fill_disk(recipe: Any, built: Built, folder: Path) -> None:
    """Keep an engine where no file may grow, and then where it may."""
    if sys.platform == "win32":
        return
    import resource

    def make() -> tuple[bytes, Any]:
        return built.engine.plan, built.engine.summary

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        kept = EngineCache(folder).obtain(recipe.key_fields(), make)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    if kept.path is not None or kept.plan != built.engine.plan:
        raise Wrong("an engine was lost, or kept in part, on a disk that is full")
    EngineCache(folder).obtain(recipe.key_fields(), make)
    if EngineCache(folder).obtain(recipe.key_fields(), make).built:
        raise Wrong("an engine is not kept on a disk that was full")


def parity(quick: bool) -> Finding:
    """Compare masks of whole frames with those of ONNX Runtime in float32, which fits frames on the CPU."""
    from perception.model import load_model

    _needs_engine()
    needs("onnxruntime")
    path = street()
    frames = [Frame(picture) for picture in street_frames(*PARITY_SIZE, 4 if quick else 16)]

    def masks(engine: str, precision: Any) -> list[U8]:
        with load_model(path, engine=engine, precision=precision) as model:
            maps = [model.predict(frame).class_map for frame in frames]
            return [class_map.mask for class_map in maps if class_map is not None]

    expected, said = masks("onnxruntime", "fp32"), []
    for precision, least in LEAST.items():
        same = float(np.mean([np.mean(a == b) for a, b in zip(masks("tensorrt", precision), expected, strict=True)]))
        if same < least:
            raise Wrong(f"{precision}: {100 * same:.2f}% of pixels are equal, not {100 * least:.1f}%")
        said.append(f"{precision} {100 * same:.2f}%")
    return Finding(f"{', '.join(said)} of pixels equal")


def speed(quick: bool) -> Finding:
    """Measure the engine with 720p frames from memory: one and two streams, one and several frames a call."""
    from numba import cuda

    from perception.engines import open_engine
    from perception.postprocess.cuda import SIMULATED

    _needs_engine()
    path = street()
    card = read_card(path)
    rng = np.random.default_rng(0)
    frames = [Frame(planes=random_planes(rng, (1280, 720), "bt709", False)) for _ in range(8)]
    calls = QUICK_CALLS if quick else CALLS
    said = []
    for batch in (1,) if quick else (1, 4, 8):
        free = None if SIMULATED else cuda.current_context().get_memory_info().free
        with open_engine(path, card, engine="tensorrt", batch=batch) as engine:
            for streams in sorted({1, engine.streams}):
                times, fps = _calls(engine, card.input.resize, frames, calls, streams)
                p50, p95, p99 = np.percentile(times, (50, 95, 99))
                said.append(f"{streams} x {batch}: {fps:.0f} fps, {p50:.2f}/{p95:.2f}/{p99:.2f} ms (p50/95/99)")
            if free is not None:
                said[-1] += f", {(free - cuda.current_context().get_memory_info().free) >> 20} MiB"
    return Finding("; ".join(said))


def _calls(engine: Any, resize: Any, frames: list[Frame], calls: int, streams: int) -> tuple[list[float], float]:
    """Call an engine over some of its streams; returns milliseconds of each call, and frames per second."""
    buffer = np.empty((engine.batch, *engine.input_shape[1:]), np.uint8)  # for frames that do not fit on the GPU
    times: list[float] = []

    def call(index: int) -> None:
        together = [frames[(index + i) % len(frames)] for i in range(engine.batch)]
        began = time.perf_counter()
        engine.infer_frames(together, resize, buffer)
        times.append((time.perf_counter() - began) * 1e3)

    with ThreadPoolExecutor(streams) as pool:
        list(pool.map(call, range(WARM_CALLS)))
        times.clear()
        began = time.perf_counter()
        list(pool.map(call, range(calls)))
        return times, calls * engine.batch / (time.perf_counter() - began)


def throughput(quick: bool) -> Finding:
    """Measure the pipeline without a sink, with drawing, and with encoding, by the engine's own frames per second."""
    _needs_engine()
    needs("av", "cv2")
    from perception.drawing.annotator import Annotator
    from perception.model import load_model
    from perception.pipeline import run
    from perception.sinks import Sink, open_sink
    from perception.sources import open_source

    class Drawn(Sink):
        """Wants pictures and keeps none."""

        name, wants_picture = "drawn", True

        def open(self, info: Any, card: Any = None) -> None: ...
        def write(self, prediction: Any) -> None: ...
        def close(self) -> None: ...

    said = []
    count = QUICK_CALLS if quick else CALLS
    with (
        tempfile.TemporaryDirectory() as folder,
        load_model(street(), engine="tensorrt", mode="throughput") as model,
    ):
        for size in ("1280x720",) if quick else ("1280x720", "1920x1080"):
            uri = f"synthetic:?size={size}&frames={count}"
            with open_source(uri) as source:
                frames = list(islice(source, FRAMES))
            with ThreadPoolExecutor(model.engine.streams) as pool:
                list(pool.map(model.infer, frames))
                began = time.perf_counter()
                list(pool.map(model.infer, (frames[index % len(frames)] for index in range(count))))
                alone = count / (time.perf_counter() - began)
            rates = []
            for make in (
                list,
                lambda: [Drawn()],
                lambda: [open_sink(Path(folder) / "v.mp4", overwrite=True, codec="auto")],
            ):
                with open_source(uri) as source:
                    rates.append(run(source, model, annotator=Annotator(model.card), sinks=make()).fps)
            said.append(f"{size}: engine {alone:.0f} fps; {', '.join(f'{rate / alone:.2f}' for rate in rates)} of it")
    return Finding(f"{'; '.join(said)} (no sink, drawn, encoded; the goal is {GOAL} drawn)")


def loss(quick: bool) -> Finding:
    """Ruin the GPU's state for this process: ``auto`` must go on, and lose no frame."""
    from perception.model import load_model

    _needs_engine()
    if find_spec("openvino") is None and find_spec("onnxruntime") is None:
        raise Absent("no engine for the CPU")

    rng = np.random.default_rng(0)
    with load_model(street(), engine="auto") as model:
        if model.engine.name != "tensorrt":
            raise Wrong(f"auto takes {model.engine.description}")
        for index in range(20):
            if index == 10:
                _ruin()
            frame = Frame(planes=random_planes(rng, (1280, 720), "bt709", False), index=index)
            prediction = model.predict(frame)
            if prediction.frame.index != index or prediction.class_map is None:
                raise Wrong(f"frame {index} has no result of its own")
        if model.engine.name == "tensorrt":
            raise Wrong("the GPU was not lost")
        return Finding(f"20 of 20 frames, the last ones from {model.engine.description}")


def _ruin() -> None:
    """Write where no memory is, after which CUDA refuses everything in this process."""
    from numba import cuda

    @cuda.jit
    def stray(array):  # type: ignore[no-untyped-def]
        array[1 << 40] = 1

    stray[1, 1](cuda.device_array(1, np.uint8))


def decoding(quick: bool) -> Finding:
    """Compare what NVDEC decodes with what the CPU does: pixels, colours, rotation, times."""
    needs("av")
    from perception.sources.nvdec import nvdec_fault

    if fault := nvdec_fault():
        raise Absent(fault)
    from perception.sinks import open_sink
    from perception.sources import open_source
    from perception.types import Prediction

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "v.mp4"
        with open_source("synthetic:?size=640x360&frames=50") as source, open_sink(path, codec="h264") as sink:
            sink.open(source.info, None)
            for frame in source:
                sink.write(Prediction(frame, picture=frame.picture))
        sides = []
        for decoder in ("nvdec", "cpu"):
            with open_source(path, decoder=decoder) as source:
                sides.append(list(source))
    for index, (ours, theirs) in enumerate(zip(*sides, strict=True)):
        a, b = ours.planes, theirs.planes
        if a is None or b is None:
            raise Wrong("no planes")
        if (a.matrix, a.full_range, ours.time) != (b.matrix, b.full_range, theirs.time):
            raise Wrong(
                f"frame {index}: {a.matrix}, {a.full_range}, {ours.time} in place of {b.matrix}, {b.full_range}"
            )
        if not all(np.array_equal(x, y) for x, y in ((a.y, b.y), (a.u, b.u), (a.v, b.v))):
            raise Wrong(f"frame {index} has other pixels")
    return Finding(f"{len(sides[0])} frames equal")


def _needs_engine() -> None:
    if not hardware.nvidia_gpus()[0]:
        raise Absent("no NVIDIA GPU")
    if not installed():
        raise Absent("no TensorRT")


def needs(*modules: str) -> None:
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise Absent(f"{', '.join(missing)} is not installed")


def street() -> Path:
    from perception.weights.library import model_paths

    return model_paths()["street-open"]


def street_frames(width: int, height: int, count: int) -> list[U8]:
    """Make pictures with large shapes in them: noise has the same class everywhere."""
    rng = np.random.default_rng(0)
    frames: list[U8] = []
    for _ in range(count):
        small = rng.integers(0, 256, (6, 8, 3), np.uint8)
        large = small.repeat(-(-height // 6), 0).repeat(-(-width // 8), 1)[:height, :width]
        frames.append(np.ascontiguousarray(large))
    return frames


def _recipe(path: Path, precision: Any) -> Any:
    flavour, card = find_flavour(), read_card(path)
    capabilities = () if hardware.nvidia_gpus()[0] else flavour.common_capabilities()[-1:]
    profile = make_profile(card, 1)
    return make_recipe(path, card, flavour, precision, profile, capabilities=capabilities, tail=DEFAULT_TAIL)


def _obtain(path: Path, precision: str, engines: EngineCache) -> Built:
    return obtain(_recipe(path, precision), engines)
