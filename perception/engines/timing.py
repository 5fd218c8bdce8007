"""Measuring the time per frame of engines, side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from perception.engines.base import Engine

WARMUP = 3
LEAST_CALLS = 7


def call_ms(engines: Sequence[Engine], seconds: float = 1.0, quantile: float = 0.5) -> list[float]:
    """Milliseconds of one call of each engine, for one frame of noise.

    The engines take turns, so that whatever else the machine does meanwhile slows all of them alike.

    Args:
        engines: open engines.
        seconds: about how long to measure in all; each is called a few times in any case.
        quantile: of the calls; the median, or a lower one where other work on a busy machine must not decide.

    Raises:
        EngineError: an engine fails.
    """
    rng = np.random.default_rng(0)
    frames = []
    for engine in engines:
        batch, *shape = engine.input_shape
        frames.append(rng.integers(0, 256, (batch or 1, *shape), np.uint8))
    for engine, frame in zip(engines, frames, strict=True):
        for _ in range(WARMUP):
            engine.infer(frame)
    times: list[list[float]] = [[] for _ in engines]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < LEAST_CALLS:
        for engine, frame, series in zip(engines, frames, times, strict=True):
            start = time.perf_counter()
            engine.infer(frame)
            series.append((time.perf_counter() - start) * 1e3)
    return [float(np.quantile(series, quantile)) for series in times]
