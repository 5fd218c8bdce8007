"""Runtimes that execute a model file, interchangeable behind `Engine`; `open_engine` chooses one.

Each runtime is a module of this package with ``available() -> (bool, reason)`` and
``open_model(path, options) -> Engine``, imported only when it is asked about.
"""

from __future__ import annotations

import logging
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Literal, get_args

from perception.card import ModelCard
from perception.common import hardware
from perception.common.precision import Precision, parse_precision
from perception.engines.base import Engine, EngineOptions, Mode, brief
from perception.engines.checked import checked_graph
from perception.engines.contract import check_outputs, doubt_boxes, trial_frames
from perception.engines.fallback import FallbackEngine
from perception.engines.quantised import require_quantised
from perception.errors import EngineError, PerceptionError, UsageError

__all__ = ["ENGINES", "Engine", "EngineName", "EngineOptions", "Mode", "Precision", "engine_status", "open_engine"]

EngineName = Literal["auto", "tensorrt", "openvino", "onnxruntime", "torch"]

ENGINES: tuple[str, ...] = ("tensorrt", "openvino", "onnxruntime", "torch")
"""The engines by name, the one that ``auto`` likes best first. ``auto`` never takes ``torch``: it is the reference."""

_REMOVABLE = frozenset({"tensorrt"})
"""Engines on devices that can be lost while a stream runs; ``auto`` then goes on with the next one."""

_log = logging.getLogger("perception")


def engine_status(name: str) -> tuple[bool, str]:
    """Tell if an engine can run here, and in one line its version and devices, or what is missing and how to get it.

    Raises:
        UsageError: there is no engine of that name.
    """
    if name == "tensorrt" and not (found := hardware.nvidia_gpus())[0]:  # what builds engines need not be loaded
        return False, f"{found[1]}; TensorRT runs on NVIDIA GPUs only"
    module = _module(name)
    if module is None:
        return False, f"this version of perception has no {name} engine yet; use openvino or onnxruntime"
    available, reason = module.available()
    return bool(available), str(reason)


def open_engine(
    path: str | Path,
    card: ModelCard,
    *,
    engine: str = "auto",
    precision: Precision = "auto",
    mode: Mode = "latency",
    threads: int | None = None,
    device: str = "CPU",
    size: tuple[int, int] | None = None,
    batch: int | None = None,
) -> Engine:
    """Load a model file into a runtime, run it once, and check that its results are what the card says.

    Args:
        path: the ``.onnx`` file.
        card: its card.
        engine: ``auto``, or one of `ENGINES`. ``auto`` takes TensorRT where there is an NVIDIA GPU, else
            OpenVINO, else ONNX Runtime, and logs which and why; and the next one where one refuses the model or
            its GPU is lost while a stream runs; a lost GPU is tried again, and taken as soon as it works.
        precision: ``auto``, or what to compute in. ``int8`` takes the model's quantised version, see
            `perception.engines.quantised`; so does ``auto`` in OpenVINO on a CPU, where that was measured to be faster.
        mode, threads, device: see `EngineOptions`.
        size: (width, height) to run at, in pixels; the card's own where None.
        batch: most frames that are computed together where several wait at the same time, see `EngineOptions`. None:
            as many as ``perception build --batch`` has built a TensorRT engine for, else one.

    Raises:
        UsageError: an unknown engine, precision or mode; a number of threads or frames below 1.
        ModelError: the file is missing or not ONNX, or the graph does not fit the card; no quantised version.
        EngineError: the engine is not available, or refuses the model.
    """

    path = Path(path)
    precision = parse_precision(precision)
    _check_choice("mode", mode, get_args(Mode))
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, not {threads}")
    if batch is not None and batch < 1:
        raise UsageError(f"batch must be at least 1, not {batch}")
    if precision == "int8":
        path, card = require_quantised(path, card)
        precision = "auto"
    size = size or (card.input.width, card.input.height)
    graph = checked_graph(path, card, size)
    if batch not in (None, 1, graph.batch or batch):
        raise UsageError(f"this model file has a fixed batch size of {graph.batch}", path)
    options = EngineOptions(size, graph.outputs, precision, mode, threads, device, card, batch)
    candidates, refused = _candidates(engine)
    for name, module in candidates:
        try:
            opened = _open(name, module, path, options, card)
        except EngineError as error:
            if engine != "auto" or name == candidates[-1][0]:
                raise
            _log.warning("%s; trying the next engine", error)
            refused.append(f"{name}: {error.message}")
            continue
        why = f" (not {'; not '.join(refused)})" if refused else ""
        _log.info("%s on %s%s", path.name, opened.description, why)
        if engine == "auto" and name in _REMOVABLE:
            others = [other for other in candidates if other[0] not in _REMOVABLE]
            reopen, *more = (partial(_open, *other, path, options, card) for other in ((name, module), *others))
            return FallbackEngine(opened, reopen, more)
        return opened
    raise EngineError(f"no engine can run here: {'; '.join(refused)}")


def _open(name: str, module: ModuleType, path: Path, options: EngineOptions, card: ModelCard) -> Engine:
    """Open a model in one runtime and try it."""
    try:
        opened: Engine = module.open_model(path, options)
    except PerceptionError:
        raise
    except Exception as error:  # runtimes raise whatever their C++ throws
        raise EngineError(f"{name} cannot load the model: {brief(error)}", path) from error
    try:
        frames = opened.input_shape[0] or opened.batch  # a graph may say that it takes any number, and not do so
        trial = opened.infer(trial_frames((frames, *opened.input_shape[1:])))
        check_outputs(trial, frames, card, options.size, path)
        doubt = doubt_boxes(trial, card, options.size)
        if doubt is not None:
            _log.warning("%s: %s", card.name, doubt)
    except BaseException:
        opened.close()
        raise
    return opened


def _candidates(name: str) -> tuple[list[tuple[str, ModuleType]], list[str]]:
    """Return the engines to try, best first, and why others are not among them."""
    if name != "auto":
        module = _module(name)
        available, reason = engine_status(name)
        if module is None or not available:
            raise EngineError(f"the {name} engine is not available: {reason}")
        return [(name, module)], []
    candidates: list[tuple[str, ModuleType]] = []
    refused: list[str] = []
    for candidate in ENGINES[:-1]:
        available, reason = engine_status(candidate)
        module = _module(candidate) if available else None
        if module is not None:
            candidates.append((candidate, module))
        elif not candidates:
            refused.append(f"{candidate}: {reason}")
    return candidates, refused


def _module(name: str) -> ModuleType | None:
    """Import the module of an engine; None where this version has none."""
    _check_choice("engine", name, ENGINES)
    if find_spec(f"perception.engines.{name}") is None:
        return None
    return import_module(f"perception.engines.{name}")


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        known = ("auto", *choices) if what == "engine" else choices
        raise UsageError(f"unknown {what} {value!r}; choose one of: {', '.join(known)}")
