"""OpenVINO: the engine of choice on CPUs."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from perception.common import hardware
from perception.common.files import sha256_of
from perception.common.telemetry import import_openvino
from perception.common.waits import say_wait
from perception.engines import autotune
from perception.engines.base import Engine, EngineOptions, Precision
from perception.engines.cache import prepare_compiled_models_dir
from perception.engines.quantised import find_quantised
from perception.engines.timing import call_ms
from perception.errors import EngineError
from perception.types import F32, U8

if TYPE_CHECKING:
    import openvino as ov

_log = logging.getLogger("perception")

_CAPABILITIES: dict[Precision, str] = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16"}
_HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
"""OpenVINO's own names of precisions, as a capability and as a hint; the most exact one first."""

_WORTH = 0.97
"""A less exact precision is taken where it needs at most this part of the time."""

_MEASURE_SECONDS = 0.6
_QUANTILE = 0.2
"""The times are kept, so that calls which other work on a busy machine held up must not decide."""


def available() -> tuple[bool, str]:
    """Tell if OpenVINO is installed, and its version or how to get it."""
    if find_spec("openvino") is None:
        return False, "OpenVINO is not installed; `pip install openvino`"
    return True, f"OpenVINO {version('openvino')}"


def open_model(path: Path, options: EngineOptions) -> Engine:
    """Compile an ONNX file for a device.

    With precision ``auto`` on a CPU, every precision that it has is tried once, and the quantised version of the file
    if there is one; which was the fastest is remembered for this file, size, CPU and version of OpenVINO.

    Raises:
        EngineError: an unknown device, or a precision that the device does not have.
        Exception: whatever OpenVINO throws when it refuses the model.
    """
    if options.precision == "auto" and options.device.upper() == "CPU" and not _is_quantised(options):
        path, options = _fastest(path, options)
    return OpenVinoEngine(path, options)


def native_precisions(device: str = "CPU") -> list[Precision]:
    """Return the precisions that a device computes in at full speed, the most exact one first.

    Raises:
        EngineError: there is no such device.
    """
    core = _core()
    capabilities = core.get_property(_check_device(core, device), "OPTIMIZATION_CAPABILITIES")
    return [name for name, capability in _CAPABILITIES.items() if capability in capabilities]


