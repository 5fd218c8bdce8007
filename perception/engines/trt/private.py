"""Files that only their owner can read and write, and that are trusted only if that is so: what they hold is run."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_private(path: Path) -> bytes:
    """The bytes of such a file, or nothing where there is none that can be trusted."""
    try:
        return read_own(path)
    except (OSError, NotOwnError):
        return b""


class NotOwnError(Exception):
    """A file that belongs to somebody else, or that others can write."""


def read_own(path: Path) -> bytes:
    """The bytes of a file that belongs to this user, that nobody else can write, and that is no link.

    Raises:
        NotOwnError: it is another one.
        OSError: it cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or not is_own(status):
            raise NotOwnError(f"{path.name} belongs to somebody else, or others can write it")
        return file.read()


def is_own(status: os.stat_result) -> bool:
    """True where what has this status belongs to the user and nobody else can write it."""
    if not hasattr(os, "getuid"):
        return True  # Windows keeps a user's cache directory to the user
    return status.st_uid == os.getuid() and not status.st_mode & 0o022
