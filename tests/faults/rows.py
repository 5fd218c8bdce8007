"""All rows, in the order of the table."""

from __future__ import annotations

from tests.faults import folders, full_disk, killed, memory, raising
from tests.faults.row import Row

ROWS: tuple[Row, ...] = (
    Row(
        "killed",
        "SIGKILL at a random moment of an annotation with ten outputs",
        "each output plays, or reads, to within the last second; no document looks finished",
        killed.run,
        count=100,
        quick=2,
    ),
    Row(
        "full-disk",
        "a disk that is full at a random write of each of 13 outputs",
        "one line says so; what was written is kept and valid; other outputs are whole; no document looks finished",
        full_disk.run,
        count=10,
        quick=1,
    ),
    Row(
        "raising",
        "a sink, a stage or the engine raises an error of any kind at a random frame, or a sink when it is closed",
        "the run ends with one line; all outputs are good up to there; no thread is left",
        raising.run,
        count=100,
        quick=4,
    ),
    Row(
        "folders",
        "a disk that is read-only; a folder that is removed and a disk that is pulled out in the middle; 13 outputs",
        "the run ends with one line that names the output; others are good; no thread is left",
        folders.run,
        count=5,
        quick=1,
    ),
    Row(
        "memory",
        "an annotation with a random part of the memory that it takes (control group, ulimit)",
        "it is whole, or ends with one line, or is killed by the kernel and its outputs are readable; it never hangs",
        memory.run,
        count=40,
        quick=2,
    ),
)
