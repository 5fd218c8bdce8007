"""Private files and folders: created with modes that let only their owner read and write.

What is read back from a cache is run, so it is trusted only if nobody else could write it.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from perception.errors import UsageError

log = logging.getLogger("perception")

_OTHERS = 0o077
_BINARY = getattr(os, "O_BINARY", 0)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing, for this user alone; one that is there is left as it is.

    Raises:
        OSError: it cannot be made.
    """
    for folder in reversed([path, *path.parents]):
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
    if not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))


def private_folder(path: Path) -> Path:
    """Make a folder as `make_folder`; one that is there and this user's own is closed to others.

    Raises:
        OSError: it cannot be made.
    """
    make_folder(path)
    _close_to_others(path)
    return path


def private_cache(*parts: str) -> Path:
    """Return a folder in the user's cache, for this user alone with all that lies above it in there.

    Raises:
        OSError: it cannot be made.
    """
    import platformdirs

    folder = private_folder(Path(platformdirs.user_cache_dir("perception")))
    for part in parts:
        folder = private_folder(folder / part)
    return folder


def private_file(path: Path) -> BinaryIO:
    """Create an empty file, opened for writing, that only its owner can read and write.

    Raises:
        OSError: it cannot be written, or is a link.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0) | _BINARY, 0o600)
    file = os.fdopen(handle, "wb")
    _close_to_others(path)
    return file


def reserve_private(path: Path) -> None:
    """Make sure that a file exists that only its owner can read and write; its contents stay.

    It is not opened where it is there: closing it again would take the locks away that this process has on it.

    Raises:
        OSError: it cannot be made.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        _close_to_others(path)


def _close_to_others(path: Path) -> None:
    """Remove the access of others to files of an earlier version; files of other users stay as they are."""
    if hasattr(os, "getuid"):  # Windows keeps a user's folders to the user
        with suppress(OSError):
            status = path.stat()
            if status.st_uid == os.getuid() and status.st_mode & _OTHERS:
                path.chmod(stat.S_IMODE(status.st_mode) & ~_OTHERS)


def warn_if_others_read(path: Path) -> None:
    """Warn if a file with a secret in it can be read by other users of this machine."""
    if hasattr(os, "getuid") and stat.S_ISREG(mode := path.stat().st_mode) and mode & 0o044:
        log.warning("%s: contains a secret, and other users of this machine can read it; chmod 600 it", path)


def read_secret(path: Path | None) -> str | None:
    """Read a password or token, the first line of a file: command lines are visible to all users of a machine.

    Raises:
        UsageError: the file cannot be read, or its first line is empty.
    """
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        warn_if_others_read(path)
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}", path) from None
    except UnicodeDecodeError:
        raise UsageError("is not text", path) from None
    if not lines or not lines[0].strip():
        raise UsageError("the first line must contain the password or token; it is empty", path)
    return lines[0].strip()


def read_private(path: Path) -> bytes:
    """Read a file that `perception.common.files.write_atomic` wrote; None if there is none that can be trusted."""
    try:
        return read_own(path)
    except (OSError, NotOwnError):
        return b""


class NotOwnError(Exception):
    """A file that belongs to another user, or that others can write to."""


def read_own(path: Path) -> bytes:
    """Read a file that belongs to this user, that nobody else can write to, and that is not a link.

    Raises:
        NotOwnError: it is another one.
        OSError: it cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or not is_own(status):
            raise NotOwnError(f"{path.name} belongs to another user, or others can write to it")
        return file.read()


def is_own(status: os.stat_result) -> bool:
    """Return whether a file with this status belongs to the user and nobody else can write to it."""
    if not hasattr(os, "getuid"):
        return True  # Windows keeps a user's cache directory to the user
    return status.st_uid == os.getuid() and not status.st_mode & 0o022
