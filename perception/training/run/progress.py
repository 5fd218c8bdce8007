"""Progress of a training run, for display."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class TrainProgress(NamedTuple):
    """Progress after a step.

    Attributes:
        name: of the recipe.
        epoch: the current one, from 1.
        loss: of the step.
        done: steps so far, of all epochs.
        total: steps of the whole run.
    """

    name: str
    epoch: int
    loss: float
    done: int
    total: int


OnProgress = Callable[[TrainProgress], None]
