"""OpenVINO: the engine of choice on CPUs."""

from __future__ import annotations

import logging
import threading
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from perception import hardware
from perception.engines.base import Engine, EngineOptions
from perception.engines.cache import prepare_compiled_models_dir
from perception.errors import EngineError
from perception.types import F32, U8

if TYPE_CHECKING:
    import openvino as ov

_log = logging.getLogger("perception")

_CAPABILITIES = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}


def available() -> tuple[bool, str]:
    """Whether OpenVINO is installed, and its version or how to get it."""
    if find_spec("openvino") is None:
        return False, "OpenVINO is not installed; `pip install openvino`"
    return True, f"OpenVINO {version('openvino')}"


def open_model(path: Path, options: EngineOptions) -> Engine:
    """Compile an ONNX file for a device.

    Raises:
        EngineError: an unknown device, or a precision that the device does not have.
        Exception: whatever OpenVINO throws when it refuses the model.
    """
    return OpenVinoEngine(path, options)


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
        self.precision = _check_precision(core, self._device, options.precision)
        self._config = self._configuration(options)
        width, height = options.size
        self._model = core.read_model(str(path))
        fixed = self._model.input(0).partial_shape[0]
        batch = fixed.get_length() if fixed.is_static else None
        self.input_shape = (batch, height, width, 3)
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

    def _configuration(self, options: EngineOptions) -> dict[str, Any]:
        latency = options.mode == "latency"
        config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY" if latency else "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": self.precision,
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
        """The network for ``batch`` frames a call, -1 for any number."""
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
        from openvino import Tensor

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
    import openvino as ov

    return ov.Core()


def _check_device(core: ov.Core, device: str) -> str:
    wanted = device.upper()
    if wanted != "CPU" and wanted not in core.available_devices:
        raise EngineError(f"OpenVINO has no device {device!r} here; it has: {', '.join(core.available_devices)}")
    return wanted


def _check_precision(core: ov.Core, device: str, precision: str) -> str:
    capabilities = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    native = [name for name, capability in _CAPABILITIES.items() if capability in capabilities]
    if precision == "auto":
        # bf16 has the range of f32 and needs no care; f16 is what GPUs are made for
        return next(name for name in ("bf16", "f16", "f32") if name in native)
    if precision not in native:
        raise EngineError(f"this device does not compute in {precision}; it has: {', '.join(native)}")
    return precision
