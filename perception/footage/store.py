"""Where clips and snapshots are kept: files of one folder, within limits of bytes and days."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from perception.common.files import write_atomic
from perception.common.private import make_folder, private_folder
from perception.errors import UsageError

log = logging.getLogger("perception")

MIN_FREE_BYTES = 256 << 20
"""Nothing more is kept before the disk is full: others write there too."""

LEFT_BEHIND_S = 3600.0
"""A file that is not finished and has not grown for so long was left behind by a process that died."""

QUIET_S = 60.0
"""Seconds after a line in the log about the folder in which there is no other one."""

PART = ".part"
_NAME = re.compile(r"[0-9a-f]{32}\.(mp4|mkv|jpg)")


class FootageStore:
    """The files of clips and snapshots. Safe to use from any thread.

    Nothing in the folder is looked at but what has a name of this store, so it may hold other files. A file has its
    name only once it is whole; until then it ends in ``.part``.

    Args:
        folder: made when the first file is.
        limit_bytes: most that all files take; the oldest are deleted. None: no limit.
        keep_days: files are deleted when they are older. None: never.
        private: for this user alone.
        now: seconds since 1970, by which files are old.
    """

    def __init__(
        self,
        folder: Path,
        *,
        limit_bytes: int | None = None,
        keep_days: float | None = None,
        private: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._keep_s = None if keep_days is None else keep_days * 86400
        self._private = private
        self._now = now
        self._lock = threading.Lock()
        self._making: set[str] = set()
        self._quiet_until = 0.0
        self._files: dict[str, tuple[float, int]] = {}
        try:
            self._look()
        except OSError as error:
            raise UsageError(f"the folder of clips cannot be read: {error.strerror or error}", folder) from None
        self.clean()

    def _look(self) -> None:
        """Find what an earlier process left."""
        if not self.folder.exists():
            return
        found = {}
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if not _NAME.fullmatch(entry.name.removesuffix(PART)) or not entry.is_file(follow_symlinks=False):
                    continue
                status = entry.stat(follow_symlinks=False)
                if not entry.name.endswith(PART):
                    found[entry.name] = status.st_mtime, status.st_size
                elif self._now() - status.st_mtime > LEFT_BEHIND_S:
                    with suppress(OSError):
                        Path(entry.path).unlink()
        self._files = dict(sorted(found.items(), key=lambda item: item[1]))

    def new_name(self, suffix: str) -> str | None:
        """Return the name of a file that is about to be made; None where there is no room on the disk."""
        try:
            (private_folder if self._private else make_folder)(self.folder)
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            self._tell(error.strerror or str(error))
            return None
        if free < MIN_FREE_BYTES:
            self._tell("the disk is nearly full")
            return None
        name = f"{secrets.token_hex(16)}{suffix}"
        with self._lock:
            self._making.add(name)
        return name

    def part(self, name: str) -> Path:
        """Return where a file is written until it is whole."""
        return self.folder / f"{name}{PART}"

    def publish(self, name: str) -> None:
        """Give a file that is whole its name, and delete old ones.

        Raises:
            OSError: it is gone.
        """
        path = self.folder / name
        self.part(name).replace(path)
        self._keep(name, path.stat().st_size)

    def write(self, name: str, data: bytes) -> None:
        """Make a file of ``data``.

        Raises:
            OSError: it cannot be written.
        """
        write_atomic(self.folder / name, data)
        self._keep(name, len(data))

    def discard(self, name: str) -> None:
        """Give a file up that could not be made."""
        with self._lock:
            self._making.discard(name)
        with suppress(OSError):
            self.part(name).unlink(missing_ok=True)

    def find(self, name: str) -> Path | None:
        """Return the path of a file; None where the store has none of that name."""
        with self._lock:
            return self.folder / name if name in self._files else None

    def is_making(self, name: str) -> bool:
        """True while a file of that name is being made."""
        with self._lock:
            return name in self._making

    def clean(self) -> None:
        """Delete what is too old, or too much, the oldest first."""
        with self._lock:
            total = sum(size for _, size in self._files.values())
            most = total if self.limit_bytes is None else self.limit_bytes
            oldest = float("-inf") if self._keep_s is None else self._now() - self._keep_s
            for name, (since, size) in [*self._files.items()]:
                if total <= most and since >= oldest:
                    break
                try:
                    (self.folder / name).unlink(missing_ok=True)
                except OSError as error:  # in use, on Windows, or somebody's who may not: tried again
                    log.debug("%s: %s", name, error)
                    continue
                del self._files[name]
                total -= size

    def _tell(self, problem: str) -> None:
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET_S
            log.warning("%s: nothing is kept of events: %s", self.folder, problem)

    def _keep(self, name: str, size: int) -> None:
        with self._lock:
            self._making.discard(name)
            self._files[name] = self._now(), size
        self.clean()
