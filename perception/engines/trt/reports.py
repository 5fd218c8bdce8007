"""Messages of TensorRT while it parses and builds: faults for people, progress, log."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from typing import Any

from perception.common.waits import say_progress
from perception.engines.trt.flavour import Flavour

Progress = Callable[[str, int, int], None]
"""Called with what the builder does, the steps done, and the steps there are."""

_INSTEAD = {
    "MaxPool": "where its indices are taken, for unpooling: decode with bilinear Resize or ConvTranspose",
    "MaxUnpool": "decode with bilinear Resize or ConvTranspose",
    "NonMaxSuppression": "leave suppression out of the graph: perception does it after the network",
    "Loop": "unroll it when exporting",
    "RoiAlign": "use a one-stage head",
}

_WITHOUT_GPU = ("CUDA driver version is insufficient", "no CUDA-capable device", "CUDA initialization failure")

_NO_MEMORY = re.compile(r"out ?of ?memory|memory .*could not be allocated|insufficient memory", re.IGNORECASE)

_SPOKEN_S = 15.0
"""Between two lines that say how far a build is."""

_log = logging.getLogger("perception")


class Spoken:
    """Progress as lines, one now and then, for builds that nobody has asked for by name."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._began = self._said = time.monotonic()

    def __call__(self, phase: str, done: int, steps: int) -> None:
        now = time.monotonic()
        if now - self._said >= _SPOKEN_S:
            self._said = now
            say_progress(f"{self._model}: {now - self._began:.0f} s, {phase.lower()}: {done} of {steps}")


def parser_fault(parser: Any, flavour: Flavour) -> str:
    error = parser.get_error(0)
    operator, node = error.node_operator(), error.node_name()
    description = error.desc()
    lines = [line.strip() for line in description.splitlines()]
    telling = [line for line in lines if line and not any(word in line for word in _WITHOUT_GPU)]
    said = re.sub(r" ?In \w+ at \S+:\d+\)?", "", telling[-1] if telling else "no reason was given")[:300]
    where = f"{operator} (node {node!r})" if operator else "the graph"
    instead = f"; {_INSTEAD[operator]}" if operator in _INSTEAD else ""
    return f"{flavour.title} does not support {where}: {said}{instead}"


def build_logger(trt: Any) -> Any:
    """Create a TensorRT logger that keeps errors for the message and sends the rest to the package's log."""

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR and not any(word in message for word in _WITHOUT_GPU):
                self.errors.append(message)
            if severity <= trt.ILogger.WARNING:
                _log.debug("%s: %s", severity.name, message)

        def lacks_memory(self) -> bool:
            """True where an error was about memory that is used up."""
            return any(_NO_MEMORY.search(message) for message in self.errors)

        def said(self) -> str:
            """Return the last error, without its source positions."""
            text = self.errors[-1] if self.errors else ""
            return re.sub(r" ?In \w+ at \S+:\d+\)?", "", " ".join(text.split()))[:400]

    return Logger()


def build_monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.steps[phase] = steps
            progress(phase, 0, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            progress(phase, step + 1, self.steps.get(phase, step + 1))
            return True  # go on

        def phase_finish(self, phase: str) -> None:
            self.steps.pop(phase, None)

    return Monitor()
