"""Blocks that need a GPU and numba-cuda, or its simulator, and no TensorRT."""

from __future__ import annotations

import ctypes
import gc
import platform
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from typing import Any, get_args

import numpy as np

from perception.common import hardware
from perception.common.version import __version__
from perception.engines.trt.flavour import find_flavour, installed, kernels_fault
from perception.errors import EngineError
from perception.gpu_check.finding import Absent, Finding, Wrong
from perception.picture.letterbox import Letterbox, ResizeMode
from perception.picture.resize import to_input
from perception.postprocess.cells import NO_FLOOR, label
from perception.postprocess.post_processing import labels_of
from perception.postprocess.segmentation import STRANGE
from perception.types import F32, U8, Frame, Planes

_PACKAGES = ("numpy", "numba", "numba-cuda", "cuda-bindings", "onnx", "onnxruntime", "openvino", "av", "torch")


def versions(quick: bool) -> Finding:
    """What is installed and what the machine has; a driver that cannot run what is installed fails."""
    gpus, driver = hardware.nvidia_gpus()
    found = [f"perception {__version__}", f"Python {platform.python_version()}", driver]
    found += [f"{g.name}, {g.capability[0]}.{g.capability[1]}, {g.memory >> 20} MiB" for g in gpus]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"no {name}")
    for flavour in installed():
        try:
            title = find_flavour(flavour)
        except EngineError as error:
            raise Wrong(str(error)) from None
        if gpus and (fault := title.driver_fault(driver)):
            raise Wrong(fault)
        found.append(title.title)
    if not installed():
        found.append("no TensorRT")
    for what, library in (("NVDEC", "libnvcuvid.so.1"), ("NVENC", "libnvidia-encode.so.1")):
        found.append(what if _loads(library) else f"no {what}")
    if gpus and (fault := kernels_fault(driver)):
        raise Wrong(fault)
    return Finding(", ".join(found))


def compilation(quick: bool) -> Finding:
    """Compile every kernel, which takes seconds, and run each again, which must not."""
    kernels = _kernels()
    stream = kernels.make_stream()
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        kernels.try_kernels(stream)
        seconds.append(time.perf_counter() - began)
    return Finding(f"{seconds[0]:.2f} s, then {seconds[1] * 1e3:.1f} ms", kernels.SIMULATED)


def exactness(quick: bool) -> Finding:
    """Compare each kernel with its twin on the CPU, byte for byte."""
    kernels = _kernels()
    stream = kernels.make_stream()
    sizes = [(1280, 720), (1001, 563)] if quick else [(1280, 720), (1920, 1080), (3840, 2160), (1001, 563), (333, 777)]
    width, height = 480, 360
    if kernels.SIMULATED:  # where each pixel is a thread of the system
        sizes, width, height = [(40, 30), (23, 45)], 16, 12
    rng = np.random.default_rng(0)
    cases = 0
    out = kernels.cuda.device_array((height, width, 3), np.uint8)
    codings: list[Any] = list(product(("bt601", "bt709"), (False, True)))
    for size, mode in product(sizes, get_args(ResizeMode)):
        frames = [Frame(random_picture(rng, size))]
        frames += [Frame(planes=random_planes(rng, size, *coding)) for coding in codings]
        for frame in frames:
            expected, box = to_input(frame.picture, width, height, mode)
            planes = frame.planes
            arrays = (frame.image,) if planes is None else (planes.y, planes.u, planes.v)
            on_gpu = [kernels.cuda.to_device(np.ascontiguousarray(array), stream=stream) for array in arrays]
            if planes is None:
                kernels.fit(on_gpu[0], box, out, stream)
            else:
                kernels.fit_planes(on_gpu, planes.matrix, planes.full_range, box, out, stream)
            got = out.copy_to_host(stream=stream)
            stream.synchronize()
            wrong = int((got != expected).sum())
            if wrong:
                where = f"{size[0]}x{size[1]}, {mode}, {_described(frame)}"
                raise Wrong(f"{wrong} of {expected.size} bytes differ: {where}")
            cases += 1
    shape = (2, 11, 180, 240) if not kernels.SIMULATED else (2, 3, 5, 7)
    for what, logits in strange_logits(rng, shape).items():
        _compare_labels(kernels, stream, what, logits)
        cases += 1
    return Finding(f"{cases} of {cases} equal", kernels.SIMULATED)


def strange_logits(rng: np.random.Generator, shape: tuple[int, ...]) -> dict[str, F32]:
    """Make logits ``shape``, by what is special about them: nothing, ties, and what is not finite among ties."""
    ties = rng.integers(-2, 3, shape).astype(np.float32)
    strange = ties.copy()
    for value in (np.nan, np.inf, -np.inf, 3e38, -0.0):
        strange[rng.random(shape) < 0.1] = value
    strange[0, :, 0, 0], strange[-1, :, -1, -1] = np.nan, -np.inf
    return {"noise": rng.standard_normal(shape, np.float32), "ties": ties, "NaN and infinities": strange}


def _compare_labels(kernels: Any, stream: Any, what: str, logits: F32) -> None:
    """Compare the argmax with the CPU's, and what logits that are not finite become."""
    n, _, h, w = logits.shape
    finite = np.nan_to_num(logits, nan=-STRANGE, posinf=STRANGE, neginf=-STRANGE)
    expected = np.empty((n, h, w), np.uint8)
    for frame, labels in zip(finite, expected, strict=True):
        label(frame, NO_FLOOR, labels)
    on_gpu = kernels.cuda.to_device(logits, stream=stream)
    labels = kernels.cuda.device_array((n, h, w), np.uint8)
    kernels.label(on_gpu, labels, stream)
    got, left = labels.copy_to_host(stream=stream), on_gpu.copy_to_host(stream=stream)
    stream.synchronize()
    wrong = int((got != expected).sum() + (left.view(np.uint32) != finite.view(np.uint32)).sum())
    if wrong:
        raise Wrong(f"{wrong} of {got.size + left.size} values differ: the argmax of logits, {what}")


