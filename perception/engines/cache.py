"""The folder of compiled models that are kept between runs, within a limit."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import platformdirs

from perception.common.private import private_cache

LIMIT_BYTES = 1 << 30

_log = logging.getLogger("perception")


def compiled_models_dir(engine: str) -> Path:
    """Return the folder in which an engine keeps compiled models; it may not exist."""
    return Path(platformdirs.user_cache_dir("perception")) / "compiled" / engine


def prepare_compiled_models_dir(engine: str, limit_bytes: int = LIMIT_BYTES) -> Path | None:
    """Create the folder and drop the files longest unused beyond ``limit_bytes``.

    Returns:
        The folder, or None where it cannot be written: the model is then compiled at every start.
    """
    folder = compiled_models_dir(engine)
    try:
        private_cache("compiled", engine)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        _log.debug("compiled models are not cached: %s: %s", folder, error.strerror or error)
        return None
    _prune(folder, limit_bytes)
    return folder


def _prune(folder: Path, limit_bytes: int) -> None:
    files = []
    for path in folder.rglob("*"):
        try:
            status = path.stat()
        except OSError:
            continue  # another process drops files too
        if path.is_file():
            # many systems never update the access time; then the oldest goes first
            files.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit_bytes:
            return
        try:
            path.unlink()
        except OSError as error:
            _log.debug("cannot remove %s: %s", path, error.strerror or error)
            continue
        total -= size
