"""Graphs that were checked before: a start need not parse and check a file again that has not changed."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import platformdirs

from perception.card import ModelCard, load_onnx
from perception.common.files import sha256_of, write_atomic
from perception.common.private import private_cache, read_private
from perception.common.version import __version__
from perception.engines.contract import check_graph, check_valid, fixed_batch
from perception.errors import EngineError, ModelError

KEPT = 200
"""Graphs that are remembered at most; those that were checked first are forgotten first."""

_log = logging.getLogger("perception")


@dataclass(frozen=True)
class Graph:
    """What engines ask of a graph.

    Attributes:
        outputs: their names, in order.
        batch: the number of frames that it takes, 0 where any is possible.
    """

    outputs: tuple[str, ...]
    batch: int


def checked_graph(path: Path, card: ModelCard, size: tuple[int, int]) -> Graph:
    """Check that the graph of a file is valid and fits a card.

    Args:
        path: the file.
        card: what it is said to be.
        size: (width, height) that the network is to run at.

    Raises:
        ModelError: the file is missing or not ONNX, or the graph does not fit the card.
        EngineError: the graph is not valid, so that no engine could load it.
    """
    key = _key(path, card, size)
    kept = _read()
    found = _graph(kept.get(key))
    if found is not None:
        return found
    model = load_onnx(path)
    check_graph(model, card, size, path)
    try:
        check_valid(model, path)
    except ModelError as error:
        raise EngineError(error.message, path) from None
    made = Graph(tuple(output.name for output in model.graph.output), fixed_batch(model, card.input.name))
    kept[key] = {"outputs": [*made.outputs], "batch": made.batch}
    try:
        private_cache()
        write_atomic(_file(), json.dumps(dict([*kept.items()][-KEPT:])).encode(), private=True)
    except OSError as error:
        _log.debug("that %s was checked is not kept: %s", path, error.strerror or error)
    return made


def _key(path: Path, card: ModelCard, size: tuple[int, int]) -> str:
    """All that the outcome depends on."""
    try:
        content = sha256_of(path)
    except OSError:
        content = ""  # told when it is read
    told = [content, card.model_dump_json(), list(size), __version__, version("onnx")]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


def _file() -> Path:
    return Path(platformdirs.user_cache_dir("perception")) / "checked.json"


def _read() -> dict[str, Any]:
    try:
        data = json.loads(read_private(_file()))
    except ValueError:  # none yet, or damaged
        return {}
    return data if isinstance(data, dict) else {}


def _graph(data: Any) -> Graph | None:
    if not isinstance(data, dict) or not isinstance(data.get("batch"), int):
        return None
    outputs = data.get("outputs")
    if not isinstance(outputs, list) or not all(isinstance(name, str) for name in outputs):
        return None
    return Graph(tuple(outputs), data["batch"])
