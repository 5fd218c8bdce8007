"""A batch on all cores, by processes and by a Ray cluster of this machine, compared with one process on one core.

A machine is seldom quiet. So what is compared are frames for each second of a core that no other program took: on a
quiet machine that is the frame rate divided by the cores. Cores that stand idle count as taken by nobody, and so
against the batch.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perception.annotate import Annotation, Outputs
from perception.batch import Batch
from perception.batch.made_by import decided
from perception.common.distribution import require
from perception.common.hardware import usable_cores
from perception.errors import PerceptionError, UsageError

FILE_FRAMES = 50
"""Frames of a file."""

FILES_A_SECOND = 1.0
"""So many files there are for each core and second, which is some more than one annotates at 1280x720."""

_WARM = 3
"""Of each process so many files are done, on average, before it is measured."""


def batch_rows(annotation: Annotation, clip: Path, seconds: float, folder: Path) -> list[dict[str, Any]]:
    """Measure one process on one core, one on all, one on each, a cluster, and the first again.

    Args:
        annotation: model, engine and precision.
        clip: its first `FILE_FRAMES` frames are each file.
        seconds: how long each is measured at least, after its processes have begun.
        folder: for files.

    Returns:
        a row for each, with its frames a second; seconds until the first file was done; cores that other programs took
        meanwhile; frames for each second of a core that they left; and that compared with one process on one core.

    Raises:
        UsageError: an optional dependency is missing, or the system pins no process to a core.
        PerceptionError: a file fails.
    """
    require("psutil", "dev", "bench batches")
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError("bench batches needs a system that pins processes to cores, such as Linux")
    count = usable_cores()
    files = _files(clip, int(count * seconds * FILES_A_SECOND) + 2 * _WARM * count + 2, folder / "in")
    with annotation.opened() as (model, _, _):
        annotation = decided(annotation, model)
    outputs = iter(range(100))

    def batch(**how: Any) -> Batch:
        out = folder / f"out{next(outputs)}"
        return Batch([str(files)], annotation, Outputs(video=f"{out}/", jsonl=f"{out}/"), **how)

    def alone() -> _Run:
        with _on_one_core() as core:
            return _measured(batch(jobs=1), 1, seconds, [core])

    everywhere = sorted(os.sched_getaffinity(0))
    before = alone()
    wide = _measured(batch(jobs=1), 1, seconds, everywhere)
    runs = {"1 process, all cores": wide, f"--jobs {count}": _measured(batch(jobs=count), count, seconds, everywhere)}
    try:
        runs["--cluster local"] = _measured(batch(cluster="local"), count, seconds, everywhere)
        skipped = None
    except UsageError as error:  # Ray is not installed
        skipped = str(error)
    after = alone()
    each = (before.each + after.each) / 2
    rows = [{"run": "1 process, 1 core", **_row(run, each)} for run in (before, after)]
    rows[1:1] = [{"run": name, **_row(run, each)} for name, run in runs.items()]
    return rows if skipped is None else [*rows, {"run": "--cluster local", "skipped": skipped}]


@dataclass(frozen=True)
class _Run:
    """Frames a second, seconds until the first file was done, cores others took, and frames a second of those left."""

    fps: float
    start_s: float
    others: float
    each: float


def _row(run: _Run, each: float) -> dict[str, Any]:
    return {
        "fps": round(run.fps, 1), "start_s": round(run.start_s, 1), "other_programs_cores": round(run.others, 2),
        "fps_each_core": round(run.each, 2), "efficiency": round(run.each / each, 3),
    }  # fmt: skip


def _measured(batch: Batch, processes: int, seconds: float, cores: Sequence[int]) -> _Run:
    """Run a batch until it has been measured for so long, or has ended.

    Args:
        batch: what is run.
        processes: how many it has.
        seconds: how long it is measured at least.
        cores: where it may run.
    """
    began, start_s, frames = time.monotonic(), 0.0, 0
    first, last = _Clock(cores), None
    results = batch.run()
    try:
        for number, result in enumerate(results, 1):
            if result.error is not None or result.report is None:
                raise result.error or PerceptionError("has not been annotated", result.source)
            if number == 1:
                start_s = time.monotonic() - began
            if number <= _WARM * processes:
                first = _Clock(cores)
                continue
            frames, last = frames + result.report.frames, _Clock(cores)
            if last.wall - first.wall >= seconds:
                break
    finally:
        results.close()
    if batch.summary.interrupted:
        raise KeyboardInterrupt
    if last is None:
        raise PerceptionError("the batch has ended before it was measured; give it more files")
    passed = last.wall - first.wall
    others = max(0.0, (last.busy - first.busy) - (last.own - first.own)) / passed
    left = max(len(cores) - others, 1e-3)
    return _Run(frames / passed, start_s, others, frames / passed / left)


class _Clock:
    """What has passed until now: seconds on the wall, seconds in which some cores were busy, and of those our own."""

    def __init__(self, cores: Sequence[int]) -> None:
        import psutil

        self.wall = time.monotonic()
        each = psutil.cpu_times(percpu=True)
        # Of a virtual machine its host takes some time, too: all that is not idle counts.
        self.busy = self.wall * len(cores) - sum(each[i].idle + getattr(each[i], "iowait", 0.0) for i in cores)
        self.own = 0.0
        me = psutil.Process()
        for process in (me, *me.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                self.own += sum(process.cpu_times()[:2])


@contextmanager
def _on_one_core() -> Iterator[int]:
    """Let this thread, and the processes that it starts, run on one core only; gives its number."""
    before = os.sched_getaffinity(0)
    core = min(before)
    os.sched_setaffinity(0, {core})
    try:
        yield core
    finally:
        os.sched_setaffinity(0, before)


def _files(clip: Path, count: int, folder: Path) -> Path:
    """Make a folder of files that are all the same; they need no more room than one, where the system can."""
    folder.mkdir()
    first = folder / f"000000{clip.suffix}"
    shutil.copyfile(clip, first)
    for number in range(1, count):
        path = folder / f"{number:06d}{clip.suffix}"
        try:
            os.link(first, path)
        except OSError:
            shutil.copyfile(clip, path)
    return folder
