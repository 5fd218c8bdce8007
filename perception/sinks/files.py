"""Output files: refused where they exist, created beside their name, never left looking finished when they are not."""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from perception.errors import SinkError, UsageError

log = logging.getLogger("perception")

STDOUT = "-"
STDOUT_NAME = "standard output"

PLACE_S = 1.0
"""An output is looked for under its name so often while it is written."""

_REASONS = {
    errno.ENOSPC: "the disk is full; everything written so far is kept",
    errno.EDQUOT: "the disk quota is used up; everything written so far is kept",
    errno.EFBIG: "the file has reached the largest size allowed here; everything written so far is kept",
    errno.EPIPE: "the reader closed the pipe",
    errno.EACCES: "no permission to write here; choose another place",
    errno.EPERM: "no permission to write here; choose another place",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.EEXIST: "created by another program meanwhile; give another name, or `overwrite=True` to replace it",
    errno.ENOENT: "no such folder; create it first",
    errno.ENOTDIR: "a part of this path is a file, not a folder",
    errno.EISDIR: "this is a folder, not a file",
}


def reason(error: BaseException) -> str:
    """Return one clause that says why writing failed, and what to do where that is known."""
    number = getattr(error, "errno", None)
    known = _REASONS.get(number) if isinstance(number, int) else None
    return known or getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextmanager
def sink_errors(where: str) -> Iterator[None]:
    """Turn the operating system's errors into ``SinkError``, naming the output."""
    try:
        yield
    except OSError as error:
        raise SinkError(reason(error), where) from error


def utf8(text: str) -> bytes:
    """UTF-8. Bytes of a file name that are none become what JSON has for them: ``caf\\udce9.mp4``."""
    return text.encode("utf-8", "backslashreplace")


def name_of(path: str | Path) -> str:
    """Return the name of this output in messages."""
    return STDOUT_NAME if str(path) == STDOUT else str(path)


def check_output(path: str | Path, overwrite: bool) -> Path:
    """Check that a file can be made here, before any work is done for it.

    Devices and named pipes may exist; they are written into. Folders that are missing are made by `make_folder`.

    Raises:
        UsageError: the file is there and ``overwrite`` is False, or it is a folder.
        SinkError: its folder is not writable.
    """
    path = Path(path)
    with sink_errors(str(path)):
        try:
            mode: int | None = path.stat().st_mode
        except FileNotFoundError:
            mode = None
    if mode is not None:
        if stat.S_ISDIR(mode):
            raise UsageError("this is a folder, not a file", path)
        if stat.S_ISREG(mode) and not overwrite:
            raise UsageError("the file exists; give another name, or `overwrite=True` to replace it", path)
        if not stat.S_ISREG(mode):
            return path
    check_folder(path.parent, path)
    return path


def check_folder(folder: Path, where: Path) -> None:
    """Check that files can be made in a folder, or it in the nearest one above it that exists.

    Raises:
        SinkError: they cannot.
    """
    exists = next((f for f in (folder, *folder.parents) if f.exists()), folder)
    if not exists.is_dir():
        raise SinkError(f"{exists} is a file, not a folder", where)
    if not os.access(exists, os.W_OK | os.X_OK):
        if hasattr(os, "statvfs") and os.statvfs(exists).f_flag & os.ST_RDONLY:
            raise SinkError(_REASONS[errno.EROFS], where)
        raise SinkError(f"no permission to write into the folder {exists}; choose another place", where)


def make_folder(folder: Path, where: str) -> None:
    """Make a folder, with those above it.

    Raises:
        SinkError: it cannot be made.
    """
    with sink_errors(where):
        folder.mkdir(parents=True, exist_ok=True)


def open_stdout() -> tuple[int | None, Any]:
    """Standard output: a descriptor of our own, or else, where it has none, the interpreter's binary stream.

    Closing the descriptor does not close the interpreter's, and nothing stays in the interpreter's buffer to fail once
    more at exit when the reader has gone.

    Raises:
        SinkError: it is closed.
    """
    if sys.stdout is None:
        raise SinkError("it is closed; give the output a file name", STDOUT_NAME)
    sys.stdout.flush()
    try:
        return os.dup(sys.stdout.fileno()), None
    except OSError:
        return None, sys.stdout.buffer


def check_not_source(path: Path, source: str | None) -> None:
    """Refuse to write over the file that is being read.

    Raises:
        UsageError: ``path`` and ``source`` are the same file.
    """
    if source is not None and path.exists() and Path(source).exists() and path.samefile(source):
        raise UsageError("this is the file that is being read; give the output another name", path)


