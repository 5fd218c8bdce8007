"""Checksums of files that are read as a whole, in a list beside them as ``sha256sum`` writes it."""

from __future__ import annotations

import hashlib
from pathlib import Path

LIST = "SHA256SUMS"
"""Name of the list: ``sha256sum *.onnx > SHA256SUMS`` makes it, ``sha256sum -c SHA256SUMS`` checks all of it."""


def is_as_listed(path: Path, data: bytes) -> bool:
    """Return whether a file is what the list beside it says; true where there is no list, or the file is not in it.

    Args:
        path: the file.
        data: what it contains.
    """
    try:
        lines = path.with_name(LIST).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return True
    # Before the name stands a blank, or an asterisk for binary files.
    listed = {name[1:]: digest for digest, _, name in (line.rstrip().partition(" ") for line in lines)}
    digest = listed.get(path.name)
    return digest is None or digest.lower() == hashlib.sha256(data).hexdigest()
