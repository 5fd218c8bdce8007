"""Compare networks, without anything around them: alternately, in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from perception.bench.engines import frames_for
from perception.engines import Precision
from perception.model import load_model

WARMUP = 5
TURN = 8
"""Calls of one network before it is the next one's turn; the first warms its weights and does not count."""


def model_rows(
    model: str, others: Sequence[str], engine: str, precision: Precision, repeats: int, device: str = "CPU"
) -> list[dict[str, Any]]:
    """Measure a network and others at their own sizes, all cores on one call.

    Args:
        model: name or path.
        others: names or paths.
        engine: engine to run all of them on.
        precision: precision to run them in.
        repeats: turns of each network.
        device: device of the engine.

    Returns:
        A row each, ``model`` first: the precision, milliseconds of a call (median and 99th percentile), and how many
        times as long as ``model`` it takes (ratio of medians).

    Raises:
        PerceptionError: one cannot be loaded or run.
    """
    with ExitStack() as stack:
        runs = []
        for name in (model, *others):
            loaded = stack.enter_context(
                load_model(name, engine=engine, precision=precision, device=device, mode="latency")
            )
            frames = frames_for(loaded.engine.input_shape)
            for _ in range(WARMUP):
                loaded.engine.infer(frames)
            runs.append((name, loaded.engine, frames, list[float]()))
        for _ in range(repeats):
            for _, network, frames, times in runs:
                network.infer(frames)
                for _ in range(TURN - 1):
                    started = time.perf_counter()
                    network.infer(frames)
                    times.append((time.perf_counter() - started) * 1e3)
        ours = statistics.median(runs[0][3])
        return [
            {
                "model": name,
                "input": f"{frames.shape[2]}x{frames.shape[1]}",
                "engine": network.name,
                "precision": network.precision,
                "p50_ms": statistics.median(times),
                "p99_ms": sorted(times)[int(0.99 * (len(times) - 1))],
                "times": statistics.median(times) / ours,
            }
            for name, network, frames, times in runs
        ]
