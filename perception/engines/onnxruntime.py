"""ONNX Runtime on the CPU, where OpenVINO is not available."""

from __future__ import annotations

import threading
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from perception.common import hardware
from perception.engines.base import Engine, EngineOptions
from perception.errors import EngineError
from perception.types import F32, U8


def available() -> tuple[bool, str]:
    """Tell if ONNX Runtime is installed, and its version or how to get it."""
    if find_spec("onnxruntime") is None:
        return False, "ONNX Runtime is not installed; `pip install onnxruntime`"
    return True, f"ONNX Runtime {_version()}"


def open_model(path: Path, options: EngineOptions) -> Engine:
    """Load an ONNX file into a session.

    Raises:
        EngineError: a precision other than fp32, or a device other than the CPU.
        Exception: whatever ONNX Runtime throws when it refuses the model.
    """
    return OnnxRuntimeEngine(path, options)


class OnnxRuntimeEngine(Engine):
    """See `Engine`. One session, called by any number of threads."""

    name = "onnxruntime"

    def __init__(self, path: Path, options: EngineOptions) -> None:
        import onnxruntime

        if options.precision not in ("auto", "fp32"):
            raise EngineError(
                f"onnxruntime computes in fp32 on CPUs, not {options.precision}; use openvino for {options.precision}"
            )
        if options.device.upper() != "CPU":
            raise EngineError(f"onnxruntime runs on the CPU only, not on {options.device!r}")
        self.path = path
        self.precision = "int8" if options.card is not None and options.card.quantization is not None else "fp32"
        cores = options.threads or hardware.usable_cores()
        latency = options.mode == "latency"
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = cores if latency else 1
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 4  # what matters is raised; the rest would go straight to the terminal
        # idle workers that spin would take the cores from the decoder and the encoder
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
        self._session: onnxruntime.InferenceSession | None = session
        self._input = session.get_inputs()[0].name
        self._outputs = options.outputs
        self._places = threading.BoundedSemaphore(1 if latency else cores)
        self.streams = 1 if latency else cores
        width, height = options.size
        batch = session.get_inputs()[0].shape[0]
        self.input_shape = (batch if isinstance(batch, int) else None, height, width, 3)
        self.batch = self.input_shape[0] or options.batch or 1
        self.description = (
            f"ONNX Runtime {_version()} {self.precision}, {self.streams} stream{'s' if self.streams > 1 else ''}, "
            f"{hardware.cpu_name()}"
        )

    def _run(self, frames: U8) -> dict[str, F32]:
        with self._places:
            session = self._session
            if session is None:
                raise self._closed_error()
            results = session.run(self._outputs, {self._input: frames})
        return {name: np.ascontiguousarray(array) for name, array in zip(self._outputs, results, strict=True)}

    def close(self) -> None:
        self._session = None


def _version() -> str:
    for package in ("onnxruntime", "onnxruntime-gpu"):
        try:
            return version(package)
        except ModuleNotFoundError:
            continue
    return ""
