"""Memory that the C library keeps for itself, given back to the system.

Decoders, encoders and network libraries work in many threads, and glibc gives threads arenas of their own: what is
freed there stays with the process, and grows with every viewer who comes and goes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache


@lru_cache(maxsize=1)
def _trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # not glibc
        return None
    return found


def give_back() -> bool:
    """Release the free pages of all arenas; takes milliseconds. Whether the C library can do that and had any."""
    trim = _trim()
    return trim is not None and bool(trim(0))
