"""Faults of a data set: each with its file and value, all reported at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perception.errors import SourceError

FAULTS_SHOWN = 20
FILES_SHOWN = 10

_log = logging.getLogger("perception")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        where: the file, or the entry of a file.
        what: what is wrong, with the value.
        fatal: without mending it there is no result; else the entry is left out and the rest can be used.
    """

    where: str
    what: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def refuse(faults: Sequence[Fault], checked: int, where: str | Path, things: str = "samples") -> None:
    """Stop if there is a fatal fault, naming all; log the others.

    Args:
        faults: of the whole data set.
        checked: how many things were looked at.
        where: the data set.
        things: what they are called.

    Raises:
        SourceError: a fault is fatal; see `listing` for how many are spelt out.
    """
    fatal = [fault for fault in faults if fault.fatal]
    if fatal:
        raise SourceError(f"{len(fatal)} of {checked} {things} are faulty: {listing(fatal)}", where)
    if faults:
        _log.warning("faulty, but not used: %s", listing(faults))


def listing(faults: Sequence[Fault]) -> str:
    """Faults in one line, those of the same kind together; `FAULTS_SHOWN` kinds and `FILES_SHOWN` of each are told."""
    kinds: dict[str, list[str]] = {}
    for fault in faults:
        kinds.setdefault(fault.what, []).append(fault.where)
    told = []
    for what, where in list(kinds.items())[:FAULTS_SHOWN]:
        names = [where[0], *(Path(other).name for other in where[1:FILES_SHOWN])]
        more = f" and {len(where) - FILES_SHOWN} more" if len(where) > FILES_SHOWN else ""
        told.append(f"{', '.join(names)}{more}: {what}")
    rest = sum(map(len, list(kinds.values())[FAULTS_SHOWN:]))
    return "; ".join([*told, f"and {rest} more"] if rest else told)
