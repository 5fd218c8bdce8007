"""The version of the package."""

from __future__ import annotations

import subprocess
from pathlib import Path

__version__ = "0.2.0"

_CHECKOUT = Path(__file__).parents[2]


def full_version() -> str:
    """Return the version, and in a checkout its revision: ``0.2.0 (1a2b3c4d5e-dirty)``, dirty if files have changed."""
    if not (_CHECKOUT / ".git").exists():
        return __version__
    command = ["git", "-C", str(_CHECKOUT), "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return __version__
    return f"{__version__} ({done.stdout.strip()})" if done.returncode == 0 else __version__
