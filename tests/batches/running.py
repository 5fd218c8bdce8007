"""Batches in processes of their own, which tests may kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.media import make_video

LONGEST_S = 300.0


def make_clips(folder: Path, count: int) -> Path:
    """Short clips in three folders, with the same names in each, of 3 to 6 frames."""
    for i in range(count):
        place = folder / f"camera{i % 3}"
        place.mkdir(parents=True, exist_ok=True)
        make_video(place / f"clip{i // 3}.mp4", frames=3 + i % 4)
    return folder


def command(folder: Path, model: str, out: Path, *more: str) -> list[str]:
    """Words of a batch of two processes that writes videos and JSON Lines; no precision is measured first."""
    words = ["annotate", str(folder), "--recursive", "-m", model, "-o", f"{out}/", "--jsonl", f"{out}/"]
    return [*words, "--precision", "fp32", "--jobs", "2", "--resume", *more]


@contextmanager
def started(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Start it in a group of its own; nothing of the group is left at the end."""
    line = [sys.executable, "-m", "perception", *words]
    process = subprocess.Popen(line, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The process ids of its workers."""
    found = []
    for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        with suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
    return found


def is_running(pid: int) -> bool:
    """Whether there is such a process, and not only its entry for a parent that has not asked for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def done_in(out: Path) -> int:
    """How many sources the manifest says are done."""
    try:
        return (out / "manifest.jsonl").read_bytes().count(b'"state":"done"')
    except OSError:
        return 0


def until(
    ready: Callable[[], bool], process: subprocess.Popen[str] | None = None, longest_s: float = LONGEST_S
) -> None:
    """Wait for it; the process must not end before."""
    ends = time.monotonic() + longest_s
    while not ready():
        assert process is None or process.poll() is None, f"it ended: {process.communicate()}"
        assert time.monotonic() < ends, "it takes too long"
        time.sleep(0.005)


def tree(folder: Path) -> dict[str, bytes]:
    """All files of a folder, hidden ones too."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
