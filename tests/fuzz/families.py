"""All families by name; a family's module is loaded only in the process that needs it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from tests.fuzz.family import Family

NAMES = ("containers", "pictures", "models", "settings", "labels", "sockets", "forms", "requests", "cameras")


def _load(name: str) -> Callable[[], type[Family]]:
    def load() -> type[Family]:
        return import_module(f"tests.fuzz.{'http_requests' if name == 'requests' else name}").Inputs  # type: ignore[no-any-return]

    return load


FAMILIES: dict[str, Callable[[], type[Family]]] = {name: _load(name) for name in (*NAMES, "programs")}
