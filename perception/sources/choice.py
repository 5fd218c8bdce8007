"""Which files of folders and globs are taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Choice:
    """Patterns that files must match, and must not.

    A pattern without ``/`` is compared with the name of a file, and of each folder between it and the one that was
    named; one with ``/`` with its path from there. ``*`` stands for any characters, ``/`` too, ``?`` for one, ``[ab]``
    for one of these; case counts.

    Attributes:
        include: a file must match one of them; empty: all do.
        exclude: a file must match none of them.
        root: the folder that was named.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    root: Path = Path()

    def below(self, root: Path) -> Choice:
        """Return the same for the files of a folder."""
        return replace(self, root=root)

    def takes(self, path: Path) -> bool:
        """Return whether a file is taken."""
        try:
            place = path.relative_to(self.root)
        except ValueError:
            place = path
        return (not self.include or _matches(place, self.include)) and not _matches(place, self.exclude)


def _matches(place: Path, patterns: Sequence[str]) -> bool:
    names = place.parts
    whole = place.as_posix()
    return any(
        fnmatchcase(whole, pattern) if "/" in pattern else any(fnmatchcase(name, pattern) for name in names)
        for pattern in patterns
    )
