"""The peak of a process's memory."""

from __future__ import annotations

import sys
from pathlib import Path


def peak_bytes() -> int | None:
    """The most memory that this process has held; None where the system does not tell.

    The figure of ``getrusage`` also counts what a parent held when it started the process: Linux has one that does not.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10
