"""Annotate the same clip with the same network as people do it with other libraries, each in a process of its own.

A run's memory, its time from an empty process to the first frame, and the size of what it imports are a process's, so
that each run starts one: ``python -m perception.bench.peers NAME MODEL NETWORK CLIP OUTPUT FRAMES`` prints a run's
figures as JSON. The loops are in `perception.bench.peer_loops`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from perception.bench.peak import peak_bytes
from perception.bench.peer_loops import LOOPS, OURS
from perception.errors import PerceptionError
from perception.model import load_model

FRAMES = 120
WARM = 20
"""Frames at the beginning that do not count: queues fill, kernels and code get warm."""
ROUNDS = 3
LIMIT_S = 300.0


def peer_rows(model: str, clip: Path, precision: Any = "auto", rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Measure this pipeline and the others in turns; medians.

    Args:
        model: name or path.
        clip: video to annotate.
        precision: of this pipeline. The others get the network file that it runs, in eight bits where it does.
        rounds: turns of each.

    Returns:
        A row each, ours first: frames a second, core-milliseconds a frame, peak memory in MiB, seconds from an empty
        process to the first frame, MiB of the packages that were imported, and how many times as fast ours is. What
        cannot run here has ``skipped``, the reason in a line.

    Raises:
        PerceptionError: ours fails.
    """
    if Path(model).is_file():
        model = str(Path(model).resolve())
    with load_model(model, engine="openvino", precision=precision) as loaded:
        network = loaded.engine.path
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in LOOPS}
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="perception-peers-") as folder:
        output = Path(folder) / "annotated.mp4"
        for _ in range(rounds):
            for name, runs in figures.items():
                if name in skipped:
                    continue
                try:
                    paths = [str(network.resolve()), str(clip.resolve()), str(output)]
                    runs.append(_run([name, model, *paths, str(FRAMES)], folder))
                except PerceptionError as error:
                    if name == OURS:
                        raise
                    skipped[name] = error.message
    rows: list[dict[str, Any]] = []
    for name, runs in figures.items():
        if name in skipped:
            rows.append({"run": name, "skipped": skipped[name]})
            continue
        rows.append({"run": name, **{key: statistics.median(run[key] for run in runs) for key in runs[0]}})
    for row in rows:
        if "fps" in row:
            row["ours_times_faster"] = round(rows[0]["fps"] / row["fps"], 1)
    return rows


def _run(arguments: list[str], folder: str) -> dict[str, float]:
    """One run in a process of its own, in a folder where libraries may leave files.

    Raises:
        PerceptionError: it failed; with the last line that it said.
    """
    command = [sys.executable, "-m", __name__, *arguments, str(time.time())]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=folder)
    except subprocess.TimeoutExpired:
        raise PerceptionError(f"not done in {LIMIT_S:.0f} s", arguments[0]) from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        raise PerceptionError(said[-1][:160], arguments[0])
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


class _Clock:
    """Notes when frames are done, and measures from the one after the warm ones to the last."""

    def __init__(self, began: float) -> None:
        self._began = began
        self.count = 0
        self.first_s = 0.0
        self._from = self._cpu_from = 0.0

    def tick(self) -> None:
        """A frame is done."""
        self.count += 1
        if self.count == 1:
            self.first_s = time.time() - self._began
        if self.count == WARM:
            self._from, self._cpu_from = time.perf_counter(), time.process_time()

    def figures(self) -> dict[str, float]:
        """Measure what it is once the loop has ended and its file is closed."""
        counted = self.count - WARM
        if counted < 1:
            raise PerceptionError(f"only {self.count} frames; more than {WARM} are needed")
        elapsed, cpu = time.perf_counter() - self._from, time.process_time() - self._cpu_from
        return {
            "fps": round(counted / elapsed, 1),
            "core_ms": round(1e3 * cpu / counted, 1),
            "peak_mib": (peak_bytes() or 0) >> 20,
            "first_frame_s": round(self.first_s, 1),
            "imported_mib": _imported_mib(),
        }


def _imported_mib() -> int:
    """Size on disk of the distributions whose packages this process has imported, in MiB."""
    from importlib.metadata import distribution

    owners = packages_distributions()
    imported = {name.partition(".")[0] for name in list(sys.modules)}
    sizes: dict[Path, int] = {}
    for owner in {owner for name in imported for owner in owners.get(name, ())}:
        for file in distribution(owner).files or ():
            path = Path(str(file.locate()))
            if path.suffix != ".pyc" and path.is_file():
                sizes[path] = path.stat().st_size
    return round(sum(sizes.values()) / 2**20)


def main() -> None:
    """Run one loop and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m perception.bench.peers", description=__doc__)
    parser.add_argument("name", choices=list(LOOPS))
    for path in ("model", "network", "clip", "output"):
        parser.add_argument(path)
    parser.add_argument("frames", type=int)
    parser.add_argument("began", type=float, help="time.time() when the process was started")
    asked = parser.parse_args()
    clock = _Clock(asked.began)
    loop: Callable[..., None] = LOOPS[asked.name]
    loop(asked.model, Path(asked.network), Path(asked.clip), Path(asked.output), asked.frames, clock.tick)
    print(json.dumps(clock.figures()))


if __name__ == "__main__":
    main()
