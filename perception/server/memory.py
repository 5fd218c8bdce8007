"""Limits on the free memory that the C library keeps instead of returning it to the system.

Decoders, encoders and network libraries work in many threads, and glibc gives threads arenas of their own, eight for
each core: what is freed there stays with the process, and grows with every viewer who comes and goes.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import lru_cache

ARENAS = 2
"""Number of arenas. More are no quicker, and up to 64 MB free at the end of each but the first is never returned."""

_M_ARENA_MAX = -8  # of glibc's malloc.h


@lru_cache(maxsize=4)
def _function(name: str) -> Callable[..., int] | None:
    """Return a function of the C library, or None where it has none of that name."""
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # not glibc
        return None
    return found


def share_arenas() -> bool:
    """Make all threads that are started from now on share `ARENAS`; False if the C library cannot do that.

    Who has set ``MALLOC_ARENA_MAX`` keeps that number.
    """
    mallopt = _function("mallopt")
    return mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ and bool(mallopt(_M_ARENA_MAX, ARENAS))


def give_back() -> bool:
    """Release the free pages of all arenas, in milliseconds; False if there were none or the C library cannot."""
    trim = _function("malloc_trim")
    return trim is not None and bool(trim(0))
