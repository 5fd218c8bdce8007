"""Reading a training recipe: a YAML file, checked before anything else runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from perception.common.settings import read_yaml
from perception.common.strict import faults_in
from perception.errors import UsageError
from perception.training.recipes.base import RunConfig
from perception.training.recipes.classification import ClassificationConfig
from perception.training.recipes.segmentation_detection import SegmentationDetectionConfig

log = logging.getLogger(__name__)

DEFAULT_TASK = "segmentation_detection"

RECIPES: dict[str, type[RunConfig]] = {
    DEFAULT_TASK: SegmentationDetectionConfig,
    "classification": ClassificationConfig,
}
"""Recipes by their ``task``. A package with a task of its own adds it here and to `perception.training.tasks.kinds`."""

OLD_TASKS = {"street": DEFAULT_TASK}
OLD_FIELDS = {("augment", "paste"): "copy_paste", ("data", "train", "taught"): "distil"}
"""Fields that were called otherwise, by their path; lists are passed through."""


def read_config(path: str | Path, data_root: str | Path | None = None, start: str | Path | None = None) -> RunConfig:
    """Read the recipe in ``path``, with ``data.root`` and ``network.start`` replaced if they are given.

    A recipe may say only what differs from another one, its ``base``: a path relative to its own folder. Old spellings
    are accepted with a note in the log.

    Raises:
        UsageError: A file cannot be read or does not hold a valid recipe; every fault is named.
    """
    data = _read(Path(path))
    if data_root is not None and isinstance(data, dict) and isinstance(data.get("data"), dict):
        data["data"]["root"] = str(data_root)
    if start is not None and isinstance(data, dict):
        data["network"] = {**(data.get("network") or {}), "start": str(start)}
    return parse_config(data, path)


def parse_config(data: Any, where: str | Path) -> RunConfig:
    """Check plain data as a recipe; old spellings, which checkpoints hold, are accepted.

    Args:
        data: as in a recipe's YAML, or in a checkpoint.
        where: the file it is from.

    Raises:
        UsageError: It is not a valid recipe; every fault is named.
    """
    data, _ = _renamed(data)
    task = data.get("task", DEFAULT_TASK) if isinstance(data, dict) else DEFAULT_TASK
    kind = RECIPES.get(task) if isinstance(task, str) else None
    if kind is None:
        raise UsageError(f"not a valid recipe: task {task!r} is unknown; there are {', '.join(RECIPES)}", where)
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise UsageError(f"not a valid recipe: {faults_in(error, 'recipe', kind)}", where) from None


def _read(path: Path, above: tuple[Path, ...] = ()) -> Any:
    """Plain data of a recipe, laid over that of its base."""
    data, notes = _renamed(read_yaml(path, "recipe"))
    for note in notes:
        log.warning("%s: %s", path, note)
    if not isinstance(data, dict) or "base" not in data:
        return data
    base = path.parent / str(data["base"])
    if base.resolve() in {p.resolve() for p in (*above, path)}:
        raise UsageError("a recipe cannot be its own base", base)
    return _merge(_read(base, (*above, path)), {key: value for key, value in data.items() if key != "base"})


def _merge(below: Any, above: Any) -> Any:
    """``above``, and what it leaves out of ``below``; lists are taken whole."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: _merge(below.get(key), value) for key, value in above.items()}}


def _renamed(data: Any) -> tuple[Any, list[str]]:
    """Translate a recipe to today's spelling, with a note for each old name; ``data`` itself is not changed."""
    notes: list[str] = []
    if isinstance(data, dict) and isinstance(data.get("task"), str) and data["task"] in OLD_TASKS:
        notes.append(f"task: {data['task']} is now called task: {OLD_TASKS[data['task']]}")
        data = {**data, "task": OLD_TASKS[data["task"]]}
    for (*parents, old), new in OLD_FIELDS.items():
        data = _rename(data, tuple(parents), old, new, notes)
    return data, list(dict.fromkeys(notes))


def _rename(data: Any, parents: tuple[str, ...], old: str, new: str, notes: list[str], above: str = "") -> Any:
    if isinstance(data, list):
        return [_rename(part, parents, old, new, notes, above) for part in data]
    if not isinstance(data, Mapping):
        return data
    if parents:
        first, *rest = parents
        if first not in data:
            return data
        return {**data, first: _rename(data[first], tuple(rest), old, new, notes, f"{above}{first}.")}
    if old not in data or new in data:
        return data
    notes.append(f"{above}{old} is now called {new}")
    return {new if key == old else key: value for key, value in data.items()}
