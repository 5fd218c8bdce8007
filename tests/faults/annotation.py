"""``perception annotate`` in a process of its own, that writes outputs of every kind."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.faults.outputs import DOCUMENTS, FILES, GROWING, VIDEOS
from tests.models import write_model

ROOT = Path(__file__).parents[2]
OTHERS = (*(kind for kind in GROWING if kind not in VIDEOS), *DOCUMENTS)
"""All outputs that are no video, of which a run has one."""

SOURCE = "synthetic:?size=320x240&fps=25&frames=1000000"
LIVE = f"{SOURCE}&live=1"


def model_in(folder: Path) -> Path:
    """A model of boxes and class maps."""
    return write_model(folder / "colors.onnx", classes=8, detection=True)


def command(model: Path, source: str, folder: Path, outputs: Iterable[str], *more: str) -> list[str]:
    """The command with these outputs, each of which `tests.faults.outputs.FILES` names."""
    words = [sys.executable, "-m", "perception", "annotate", source, "-m", str(model), "--quiet"]
    words += ["--stage", "tests.faults.boxes:boxes"]
    for output in outputs:
        words += ["-o" if output in VIDEOS else f"--{output}", str(folder / FILES[output])]
    return [*words, *more]


@contextmanager
def annotating(words: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """The process; killed at the end of the block if it still runs."""
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=ROOT, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def lines_in(path: Path) -> int:
    """Lines of a file that may not be there yet."""
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def until(condition: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Wait until ``condition()`` is true; an assertion fails where the process ends before, or it takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            assert process.stderr is not None
            raise AssertionError(f"it ended with {process.returncode}: {process.stderr.read()[-500:]}")
        assert time.monotonic() < deadline, "it does not get there"
        time.sleep(0.01)
