"""Which attributes of TensorRT's Python modules the code uses, read from the code itself."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from typing import Any

import perception.engines

ENGINES = Path(perception.engines.__file__).parent

OBJECTS = {
    "trt", "builder", "network", "parser", "config", "ranges", "layer", "source", "error", "cache", "runtime",
    "engine", "context",
}  # fmt: skip
"""Variables that hold something of TensorRT's, wherever they appear."""

RTX_ONLY = {
    "ComputeCapability", "CudaGraphStrategy", "WHOLE_GRAPH_CAPTURE", "create_runtime_cache", "create_runtime_config",
    "cuda_graph_strategy", "deserialize", "num_compute_capabilities", "set_compute_capability",
    "set_execution_context_allocation_strategy", "set_runtime_cache",
}  # fmt: skip
"""What only TensorRT for RTX has; used behind a look at the flavour."""

PYTHON = {"__init__", "__members__", "__version__"}


def used_names() -> set[str]:
    """Every attribute that is taken from something of TensorRT's."""
    names = set()
    for path in [*sorted((ENGINES / "trt").glob("*.py")), ENGINES / "tensorrt.py"]:
        if path.is_file() and path.name not in ("graph.py", "cache.py", "recipe.py"):  # those do not touch TensorRT
            for item in ast.walk(ast.parse(path.read_text())):
                if isinstance(item, ast.Attribute) and _root(item) in OBJECTS:
                    names.add(item.attr)
    return names - PYTHON


def _root(item: ast.Attribute) -> str:
    value: ast.expr = item.value
    while isinstance(value, (ast.Attribute, ast.Call)):
        if isinstance(value, ast.Attribute) and value.attr in ("trt", "context", "runtime_cache"):
            return value.attr.removeprefix("runtime_")  # flavour.trt, self.context, ...
        value = value.func if isinstance(value, ast.Call) else value.value
    return value.id if isinstance(value, ast.Name) else ""


def names_in_module(trt: Any) -> set[str]:
    """The names of a module, of its classes, and of the classes in those."""
    names: set[str] = set()
    todo = [trt]
    while todo:
        holder = todo.pop()
        for name, value in vars(holder).items():
            names.add(name)
            if inspect.isclass(value) and value is not holder and name not in ("__class__", "__base__"):
                todo.append(value)
        if inspect.isclass(holder):
            for base in holder.__mro__[1:]:
                names.update(vars(base))
    return names


def names_in_binary(binary: bytes, names: set[str]) -> set[str]:
    """Those of ``names`` that a binding's compiled module holds as a C string (or as the end of one)."""
    return {name for name in names if name.encode() + b"\0" in binary}
