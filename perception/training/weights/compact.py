"""Compact checkpoints: averaged weights in half and the progress of the run, small enough to keep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perception.training.weights.checkpoint import load_checkpoint, save_checkpoint

KEPT = ("config", "epoch", "step", "best", "stale", "average_steps")


def compact(checkpoint: str | Path, output: str | Path) -> None:
    """Write what ``checkpoint`` needs to be exported, or to go on without its optimiser, to ``output``.

    About a seventh of the size. As ``last.pt`` of a run it is taken up by ``perception train``.

    Raises:
        ModelError: The checkpoint cannot be read.
    """
    save_compact(load_checkpoint(Path(checkpoint)), output)


def save_compact(state: dict[str, Any], output: str | Path) -> None:
    """Write a run's state as a compact checkpoint."""
    weights = {k: v.half() if v.is_floating_point() else v for k, v in state["average"].items()}
    save_checkpoint(Path(output), {**{k: state[k] for k in KEPT}, "average": weights})
