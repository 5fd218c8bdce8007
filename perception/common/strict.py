"""The base of settings that are read from YAML, and what is said of those that are faulty."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from perception.common.settings import nearest


class Strict(BaseModel):
    """A part of a file of settings: unknown fields are faults."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def faults_in(error: ValidationError, whole: str = "", kind: type[BaseModel] | None = None) -> str:
    """Say in one line all that is wrong. What was given is never quoted: it may be a password.

    Args:
        error: from pydantic.
        whole: what to call the whole of the data, where no part of it alone is wrong; nothing if empty.
        kind: what the data should have been: of an unknown field it is told then which may have been meant.
    """
    told = []
    for fault in error.errors(include_input=False, include_url=False):
        where = ".".join(map(str, fault["loc"])) or whole
        text = f"{where}: " * bool(where) + fault["msg"].removeprefix("Value error, ")
        if kind is not None and fault["type"] == "extra_forbidden":
            text += _meant(kind, fault["loc"])
        told.append(text)
    return "; ".join(told)


def _meant(kind: type[BaseModel], location: Sequence[int | str]) -> str:
    """Hint at the field that an unknown one may stand for."""
    models = [kind]
    for name in location[:-1]:
        if not isinstance(name, str):
            continue
        fields = [m.model_fields[name] for m in models if name in m.model_fields]
        # What is no field is the tag of one of several kinds.
        found = [m for f in fields for m in _models_in(f.annotation)] if fields else _tagged(models, name)
        models = found or models
    return nearest(str(location[-1]), dict.fromkeys(name for model in models for name in model.model_fields))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Find the models in a field's type, such as ``list[Part]`` or ``Part | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models_in(part)]


def _tagged(models: Sequence[type[BaseModel]], tag: str) -> list[type[BaseModel]]:
    types = {model: [field.annotation for field in model.model_fields.values()] for model in models}
    return [m for m, every in types.items() if any(get_origin(t) is Literal and tag in get_args(t) for t in every)]
