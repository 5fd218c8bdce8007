"""The outcome of one source, and whether its outputs are there already."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from perception.annotate.outputs import FILES, STDOUT
from perception.errors import PerceptionError
from perception.pipeline import Report
from perception.sources.choice import Choice
from perception.sources.uri import exists


@dataclass
class Result:
    """The outcome of one source: a report, or the error that ended it, or neither where it was skipped.

    Attributes:
        source: what was opened.
        outputs: paths by kind.
        report: what was done, where nothing failed.
        error: what failed.
        skipped: its outputs were there already.
        number, total: its place among the sources, from 1.
        shared: kinds of outputs that are one file for all sources.
        unreadable: images of it that could not be read and were left out.
        pictures: whether its frames are images.
        name: what its outputs are called, with the folders that they lie in below those that were given.
        chosen: which of its images are taken; None: all.
        live: whether it is live; None until it was opened.
        published: where it is published, without what may be secret.
    """

    source: str
    outputs: dict[str, str] = field(default_factory=dict)
    report: Report | None = None
    error: PerceptionError | None = None
    skipped: bool = False
    number: int = 1
    total: int = 1
    shared: frozenset[str] = frozenset()
    unreadable: Sequence[str] = ()
    pictures: bool = False
    name: str = ""
    chosen: Choice | None = None
    live: bool | None = None
    published: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether all of the source was done."""
        return self.report is not None and not self.report.interrupted and not self.unreadable

    @property
    def own(self) -> dict[str, str]:
        """Paths by kind of the outputs that are not shared with other sources."""
        return {kind: path for kind, path in self.outputs.items() if kind not in self.shared}

    def is_there(self) -> bool:
        """Return whether all of its outputs exist, of the whole source."""
        return not self.is_unfinished() and all(_is_there(kind, Path(path)) for kind, path in self.outputs.items())

    def is_unfinished(self) -> bool:
        """Return whether an earlier run ended before the source did, and said so beside its outputs.

        Not so where all that is missing are images that could not be read, and they are still the same files.
        """
        return any(exists(_note(path)) and not _still(_note(path)) for path in self.own.values())

    def still_unreadable(self) -> tuple[str, ...]:
        """Return the images that an earlier run could not read, where they are still the same files."""
        return next((images for path in self.own.values() if (images := _still(_note(path)))), ())

    def there(self) -> set[str]:
        """Return the kinds of its own outputs that exist."""
        return {kind for kind, path in self.own.items() if path != STDOUT and _is_there(kind, Path(path))}

    def mark_unfinished(self, kinds: set[str]) -> None:
        """Say beside outputs of its own that they are not of the whole source."""
        for kind in kinds:
            with suppress(OSError):  # a full disk, perhaps, which is told already
                _note(self.own[kind]).write_text(self._missing(), encoding="utf-8")

    def mark_finished(self) -> None:
        """Take back what an earlier run said of its outputs."""
        for path in self.own.values():
            with suppress(OSError):
                _note(path).unlink(missing_ok=True)

    def _missing(self) -> str:
        """Return what a note says: the images that could not be read, with size and time; nothing if there is more."""
        if self.report is None or self.report.interrupted:
            return ""
        return json.dumps({path: file_state(Path(path)) for path in self.unreadable})


UNFINISHED = ".unfinished"
"""The ending of a file beside an output that is complete as a file, but not of the whole source.

It is empty, or an object of the images that could not be read: size in bytes and time of change in nanoseconds.
"""


def file_state(path: Path) -> list[int]:
    """Return size in bytes and time of change in nanoseconds; nothing where no file is."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return []
    return [status.st_size, status.st_mtime_ns]


def _still(note: Path) -> tuple[str, ...]:
    """Return the images that a note names, if it names any and all of them are as they were."""
    try:
        named = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    same = isinstance(named, dict) and all(state == file_state(Path(path)) for path, state in named.items())
    return tuple(named) if same else ()


def _note(path: str) -> Path:
    name = Path(path).name  # none of the working directory
    return Path(path).with_name(f"{name}{UNFINISHED}") if name else Path(path) / UNFINISHED


def _is_there(kind: str, path: Path) -> bool:
    if kind in FILES:
        return exists(path)
    if kind == "panoptic":
        return exists(path / "panoptic.json")
    try:
        return any(file.suffix == _PICTURES[kind] for file in path.iterdir())
    except OSError:  # told when it is written
        return False


_PICTURES = {"images": ".jpg", "pictures": ".jpg", "masks": ".png"}
"""The ending of the files in a folder, in which other sources' outputs may be too."""
