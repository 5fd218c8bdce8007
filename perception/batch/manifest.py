"""The manifest: what was made of which source, with which model and settings; a file in the folder of the outputs.

Its first line says what it is. A line with ``settings`` has those that its ``id`` stands for; every other line is about
a source, and the last one about it counts. While a batch runs, lines are added; at its end they are put in order. To
an object nothing can be added: there the lines are objects of their own meanwhile, in ``manifest.jsonl.parts``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from perception.common.files import write_atomic
from perception.common.objects import ObjectPath, is_object
from perception.common.objects import place as place_of
from perception.errors import UsageError
from perception.sinks.files import LineFile, sink_errors, utf8

NAME = "manifest.jsonl"
VERSION = 1


@dataclass(frozen=True)
class Entry:
    """What became of one source.

    Attributes:
        source: its path from the folder of the manifest, or its address.
        name: what its outputs are called.
        state: ``publishing``, and ``done`` once all its outputs are there.
        read: what the source was: size in bytes and time of change in nanoseconds, or what stands for them.
        outputs: paths from the folder of the manifest by kind.
        sizes: of the outputs: bytes of a file, number of files of a folder.
        frames: how many there are.
        boxes: how many were found, by class.
        unreadable: images of it that could not be read.
        settings: the ``id`` of those with which it was made.
    """

    source: str
    name: str
    state: str
    read: list[Any]
    outputs: dict[str, str]
    settings: str
    sizes: dict[str, int] = field(default_factory=dict)
    frames: int = 0
    boxes: dict[str, int] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)


class Manifest:
    """Entries by source, in memory and in the file.

    Args:
        folder: of the outputs, or what their names in a store begin with.

    Attributes:
        path: the file, or object.
        entries: by source.
        settings: by id, what was added last at the end.

    Raises:
        UsageError: the file is something else, or of a later version of the package.
    """

    def __init__(self, folder: Path | ObjectPath) -> None:
        self.folder = folder
        self.path = folder / NAME
        self.entries: dict[str, Entry] = {}
        self.settings: dict[str, dict[str, Any]] = {}
        self._file: LineFile | _Parts | None = None
        self._written: set[str] = set()
        try:
            lines = self.path.read_bytes().split(b"\n")
            if isinstance(self.path, ObjectPath):
                lines = [*lines[:-1], *_Parts(self.path).read(), b""]
        except FileNotFoundError:
            return
        except OSError as error:
            raise UsageError(f"cannot be read: {error.strerror}", str(self.path)) from None
        for number, line in enumerate(lines[:-1]):  # what stands behind the last line end was cut off by a kill
            self._read(line, first=number == 0)
        if len(lines) == 1:
            raise self._foreign()

    def _read(self, line: bytes, first: bool) -> None:
        try:
            data = json.loads(line)
            if first:
                version = data["manifest"]
                if version != VERSION:
                    raise UsageError(f"is of version {version}, and this perception knows {VERSION}", str(self.path))
            elif "id" in data:
                self.settings[data["id"]] = data["settings"]
            else:
                entry = Entry(**data)
                self.entries[entry.source] = entry
        except (ValueError, TypeError, KeyError):
            raise self._foreign() from None

    def _foreign(self) -> UsageError:
        return UsageError("is no manifest of a batch; choose another folder, or remove the file", str(self.path))

    def key(self, source: str) -> str:
        """Return how a source is called in the file."""
        return source if ":" in source and not Path(source).exists() else self.place(source)

    def source(self, entry: Entry) -> Path:
        """Return where the source of an entry is: its absolute path."""
        at = Path(entry.source) if isinstance(self.folder, ObjectPath) else self.folder / entry.source
        return Path(os.path.abspath(at))  # noqa: PTH100 (links stay as they are named)

    def place(self, path: str) -> str:
        """Return how an output is called in the file."""
        if isinstance(self.folder, ObjectPath):
            inside = path.startswith(f"{self.folder}/")
            return path[len(str(self.folder)) + 1 :] if inside else path if is_object(path) else _absolute(path)
        return path if is_object(path) else _relative(path, self.folder)

    def paths(self, entry: Entry) -> dict[str, Path | ObjectPath]:
        """Return where the outputs of an entry are, by kind."""
        return {kind: self._at(place) for kind, place in entry.outputs.items()}

    def _at(self, name: str) -> Path | ObjectPath:
        """Return where is what the file calls so."""
        if is_object(name) or (isinstance(self.folder, ObjectPath) and Path(name).is_absolute()):
            return place_of(name)
        return self.folder / name

    def unreadable(self, entry: Entry) -> tuple[str, ...]:
        """Return the paths of the images that could not be read."""
        there = [self._at(name) for name in entry.unreadable]
        return tuple(os.path.normpath(path) if isinstance(path, Path) else str(path) for path in there)

    def put_settings(self, key: str, settings: Mapping[str, Any]) -> None:
        """Say what an id stands for."""
        self.settings.pop(key, None)  # the latest stand last
        self.settings[key] = dict(settings)

    def put(self, entry: Entry) -> None:
        """Add what became of a source, in the file too.

        Raises:
            SinkError: the disk is full, and the like.
        """
        if self._file is None:
            self.write()  # without what a kill cut off
            self._file = _Parts(self.path) if isinstance(self.path, ObjectPath) else LineFile(self.path, append=True)
            self._file.open()
        lines = b""
        if entry.settings not in self._written:
            lines = _line({"id": entry.settings, "settings": self.settings[entry.settings]})
            self._written.add(entry.settings)
        self._file.write(lines + _line(asdict(entry)))
        self.entries[entry.source] = entry

    def write(self, order: Iterable[str] = ()) -> None:
        """Write the whole file anew, at once.

        Args:
            order: sources that come first.

        Raises:
            SinkError: it cannot be written.
        """
        self.close()
        used = self._written = {entry.settings for entry in self.entries.values()}
        keys = dict.fromkeys([*(key for key in order if key in self.entries), *sorted(self.entries)])
        lines = [_line({"manifest": VERSION})]
        lines += [
            _line({"id": key, "settings": settings}) for key, settings in self.settings.items() if key in used
        ]  # fmt: skip
        lines += [_line(asdict(self.entries[key])) for key in keys]
        with sink_errors(str(self.path)):
            if isinstance(self.path, ObjectPath):
                self.path.write_bytes(b"".join(lines))
                _Parts(self.path).remove()
            else:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(self.path, b"".join(lines))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class _Parts:
    """Lines that are added to an object, each an object of its own until all are put into one."""

    def __init__(self, path: ObjectPath) -> None:
        self._folder = ObjectPath(f"{path}.parts")
        self._count = 0

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def write(self, lines: bytes) -> None:
        place = self._folder / f"{self._count:08}"
        with sink_errors(str(place)):
            place.write_bytes(lines)
        self._count += 1

    def read(self) -> list[bytes]:
        return [line for path, _ in self._folder.files() for line in path.read_bytes().split(b"\n") if line]

    def remove(self) -> None:
        self._folder.remove_all()


def _relative(path: str | Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive
        return _absolute(path)


def _absolute(path: str | Path) -> str:
    return Path(os.path.abspath(path)).as_posix()  # noqa: PTH100 (links stay as they are named)


def _line(data: Any) -> bytes:
    return utf8(json.dumps(data, ensure_ascii=False, separators=(",", ":"))) + b"\n"
