"""Repair of the end of a fragmented MP4 after a failed write."""

from __future__ import annotations

import os
from pathlib import Path


def cut_to_whole_fragments(path: Path) -> int:
    """Remove a box at the end of an MP4 or MOV file that is not all there, and a fragment's header without its data.

    When the disk is full, the last fragment ends somewhere in a frame, and a decoder would stumble there.
    ISO/IEC 14496-12: a box is its size (4 bytes, or 8 after the name if the first 4 say 1), its name and its content.

    Args:
        path: the file; it is not changed if it is whole.

    Returns:
        The number of bytes that were removed.
    """
    total = path.stat().st_size
    with path.open("r+b") as file:
        whole, header_at = 0, None
        while whole + 8 <= total:
            file.seek(whole)
            head = file.read(16)
            size, name = int.from_bytes(head[:4], "big"), head[4:8]
            if size == 1:
                size = int.from_bytes(head[8:16], "big")
            if size < 8 or whole + size > total:
                break
            header_at = whole if name == b"moof" else None
            whole += size
        if header_at is not None:
            whole = header_at
        if whole < total:
            os.ftruncate(file.fileno(), whole)
    return total - whole