def streams(quick: bool) -> Finding:
    """Run the real worker in threads at once, on memory that is poisoned before each call, while others are made."""
    from perception.engines.trt.worker import Worker
    from perception.gpu_check.network import Network, NetworkFlavour, mixed

    kernels = _kernels()
    threads, count = (4, 300) if quick else (4, 2000)
    size, sizes = (480, 360), [(1280, 720), (641, 361)]
    if kernels.SIMULATED:
        threads, count, size, sizes = 2, 6, (16, 12), [(40, 30), (23, 17)]
    network, flavour = Network(size), NetworkFlavour()
    faults: list[str] = []
    graphs: list[bool] = []
    over = threading.Event()

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        frames: list[Frame] = []
        for each in sizes:
            frames += [Frame(random_picture(rng, each)), Frame(planes=random_planes(rng, each, "bt709", False))]
        fitted = [to_input(frame.picture, *size, "letterbox")[0] for frame in frames]
        expected = [(mixed(picture), picture.argmax(-1)) for picture in fitted]
        worker = Worker(network, flavour, 2, size, b"", "logits")  # type: ignore[arg-type]
        graphs.append(worker.replays)
        for call in range(count):
            if faults:
                break
            chosen = rng.integers(0, len(frames), 1 + call % 2)
            worker.poison(0xAA)
            for slot, index in enumerate(chosen):
                frame = frames[index]
                worker.fit(frame, Letterbox.fit(frame.width, frame.height, *size, "letterbox"), slot)
            got = worker.finish(len(chosen))
            for mask, labels, index in zip(got["masks"], got[labels_of("logits")], chosen, strict=True):
                if not (np.array_equal(mask, expected[index][0]) and np.array_equal(labels, expected[index][1])):
                    faults.append(f"call {call} of thread {seed} gave something else")
        worker.release()

    def load() -> None:
        """Make workers, which records graphs, while others run."""
        while not over.is_set():
            Worker(network, flavour, 1, size, b"").release()  # type: ignore[arg-type]
            time.sleep(0.02)

    def guarded(call: Any, *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception as error:
            faults.append(f"{type(error).__name__}: {error}")

    began = time.perf_counter()
    workers = [threading.Thread(target=guarded, args=(work, seed)) for seed in range(threads)]
    loader = threading.Thread(target=guarded, args=(load,))
    for thread in (*workers, loader):
        thread.start()
    for thread in workers:
        thread.join()
    over.set()
    loader.join()
    if faults:
        raise Wrong(faults[0])
    if not kernels.SIMULATED and not all(graphs):
        raise Wrong("no CUDA graph was recorded")
    fps = threads * count * 1.5 / (time.perf_counter() - began)
    how = "" if kernels.SIMULATED else ", as graphs"
    return Finding(f"{threads} threads, {count} calls each{how}, {fps:.3g} frames/s", kernels.SIMULATED)


def memory(quick: bool) -> Finding:
    """Make and release workers: the GPU's memory must not shrink."""
    from perception.engines.trt.worker import Worker
    from perception.gpu_check.network import Network, NetworkFlavour

    kernels = _kernels()
    if kernels.SIMULATED:
        raise Absent("the simulator has no memory of a GPU")
    network, flavour = Network((480, 360)), NetworkFlavour()
    context = kernels.cuda.current_context()
    loads, free = (20 if quick else 50), []
    for _ in range(loads):
        Worker(network, flavour, 4, network.size, b"").release()  # type: ignore[arg-type]
        gc.collect()
        context.deallocations.clear()
        free.append(context.get_memory_info().free)
    lost = (free[4] - free[-1]) / 2**20  # the first ones warm caches up
    if lost > 8:
        raise Wrong(f"{lost:.0f} MiB are lost after {loads} loads")
    return Finding(f"{max(lost, 0):.1f} MiB after {loads} loads")


def random_picture(rng: np.random.Generator, size: tuple[int, int]) -> U8:
    """Make noise, uint8 ``[H, W, 3]``, of a size (width, height)."""
    return rng.integers(0, 256, (size[1], size[0], 3), np.uint8)


def random_planes(rng: np.random.Generator, size: tuple[int, int], matrix: Any, full_range: bool) -> Planes:
    """Make noise in YUV 4:2:0, of a size (width, height)."""
    width, height = size
    half = ((height + 1) // 2, (width + 1) // 2)
    y, u, v = (rng.integers(0, 256, shape, np.uint8) for shape in ((height, width), half, half))
    return Planes(y, u, v, matrix, full_range=full_range)


def _kernels() -> Any:
    """Return the module of the kernels.

    Raises:
        Absent: there is neither numba-cuda nor a GPU.
    """
    try:
        version("numba-cuda")
    except PackageNotFoundError:
        raise Absent("numba-cuda is not installed") from None
    from perception.postprocess import cuda

    return cuda


def _described(frame: Frame) -> str:
    planes = frame.planes
    return "BGR" if planes is None else f"{planes.matrix}, {'full' if planes.full_range else 'limited'} range"


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