class Place:
    """Whether a file that is being written is still under its name.

    A file that is open can be written to the end though it, its folder or its disk is gone, and nothing would tell.

    Args:
        path: the file.
        where: the output, for messages.
    """

    def __init__(self, path: Path, where: str) -> None:
        self._path = path
        self._where = where
        self._file = self._now()
        self._looked = time.monotonic()

    def _now(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None

    def is_there(self) -> bool:
        """Return whether it is; what is no ordinary file has no place to lose."""
        return self._file is None or self._now() == self._file

    def check(self, at_most_every_s: float = 0.0) -> None:
        """Look, unless it was looked not long ago.

        Raises:
            SinkError: the file is not there any more, or it is another one.
        """
        if self._file is None or time.monotonic() - self._looked < at_most_every_s:
            return
        self._looked = time.monotonic()
        now = self._now()
        if now != self._file:
            what = "another file took its name" if now else "it was moved or removed, or its disk is gone,"
            raise SinkError(f"{what} while it was being written", self._where)


class PartFile:
    """A file that is written beside its name, as ``NAME.part``, and gets its name when it is complete.

    Attributes:
        path: the name that it gets in the end; what a link points to.
        part: the name that it has until then.

    Raises:
        UsageError: as :func:`check_output`, or it is a device or a pipe, whose place the file would take.
        SinkError: as :func:`check_output`.
    """

    def __init__(self, path: str | Path, overwrite: bool) -> None:
        checked = check_output(path, overwrite)
        self.path = checked.resolve() if checked.is_symlink() else checked
        if self.path.exists() and not self.path.is_file():
            raise UsageError("this is a device or a pipe; an output of this kind needs a file", path)
        self.overwrite = overwrite
        self.part = self.path.with_name(self.path.name + ".part")

    def open(self) -> IO[bytes]:
        """Create it, and its folder.

        Raises:
            SinkError: it cannot be created.
        """
        make_folder(self.path.parent, str(self.path))
        with sink_errors(str(self.path)):
            return self.part.open("wb")

    def publish(self) -> None:
        """Give the complete file its name.

        Raises:
            UsageError: somebody made a file of that name meanwhile and ``overwrite`` is False.
            SinkError: it cannot be renamed.
        """
        if not self.overwrite and self.path.exists():
            raise UsageError(
                f"the file was created by another program meanwhile; the new one is {self.part.name}", self.path
            )
        try:
            self.part.replace(self.path)
        except FileNotFoundError as error:
            raise SinkError(f"{self.part.name} was moved or removed while it was being written", self.path) from error
        except OSError as error:
            raise SinkError(reason(error), self.path) from error

    def leave(self) -> None:
        """Say where the incomplete file is."""
        if self.part.exists():
            log.warning("%s: incomplete; the part that was written is in %s", self.path, self.part.name)


class LineFile:
    """Appends to a file or to standard output so that it always ends with a whole entry, even after a kill.

    Args:
        path: a file, a device, a named pipe, or ``-`` for standard output.
        overwrite: replace a file that is there.
        append: go on with a file that is there, which ends with a whole entry.

    Raises:
        UsageError, SinkError: as :func:`check_output`.
    """

    def __init__(self, path: str | Path, overwrite: bool = False, append: bool = False) -> None:
        self.where = name_of(path)
        self.path = None if str(path) == STDOUT else check_output(path, overwrite or append)
        self._append = append
        # what was there before this, in spite of that, is a device or a pipe
        self._exclusive = self.path is not None and not (overwrite or append) and not self.path.exists()
        self._fd: int | None = None
        self._buffer: Any = None
        self._place: Place | None = None
        self._size = 0

    def open(self) -> None:
        """Create the file.

        Raises:
            SinkError: it cannot be created.
        """
        if self.path is not None:
            make_folder(self.path.parent, self.where)
        with sink_errors(self.where):
            if self.path is None:
                self._fd, self._buffer = open_stdout()
            else:
                exclusive = os.O_EXCL if self._exclusive else 0
                begin = os.O_APPEND if self._append else os.O_TRUNC
                flags = os.O_WRONLY | os.O_CREAT | begin | exclusive | getattr(os, "O_BINARY", 0)
                self._fd = os.open(self.path, flags, 0o666)
                self._size = os.fstat(self._fd).st_size
                self._place = Place(self.path, self.where)

    def write(self, entry: bytes) -> None:
        """Append one entry, whole or not at all.

        Raises:
            SinkError: the disk is full, the reader has gone, and the like.
        """
        with sink_errors(self.where):
            if self._buffer is not None:
                self._buffer.write(entry)
                self._buffer.flush()
                return
            assert self._fd is not None, "write before open"
            if self._place is not None:
                self._place.check(PLACE_S)
            rest = memoryview(entry)
            try:
                while rest:
                    rest = rest[os.write(self._fd, rest) :]
            except OSError:
                self._cut_back()
                raise
            self._size += len(entry)

    def _cut_back(self) -> None:
        """Remove the part of an entry that did fit."""
        assert self._fd is not None
        if stat.S_ISREG(os.fstat(self._fd).st_mode) and self.path is not None:
            with suppress(OSError):
                os.ftruncate(self._fd, self._size)

    def close(self) -> None:
        """Close it; errors that the system kept until now, and a file that is gone, are raised as ``SinkError``."""
        fd, self._fd, self._buffer = self._fd, None, None
        place, self._place = self._place, None
        if fd is not None:
            with sink_errors(self.where):
                os.close(fd)
        if place is not None:
            place.check()
