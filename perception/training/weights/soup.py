"""The average of the weights of several runs, in one checkpoint: often better than each, and no dearer to run.

Runs that began from the same weights end in one valley of the loss; its middle often generalises better than its rim
(Wortsman et al., "Model soups", ICML 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from perception.errors import ModelError, UsageError
from perception.training.weights.checkpoint import load_checkpoint, save_checkpoint
from perception.training.weights.compact import KEPT


def soup(checkpoints: Sequence[str | Path], output: str | Path, shares: Sequence[float] | None = None) -> None:
    """Write the mean of the averaged weights of ``checkpoints`` to ``output``.

    The result is a compact checkpoint (`perception.training.weights.compact`) with the recipe of the first: it can be
    exported, released, or started from.

    Args:
        checkpoints: of one architecture, two or more.
        output: the ``.pt`` to write; may be one of them.
        shares: weight of each, in any unit; None for equal ones.

    Raises:
        UsageError: There are fewer than two, or the shares do not fit them.
        ModelError: One cannot be read, or is of another network than the first.
    """
    paths = [Path(checkpoint) for checkpoint in checkpoints]
    parts = [1.0] * len(paths) if shares is None else list(shares)
    if len(paths) < 2:
        raise UsageError("averaging needs at least two checkpoints")
    if len(parts) != len(paths) or not all(part >= 0 for part in parts) or not sum(parts) > 0:
        raise UsageError(f"give one share for each of the {len(paths)} checkpoints, none below 0, not {parts}")
    first = load_checkpoint(paths[0])
    total: dict[str, Tensor] = {name: torch.zeros_like(w, dtype=torch.float64) for name, w in first["average"].items()}
    for path, part in zip(paths, parts, strict=True):
        weights = load_checkpoint(path)["average"]
        differing = sorted(
            name
            for name in total.keys() | weights.keys()
            if name not in total or name not in weights or total[name].shape != weights[name].shape
        )
        if differing:
            raise ModelError(f"weights of another network than in {paths[0]}: {', '.join(differing[:5])} differ", path)
        for name, weight in weights.items():
            total[name] += weight.double() * (part / sum(parts))
    average = {name: total[name].to(weight.dtype) for name, weight in first["average"].items()}
    save_checkpoint(Path(output), {**{key: first[key] for key in KEPT}, "average": average})
