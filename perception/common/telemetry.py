"""Imports of libraries that report their use to their makers: they do not do it here, where nobody was asked."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

_REPORTERS = ("openvino_telemetry",)
"""Packages that do nothing but send reports; those that use them can do without."""

_lock = threading.Lock()


@contextmanager
def no_telemetry() -> Iterator[None]:
    """Let what is imported meanwhile find no package that sends reports.

    OpenVINO decides when it is imported: it then makes a folder ``~/intel`` with an id of the user, and reports each
    import and each conversion of a model to Google Analytics.
    """
    with _lock:
        before = {name: sys.modules[name] for name in _REPORTERS if name in sys.modules}
        sys.modules.update(dict.fromkeys(_REPORTERS))  # type: ignore[arg-type]  # None: as if it was not installed
        try:
            yield
        finally:
            for name in _REPORTERS:
                sys.modules.pop(name, None)
            sys.modules.update(before)


def import_openvino() -> ModuleType:
    """Import OpenVINO, the one way to do so in this package."""
    with no_telemetry():
        return import_module("openvino")
