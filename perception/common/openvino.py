"""OpenVINO, which reports its being imported to its makers unless it is kept from it."""

from __future__ import annotations

import sys
from typing import Any


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry; the module.

    Nobody was asked about the report, and to send it OpenVINO forks a process that has threads: the child may wait for
    a lock for ever, and the process for the child at its end. Whoever imports OpenVINO before has it as it is.

    Raises:
        ImportError: OpenVINO is not there.
    """
    name = "openvino_telemetry"
    if "openvino" not in sys.modules and name not in sys.modules:
        sys.modules[name] = None  # type: ignore[assignment]  # the documented way to make an import fail
        try:
            import openvino
        finally:
            sys.modules.pop(name, None)
    import openvino

    return openvino
