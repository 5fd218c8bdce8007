"""Keys of files of settings, with their values, defaults and meanings, from the classes that read them."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from perception.evaluation.suite import Suite
from perception.rules.settings import Condition, Line, Zone
from perception.server.settings import ServerSettings
from perception.training.recipes.read import RECIPES
from reference.markdown import attributes, plain, table

FILES: dict[str, tuple[type[BaseModel], ...]] = {
    "live.yaml": (ServerSettings,),
    "rules": (Line, Zone, Condition),
    "suites": (Suite,),
    "recipes": tuple(RECIPES.values()),
}
"""The classes that are at the top of each kind of file."""


def settings(kind: str) -> str:
    """The tables of a kind of file: one for its top, one for each part of it."""
    found: dict[type[BaseModel], None] = {}
    for top in FILES[kind]:
        _collect(top, found)
    return "\n".join(_section(model) for model in found)


def _collect(model: type[BaseModel], found: dict[type[BaseModel], None]) -> None:
    if model not in found:
        found[model] = None
        for field in model.model_fields.values():
            for inner in _models(field.annotation):
                _collect(inner, found)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not get_args(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)


def _section(model: type[BaseModel]) -> str:
    summary = plain(inspect.getdoc(model).split("\n\n")[0]) if model.__doc__ else ""
    rows = []
    for name, field in model.model_fields.items():
        rows.append((f"`{field.alias or name}`", value_of(field), default_of(field), plain(meaning(model, name))))
    return f"### {model.__name__}\n\n{summary}\n\n{table(('key', 'value', 'default', 'meaning'), rows)}"


def meaning(model: type[BaseModel], key: str) -> str:
    """What the docstring of the class says of a key, or that of the class that it has it from; empty if nothing."""
    for owner in model.__mro__:
        text = attributes(inspect.cleandoc(owner.__doc__ or "")).get(key)
        if text:
            return text
    return ""


def default_of(field: FieldInfo) -> str:
    """The default of a key, as it would be written in YAML."""
    if field.is_required():
        return "needed"
    default = field.get_default(call_default_factory=True)
    if default is None or (isinstance(default, (list, tuple, dict, str)) and not default):
        return "none"
    if isinstance(default, BaseModel):
        return "its defaults"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, (list, tuple)):
        return f"`[{', '.join(map(str, default))}]`"
    return f"`{default}`"


def value_of(field: FieldInfo) -> str:
    """What may be written at a key."""
    bounds = []
    for constraint in field.metadata:
        for name, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤")):
            if getattr(constraint, name, None) is not None:
                bounds.append(f"{sign} {getattr(constraint, name)}")
    return ", ".join(dict.fromkeys([_kind(field.annotation), *bounds]))


_PLAIN = {bool: "true or false", int: "whole number", float: "number", str: "text", Path: "path", SecretStr: "secret"}


def _kind(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if origin is Literal:
        return " or ".join(f"`{str(choice).lower() if isinstance(choice, bool) else choice}`" for choice in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_kind(part) for part in inner if part is not type(None)))
    if origin in (list, tuple, set, frozenset):
        if origin is tuple and len(inner) > 1 and inner[-1] is not Ellipsis:
            return f"list of {len(inner)}: {', '.join(dict.fromkeys(map(_kind, inner)))}"
        return f"list: {_kind(inner[0])}" if inner else "empty list"
    if origin is dict:
        return f"mapping of names: {_kind(inner[1])}"
    if hasattr(annotation, "__metadata__"):
        return _kind(inner[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return re.sub(r"^typing\.", "", str(annotation))
