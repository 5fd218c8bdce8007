"""The public names of the package and their signatures: ``python -m tests.public_api > tests/public_api.txt``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from pydantic import BaseModel

import perception


def lines(module: ModuleType = perception) -> Iterator[str]:
    """A line for each exported name, and for each public attribute of an exported class."""
    for name in sorted(module.__all__):
        thing = getattr(module, name)
        if not inspect.isclass(thing):
            yield f"{name}{_signature(thing)}"
        elif issubclass(thing, BaseModel):
            yield f"class {name}"
            yield from (f"  {name}.{field}" for field in sorted(thing.model_fields))
        else:
            yield f"class {name}{_signature(thing)}"
            for member in sorted(vars(thing)):
                if not member.startswith("_"):
                    yield f"  {name}.{member}{_member(inspect.getattr_static(thing, member))}"


def _member(member: Any) -> str:
    if isinstance(member, (classmethod, staticmethod)):
        return _signature(member.__func__)
    return _signature(member) if inspect.isfunction(member) else ""


def _signature(thing: Any) -> str:
    try:
        return str(inspect.signature(thing))
    except (TypeError, ValueError):
        return ""


if __name__ == "__main__":
    print("\n".join(lines()))