class OpenVinoEngine(Engine):
    """See `Engine`. One infer request per stream; threads borrow them.

    A fixed shape is compiled for single frames, since OpenVINO plans memory ahead only then; another one, with a
    free batch, when more frames than one come for the first time.
    """

    name = "openvino"

    def __init__(self, path: Path, options: EngineOptions) -> None:
        core = _core()
        self.path = path
        self._core: ov.Core | None = core
        self._device = _check_device(core, options.device)
        arithmetic = _check_precision(self._device, options.precision)
        self.precision = "int8" if _is_quantised(options) else arithmetic
        self._config = self._configuration(options, arithmetic)
        width, height = options.size
        self._model = core.read_model(str(path))
        fixed = self._model.input(0).partial_shape[0]
        batch = fixed.get_length() if fixed.is_static else None
        self.input_shape = (batch, height, width, 3)
        self.batch = batch or options.batch or 1
        self._lock = threading.Lock()
        self._requests: dict[bool, SimpleQueue[Any]] = {}
        self.streams = 1
        single = self._compile(batch or 1)
        self._requests[True] = self._new_requests(single)
        if batch is not None:
            self._requests[False] = self._requests[True]
        self._outputs = options.outputs  # a tensor can have more names than one: ask by those of the file
        device = hardware.cpu_name() if self._device == "CPU" else core.get_property(self._device, "FULL_DEVICE_NAME")
        self.description = (
            f"OpenVINO {version('openvino')} {self.precision}, {self.streams} "
            f"stream{'s' if self.streams > 1 else ''}, {device}"
        )

    def _configuration(self, options: EngineOptions, precision: str) -> dict[str, Any]:
        latency = options.mode == "latency"
        config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY" if latency else "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
        }
        if self._device == "CPU":
            cores = options.threads or hardware.usable_cores()
            config |= {
                "NUM_STREAMS": 1 if latency else cores,
                "INFERENCE_NUM_THREADS": cores,
                # decoder, drawing and encoder work on the same cores: the scheduler must be free to move us
                "ENABLE_CPU_PINNING": False,
            }
        folder = prepare_compiled_models_dir(self.name)
        if folder is not None:
            config["CACHE_DIR"] = str(folder)
        return config

    def _compile(self, batch: int) -> ov.CompiledModel:
        """Compile the network for ``batch`` frames a call, -1 for any number."""
        assert self._core is not None
        _, height, width, channels = self.input_shape
        model = self._model.clone()
        model.reshape([batch, height, width, channels])
        try:
            return self._core.compile_model(model, self._device, self._config)
        except RuntimeError:
            if "CACHE_DIR" not in self._config:
                raise
            # a full disk or a damaged cache must not keep a model from running
            _log.debug("compiling again without the cache of compiled models", exc_info=True)
            del self._config["CACHE_DIR"]
            return self._core.compile_model(model, self._device, self._config)

    def _new_requests(self, compiled: ov.CompiledModel) -> SimpleQueue[Any]:
        self.streams = max(int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")), 1)
        requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(self.streams):
            requests.put(compiled.create_infer_request())
        return requests

    def _borrow_from(self, single: bool) -> SimpleQueue[Any]:
        with self._lock:
            if self._core is None:
                raise self._closed_error()
            if single not in self._requests:
                self._requests[single] = self._new_requests(self._compile(-1))
            return self._requests[single]

    def _run(self, frames: U8) -> dict[str, F32]:
        from openvino import Tensor  # it was imported for the core

        requests = self._borrow_from(single=len(frames) == 1)
        request = requests.get()
        try:
            # a read-only array cannot be lent to OpenVINO, which would rather have a copy
            request.set_input_tensor(Tensor(frames, shared_memory=frames.flags.writeable))
            request.infer(share_outputs=True)  # views; the one copy is ours
            return {
                name: np.array(request.get_tensor(name).data, dtype=np.float32, order="C") for name in self._outputs
            }
        finally:
            requests.put(request)

    def close(self) -> None:
        with self._lock:
            self._core = None
            self._requests.clear()


@lru_cache(maxsize=1)
def _core() -> ov.Core:
    return import_openvino().Core()


def _check_device(core: ov.Core, device: str) -> str:
    wanted = device.upper()
    if wanted != "CPU" and wanted not in core.available_devices:
        raise EngineError(f"OpenVINO has no device {device!r} here; it has: {', '.join(core.available_devices)}")
    return wanted


def _check_precision(device: str, precision: str) -> str:
    native = native_precisions(device)
    if precision == "auto":
        # bf16 has the range of fp32 and needs no care; fp16 is what GPUs are made for
        return next(name for name in ("bf16", "fp16", "fp32") if name in native)
    if precision not in native:
        raise EngineError(f"this device does not compute in {precision}; it has: {', '.join(native)}")
    return precision


def _is_quantised(options: EngineOptions) -> bool:
    return options.card is not None and options.card.quantization is not None


def _fastest(path: Path, options: EngineOptions) -> tuple[Path, EngineOptions]:
    """Choose the file and the precision to run on this CPU: measured the first time, then remembered."""
    ways: dict[str, tuple[Path, EngineOptions]] = {
        precision: (path, replace(options, precision=precision)) for precision in native_precisions()
    }
    quantised = None if options.card is None else find_quantised(path, options.card)
    if quantised is not None:
        ways["int8"] = quantised[0], replace(options, card=quantised[1])
    if len(ways) == 1:
        return next(iter(ways.values()))
    conditions = {
        "model": sha256_of(path),
        "quantised": "" if quantised is None else sha256_of(quantised[0]),
        "ways": list(ways),
        "cpu": [hardware.cpu_name(), *(name for name, has in (hardware.cpu_features() or {}).items() if has)],
        "cores": options.threads or hardware.usable_cores(),
        "openvino": version("openvino"),
        "size": list(options.size),
        "mode": options.mode,
    }
    times = autotune.load_times(conditions)
    if times is None:
        say_wait(f"the speed of {path.name} is measured in {', '.join(ways)}")
        times = _measure(ways)
        autotune.save_times(conditions, times)
        said = ", ".join(f"{way} {ms:.1f} ms" for way, ms in times.items())
        _log.info("%s: measured once; the fastest will be used from now on: %s", path.name, said)
    best = ""
    for way, ms in times.items():  # the most exact one first
        if way in ways and (not best or ms < _WORTH * times[best]):
            best = way
    return ways[best] if best else (path, options)


def _measure(ways: dict[str, tuple[Path, EngineOptions]]) -> dict[str, float]:
    """Milliseconds a frame of every way that works.

    Raises:
        Exception: what OpenVINO throws if none does.
    """
    fault: Exception | None = None
    engines: dict[str, Engine] = {}
    with ExitStack() as opened:
        for way, (path, options) in ways.items():
            try:
                engines[way] = opened.enter_context(OpenVinoEngine(path, options))
            except Exception as error:  # the others may do
                _log.debug("%s does not run in %s: %s", path, way, error)
                fault = error
        if fault is not None and not engines:
            raise fault
        return dict(zip(engines, call_ms(list(engines.values()), _MEASURE_SECONDS, _QUANTILE), strict=True))
