"""An annotation that may have less memory than it takes: as the kernel kills it, and as allocations fail."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.faults.annotation import OTHERS, annotating, command, model_in
from tests.faults.outputs import DOCUMENTS, FILES, indices_of, looks_finished
from tests.faults.row import NotHere, Outcome, Work

GROUPS = Path("/sys/fs/cgroup/memory")
FRAMES = 200
SOURCE = f"synthetic:?size=640x480&fps=25&frames={FRAMES}"
TIMEOUT_S = 300
DEATHS = (signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS)
"""Libraries in C++ end the process where they get no memory; what was written must be there all the same."""


@contextmanager
def limited(limit: int | None) -> Iterator[Path]:
    """A control group whose processes have no more than ``limit`` bytes.

    Raises:
        NotHere: the system has no such groups, or does not allow them.
    """
    group = GROUPS / f"perception-faults-{os.getpid()}-{time.monotonic_ns()}"
    try:
        group.mkdir()
    except OSError as error:
        raise NotHere(f"control groups for memory: {error}") from None
    try:
        if limit is not None:
            (group / "memory.limit_in_bytes").write_text(str(limit))
        yield group
    finally:
        _remove(group)


def _remove(group: Path, seconds: float = 60) -> None:
    """The group, with what a process that was killed had started, once that has ended."""
    until = time.monotonic() + seconds
    while True:
        for process in (group / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
        try:
            group.rmdir()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def run(work: Work) -> Outcome:
    """Measure what it takes, then give it a part of that; half the times as a limit of addresses (``ulimit -v``)."""
    outcome = Outcome()
    model = model_in(work.folder)
    with limited(None) as group:
        ended, said = _run(model, work.folder / "whole", _into(group))
        peak = int((group / "memory.max_usage_in_bytes").read_text())
    outcome.check(ended == 0, f"without a limit it ended with {ended}: {said}")
    ends: dict[str, int] = {}
    for number in range(work.count):
        part = work.random.uniform(0.1, 1.0)
        folder = work.folder / str(number)
        by_group = number % 2 == 0
        with outcome.trial(f"{part:.0%} of {peak >> 20} MB by {'a control group' if by_group else 'ulimit -v'}"):
            if by_group:
                with limited(int(part * peak)) as group:
                    ended, said = _run(model, folder, _into(group))
            else:
                size = int(part * 6 * peak)  # addresses are many more than pages
                ended, said = _run(model, folder, lambda s=size: resource.setrlimit(resource.RLIMIT_AS, (s, s)))  # type: ignore[misc]
            word = {0: "whole", -9: "killed by the kernel", 1: "one line"}.get(ended, "ended by a library")
            ends[word] = ends.get(word, 0) + 1
            _check(folder, ended, said)
    outcome.figures["takes"] = f"{peak >> 20} MB"
    for word, count in sorted(ends.items()):
        outcome.figures[word] = str(count)
    return outcome


def _into(group: Path) -> Callable[[], object]:
    return lambda: (group / "cgroup.procs").write_text(str(os.getpid()))


def _run(model: Path, folder: Path, before: Callable[[], object]) -> tuple[int, str]:
    with annotating(command(model, SOURCE, folder, ("mp4", *OTHERS)), preexec_fn=before) as process:
        try:
            said = process.communicate(timeout=TIMEOUT_S)[1]
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it hangs for {TIMEOUT_S} s") from None
    return process.returncode, said


def _check(folder: Path, ended: int, said: str) -> None:
    if ended == 0:
        for output in ("mp4", *OTHERS):
            assert len(set(indices_of(output, folder))) == FRAMES, f"{output} is not whole, though it ended with 0"
        return
    if ended == 1:
        lines = [line for line in said.splitlines() if line.startswith("error:")]
        assert "Traceback" not in said and len(lines) == 1, f"it says {said[-600:]}"
    for output in DOCUMENTS:
        if looks_finished(output, folder):  # it was closed, and others were not yet
            assert len(set(indices_of(output, folder))) == FRAMES, f"{output} looks finished after {ended}"
    if (folder / FILES["jsonl"]).exists():
        indices_of("jsonl", folder)
        for output in ("csv", "images"):
            if (folder / FILES[output]).exists():
                indices_of(output, folder)
    assert ended == 1 or -ended in DEATHS, f"it ended with {ended}: {said[-600:]}"
