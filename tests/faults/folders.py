"""Folders that take no writes, and folders, files and disks that vanish while they are written to."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from perception.errors import SinkError
from perception.model import Model
from perception.types import Prediction
from tests.faults.mounts import make_read_only, small_disk, take_away
from tests.faults.outputs import FILES, indices_of
from tests.faults.row import Outcome, Work
from tests.faults.running import annotate, loaded, sinks_in, threads_left

FRAMES = 60
DISK = 64 << 20


def run(work: Work) -> Outcome:
    """Each fault, with each output."""
    outcome = Outcome()
    read_only = vanished = 0
    with loaded(work.folder) as model:
        for number in range(work.count):
            for output in FILES:
                place = work.folder / f"{number}-{output}"
                at = work.random.randrange(FRAMES)
                with outcome.trial(f"{output} into a read-only disk"), small_disk(place / "disk", DISK) as disk:
                    make_read_only(disk)
                    _ends(model, output, disk, place / "other", "read-only", None)
                    read_only += 1
                with outcome.trial(f"{output}, whose folder is removed at frame {at}"):
                    folder = place / "folder"
                    _ends(model, output, folder, place / "2", "", _at(at, lambda f=folder: _remove(f)))  # type: ignore[misc]
                    vanished += 1
                with (
                    outcome.trial(f"{output}, whose disk is pulled out at frame {at}"),
                    small_disk(place / "pulled", DISK) as disk,
                ):
                    _ends(model, output, disk, place / "3", "", _at(at, lambda d=disk: take_away(d)))  # type: ignore[misc]
                    vanished += 1
    outcome.figures["read-only"] = str(read_only)
    outcome.figures["vanished in the middle"] = str(vanished)
    return outcome


def _remove(folder: Path) -> None:
    """At once, though others make files in it."""
    gone = folder.rename(folder.with_name("gone"))
    shutil.rmtree(gone, ignore_errors=True)


def _at(frame: int, fault: Callable[[], object]) -> Callable[[Prediction], Prediction]:
    """A stage that makes the fault, once that frame comes."""

    def stage(prediction: Prediction) -> Prediction:
        if prediction.frame.index == frame:
            fault()
        return prediction

    return stage


def _ends(
    model: Model,
    output: str,
    folder: Path,
    other: Path,
    words: str,
    stage: Callable[[Prediction], Prediction] | None,
) -> None:
    """A run ends with one line that names the output, and another output is good."""
    before = set(threading.enumerate())
    error: SinkError | None = None
    try:
        sinks = sinks_in(folder, [output]) + sinks_in(other, ["jsonl"])
        annotate(model, sinks, frames=FRAMES, stages=[stage] if stage else [])
    except SinkError as found:
        error = found
    left = threads_left(before)
    assert not left, f"threads left: {left}"
    assert error is not None, "no error, though nothing is there"
    assert words in str(error) and FILES[output] in str(error) and "\n" not in str(error), str(error)
    if (other / FILES["jsonl"]).exists():
        found = indices_of("jsonl", other)
        assert found == list(range(len(found))), "the other output has gaps"
