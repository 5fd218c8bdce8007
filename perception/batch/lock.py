"""One batch at a time writes into a folder, and none begins while a worker of a killed one still runs."""

from __future__ import annotations

import os
import time
from pathlib import Path

from perception.errors import UsageError

WAIT_S = 20.0
"""Seconds for which the workers of a batch that was killed are waited for; they end by themselves within one."""


class FolderLock:
    """A lock of the system's on a folder, which ends with the process. Where there are none, nothing is locked.

    Args:
        folder: is there.
        shared: others may have it at the same time, if they share it too.
        wait_s: seconds to wait until it is free.

    Raises:
        UsageError: another process has it.
    """

    def __init__(self, folder: Path, *, shared: bool = False, wait_s: float = 0.0) -> None:
        self._descriptor: int | None = None
        try:
            import fcntl

            descriptor = os.open(folder, os.O_RDONLY)
        except (ImportError, OSError):  # Windows; a folder that may not be read
            return
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        ends = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= ends:
                    os.close(descriptor)
                    raise UsageError("another batch is writing into this folder; wait for its end", folder) from None
                time.sleep(0.05)
                continue
            except OSError:  # a file system without locks
                os.close(descriptor)
                return
            self._descriptor = descriptor
            return

    def release(self) -> None:
        """Give it back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
