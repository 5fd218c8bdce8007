"""Comparison of a recipe with the one that a run was started with."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from perception.errors import UsageError
from perception.training.recipes.base import RunConfig
from perception.training.recipes.read import parse_config

log = logging.getLogger(__name__)

ELSEWHERE = ("name", "output", "tensorboard", "data.root", "model.", "network.start", "network.pretrained")
"""Fields that change nothing about how a run goes on."""

FIXED = ("task", "optimiser.kind", "network.frozen", "network.frozen_stride", "data.classes", "detection.classes")
"""Fields that the saved state belongs to: which numbers the optimiser keeps, and of which class a channel is.

Other parts of the network are told by their tensors, see `perception.training.weights.checkpoint.load_weights`.
"""


def check_recipe(saved: Any, now: RunConfig, path: Path) -> None:
    """Refuse to go on with another run's state; warn of what else has changed, which counts from now on.

    Args:
        saved: the recipe in the checkpoint, plain data.
        now: the recipe of this run.
        path: the checkpoint.

    Raises:
        UsageError: the state does not belong to this recipe; names the fields.
    """
    try:
        before = _flat(parse_config(saved, path).model_dump(mode="json"))
    except UsageError:  # of an earlier version: what differs from now cannot be told
        return
    after = _flat(now.model_dump(mode="json"))
    changed = {
        name: f"{name} ({_short(before.get(name))}, now {_short(after.get(name))})"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name) and not name.startswith(ELSEWHERE)
    }
    fixed = [said for name, said in changed.items() if name in FIXED]
    if fixed:
        raise UsageError(
            f"this run was started with another recipe: {', '.join(fixed)}; start over: `fresh=True`, or change "
            "the recipe's output",
            path,
        )
    if changed:
        log.warning("%s: the recipe has changed; from now on: %s", path, ", ".join(changed.values()))


def measures_the_same(saved: dict[str, Any], now: RunConfig) -> bool:
    """Return whether the scores of a run started with ``saved``, plain data, compare with those of ``now``."""
    return saved.get("only") == getattr(now, "only", None)


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten to values by dotted name; of classes only their names."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= _flat(value, f"{name}.")
        elif key == "classes":
            flat[name] = [c["name"] if isinstance(c, dict) else c for c in value]
        else:
            flat[name] = value
    return flat


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
