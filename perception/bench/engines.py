"""Measure every installed engine, each in a process of its own: latency, throughput, memory.

python -m perception.bench.engines MODEL ENGINE PRECISION REPEATS    (prints one row as JSON)
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from perception.bench.peak import peak_bytes
from perception.engines import ENGINES, engine_status
from perception.errors import PerceptionError

WARMUP = 5

_PRECISIONS = ("fp32", "auto")


def engine_rows(model: str, repeats: int) -> list[dict[str, Any]]:
    """Measure a network, without anything around it, in every installed engine.

    Args:
        model: name or path.
        repeats: calls that are measured.

    Returns:
        For each engine and precision: milliseconds of one call (median and 99th percentile, all cores on it), frames
        per second (as many calls at once as it has streams), and the memory of its process in MB (None where that is
        unknown); or ``fault``. A precision that an engine chooses by itself is measured once.
    """
    rows: list[dict[str, Any]] = []
    for engine in ENGINES:
        if not engine_status(engine)[0]:
            continue
        for precision in _PRECISIONS:
            row = _in_own_process(model, engine, precision, repeats)
            if all((row["engine"], row["precision"]) != (r["engine"], r["precision"]) for r in rows):
                rows.append(row)
    return rows


def _in_own_process(model: str, engine: str, precision: str, repeats: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "perception.bench.engines", model, engine, precision, str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):  # it died
        said = done.stderr.strip().splitlines()
        row = {"engine": engine, "precision": precision, "fault": said[-1] if said else f"exit code {done.returncode}"}
    return row


def measure(model: str, engine: str, precision: Any, repeats: int) -> dict[str, Any]:
    """Measure one row of `engine_rows`, in this process.

    Raises:
        PerceptionError: the model cannot be loaded or run.
    """
    from perception.model import load_model

    with load_model(model, engine=engine, precision=precision, mode="latency") as loaded:
        frames = frames_for(loaded.engine.input_shape)
        for _ in range(WARMUP):
            loaded.engine.infer(frames)
        times = []
        for _ in range(repeats):
            started = time.perf_counter()
            loaded.engine.infer(frames)
            times.append((time.perf_counter() - started) * 1e3)
        name = loaded.engine.precision
    with load_model(model, engine=engine, precision=precision, mode="throughput") as loaded:
        run, streams = loaded.engine.infer, loaded.engine.streams
        with ThreadPoolExecutor(streams) as pool:
            list(pool.map(lambda _: run(frames), range(WARMUP * streams)))
            started = time.perf_counter()
            count = sum(1 for _ in pool.map(lambda _: run(frames), range(repeats * streams)))
            seconds = time.perf_counter() - started
    peak = peak_bytes()
    return {
        "engine": engine,
        "precision": name,
        "p50_ms": statistics.median(times),
        "p99_ms": float(np.percentile(times, 99)),
        "fps": count * len(frames) / seconds,
        "streams": streams,
        "peak_mb": None if peak is None else peak / 1e6,
    }


def frames_for(shape: tuple[int | None, int, int, int]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Make a batch of noise for a network with input ``[N or None, height, width, 3]``; one frame where N is None."""
    return np.random.default_rng(0).integers(0, 256, (shape[0] or 1, *shape[1:]), np.uint8)


def _main() -> None:
    model, engine, precision, repeats = sys.argv[1:]
    try:
        row = measure(model, engine, precision, int(repeats))
    except PerceptionError as error:
        row = {"engine": engine, "precision": precision, "fault": str(error)}
    sys.stdout.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    _main()
