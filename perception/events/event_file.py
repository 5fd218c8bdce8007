"""Events appended to a file, as JSON Lines, which is changed for a new one when it is large."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from perception.common.private import make_folder
from perception.events.outbox import Letter
from perception.events.target import DeliveryError, Target

_LOOKED_BACK = 1 << 20
_BEGINNING = b'{"schema":'


class EventFile(Target):
    """Appends each event as a line of JSON; a line is there whole or not at all.

    When the file would become larger than ``limit_bytes`` it is renamed to ``NAME.1``, and those before it up to
    ``NAME.KEEP``. An event that the end of the file has already, because the process ended before it could note so, is
    not written again.

    Args:
        path: the file.
        limit_bytes: most that one file takes.
        keep: files kept beside the one that is written.
    """

    batch: ClassVar[int] = 256

    def __init__(self, path: Path, limit_bytes: int = 100 << 20, keep: int = 4) -> None:
        self.name = f"file {path}"
        self._path = path
        self._limit = limit_bytes
        self._keep = keep
        self._known: set[str] | None = None

    def deliver(self, letters: Sequence[Letter], accepted: Callable[[str], None]) -> None:
        try:
            if self._known is None:
                make_folder(self._path.parent)
                self._known = self._mend()
            for letter in letters:
                if letter.id not in self._known:
                    self._append(f"{letter.body}\n".encode())
                accepted(letter.id)
            self._known.clear()
        except OSError as error:
            raise DeliveryError(error.strerror or type(error).__name__) from None

    def _append(self, line: bytes) -> None:
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            size = os.fstat(handle).st_size
            if size and size + len(line) > self._limit:
                os.close(handle)
                handle = -1
                self._rotate()
                handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                size = os.fstat(handle).st_size
            try:
                rest = memoryview(line)
                while rest:
                    rest = rest[os.write(handle, rest) :]
            except OSError:
                os.ftruncate(handle, size)
                raise
        finally:
            if handle >= 0:
                os.close(handle)

    def _rotate(self) -> None:
        for number in range(self._keep, 0, -1):
            older = self._path if number == 1 else self._path.with_name(f"{self._path.name}.{number - 1}")
            if older.exists():
                older.replace(self._path.with_name(f"{self._path.name}.{number}"))
        self._path.unlink(missing_ok=True)  # with `keep` of 0

    def _mend(self) -> set[str]:
        """Cut off a line that a power cut left half written; return the ids of the last lines."""
        try:
            with self._path.open("r+b") as file:
                size = file.seek(0, os.SEEK_END)
                start = file.seek(max(0, size - _LOOKED_BACK))
                tail = file.read()
                whole = tail.rfind(b"\n") + 1
                if tail[whole:].startswith(_BEGINNING) or _BEGINNING.startswith(tail[whole:]):
                    file.truncate(start + whole)
                elif whole < len(tail):  # a line of somebody else
                    file.write(b"\n")
        except FileNotFoundError:
            return set()
        found = set()
        for line in tail[:whole].splitlines():
            try:
                found.add(str(json.loads(line)["id"]))
            except (ValueError, KeyError, TypeError):  # the first one, cut by where we began, or one of others
                continue
        return found
