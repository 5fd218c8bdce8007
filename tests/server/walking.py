"""Every route of an application, found by walking it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


def walk(routes: Any, fill: Callable[[str], str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path, route) of every route, through all mounts and routers.

    Args:
        routes: of an application.
        fill: makes an address of a path with parameters.
    """
    for route in routes:
        inner = getattr(route, "original_router", None)  # of FastAPI's include_router, where it keeps one
        path = prefix + (getattr(route, "path", "") or "")
        children = getattr(inner, "routes", None) or getattr(route, "routes", None)
        if children:
            yield from walk(children, fill, path)
        elif path:
            yield fill(path), route
