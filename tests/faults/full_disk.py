"""A disk that is full at a random write of each kind of output, while another output goes to one with room."""

from __future__ import annotations

import threading
from pathlib import Path

from perception.errors import SinkError
from perception.model import Model
from tests.faults.mounts import small_disk
from tests.faults.outputs import DOCUMENTS, FILES, VIDEOS, indices_of, looks_finished
from tests.faults.row import Outcome, Work
from tests.faults.running import annotate, loaded, sinks_in, threads_left

FRAMES = 150
PAGE = 4096
REORDERED = 4


def run(work: Work) -> Outcome:
    """Find how much each output takes; then give it a random part of that."""
    outcome = Outcome()
    with loaded(work.folder) as model:
        whole = work.folder / "whole"
        annotate(model, sinks_in(whole, FILES), frames=FRAMES)
        sizes = {output: _size(whole / name) for output, name in FILES.items()}
        expected = {output: indices_of(output, whole) for output in FILES}
        kept: dict[str, list[float]] = {}
        for number in range(work.count):
            for output in FILES:
                pages = work.random.randint(2, sizes[output] // PAGE - 1)
                with (
                    outcome.trial(f"{output}, {pages * PAGE} of {sizes[output]} bytes"),
                    small_disk(work.folder / f"{number}-{output}", pages * PAGE) as disk,
                ):
                    part = _fill(model, disk, output, work.folder / "other" / f"{number}-{output}", expected[output])
                    kept.setdefault(output, []).append(part / max(1, len(set(expected[output]))))
    for output, parts in kept.items():
        outcome.figures[output] = f"{min(parts):.0%} to {max(parts):.0%} kept"
    return outcome


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(-(-p.stat().st_size // PAGE) * PAGE for p in files)


def _fill(model: Model, disk: Path, output: str, other: Path, expected: list[int]) -> int:
    """Run until the disk is full; the frames that are kept."""
    before = set(threading.enumerate())
    error: SinkError | None = None
    try:
        annotate(model, sinks_in(disk, [output]) + sinks_in(other, ["jsonl", "mkv"]), frames=FRAMES)
    except SinkError as full:
        error = full
    assert error is not None, "no error, though it does not fit"
    assert "the disk is full" in str(error), str(error)
    assert FILES[output] in str(error), str(error)
    assert "\n" not in str(error), str(error)
    left = threads_left(before)
    assert not left, f"threads left: {left}"
    # What was written elsewhere is there.
    lines = indices_of("jsonl", other)
    assert lines == list(range(len(lines))), "the other output has gaps"
    assert len(indices_of("mkv", other)) >= len(lines) - 4, "the other video is short"
    if output in DOCUMENTS:
        assert not looks_finished(output, disk), "it looks finished"
        return 0
    if output not in VIDEOS:
        found = indices_of(output, disk)
    elif (disk / FILES[output]).stat().st_size:
        found = indices_of(output, disk)
        # Frames are stored in the order in which they are decoded: of the last ones some may be missing.
        assert found[: len(found) - REORDERED] == expected[: max(0, len(found) - REORDERED)], f"{output} has gaps"
        return len(found)
    else:
        found = []
    assert found == expected[: len(found)], f"frames {found[-5:]} are not the first {len(found)} of a whole run"
    return len(set(found))
