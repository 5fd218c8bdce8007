"""Small disks of their own, for root: memory that is mounted, and taken away whatever happens."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.row import NotHere


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of ``size`` bytes at ``folder`` for as long as the block lasts.

    Raises:
        NotHere: the system does not allow it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        take_away(folder)


def make_read_only(folder: Path) -> None:
    """The file system at ``folder`` takes no more writes; files must not be open in it."""
    _mount("-o", "remount,ro", str(folder))


def take_away(folder: Path) -> None:
    """The file system at ``folder`` is gone from its place, as a disk that is pulled out; open files go on."""
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


def _mount(*arguments: str) -> None:
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    except OSError as error:
        raise NotHere(f"mount: {error}") from None
    if done.returncode:
        raise NotHere(f"mount {' '.join(arguments)}: {done.stderr.strip()}")
