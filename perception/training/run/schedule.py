"""Learning rate over a run."""

from __future__ import annotations

import math
from typing import Literal

POLY_POWER = 0.9


def rate_factor(schedule: Literal["cosine", "poly", "constant"], step: int, steps: int, warmup: float) -> float:
    """Compute the share of the peak learning rate at ``step`` of ``steps``.

    Rises linearly over ``warmup`` steps, then falls to 0 at the end, or stays (``constant``). It depends on nothing
    else, so resuming needs no scheduler state.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    done = min((step - warmup) / max(steps - warmup, 1), 1.0)
    if schedule == "poly":
        return float((1 - done) ** POLY_POWER)
    return 0.5 * (1 + math.cos(math.pi * done))
