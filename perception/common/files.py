"""Files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DRAFTS = ".new-"
"""The beginning of the names of files that are being written; those of a process that died are left behind."""


def file_size(size_bytes: float) -> str:
    """Write a number of bytes as people read it: ``812 bytes``, ``3.4 MB``."""
    if size_bytes < 999.95:
        return f"{size_bytes:.0f} byte{'' if size_bytes == 1 else 's'}"
    value, units = float(size_bytes), ["bytes", "kB", "MB", "GB"]
    while value >= 999.95 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.1f}".removesuffix(".0") + f" {units[0]}"


def write_atomic(path: Path, data: bytes, *, private: bool = False) -> None:
    """Write a file, which appears under its name whole or not at all.

    Args:
        path: the file, in a folder that is there; one of that name is replaced.
        data: its content.
        private: only its owner may read and write it, and it is on the disk before it has its name.

    Raises:
        OSError: it cannot be written.
    """
    draft = path.with_name(f"{DRAFTS}{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    handle = os.open(draft, flags, 0o600 if private else 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if private:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` for others to write to; it replaces ``path`` when all went well.

    Raises:
        OSError: the folder cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{DRAFTS}{path.name[:40]}.") as folder:
        draft = Path(folder) / path.name
        yield draft
        draft.replace(path)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 18):
            digest.update(chunk)
    return digest.hexdigest()
