"""All rows, in the order of the table."""

from __future__ import annotations

from tests.faults import full_disk, killed, raising
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
)
