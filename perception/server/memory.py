"""Memory: what the C library keeps of it instead of returning it to the system, and how many cameras there is some for.

Decoders, encoders and network libraries work in many threads, and glibc gives threads arenas of their own, eight for
each core: what is freed there stays with the process, and grows with every viewer who comes and goes.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import lru_cache

from perception.common.files import file_size
from perception.common.hardware import memory_bytes
from perception.errors import UsageError

ARENAS = 2
"""Number of arenas. More are no quicker, and up to 64 MB free at the end of each but the first is never returned."""

CAMERA_BYTES = 40_000_000
"""What is reckoned for a further camera of 1280x720: ``perception bench cameras`` measures less than half of it, of
files that nobody watches; a connection, a viewer and the drawn picture come on top."""

SERVER_BYTES = 600_000_000
"""What a server with one model takes before the first camera, rounded up."""

_M_ARENA_MAX = -8  # of glibc's malloc.h


@lru_cache(maxsize=4)
def _function(name: str) -> Callable[..., int] | None:
    """Return a function of the C library, or None where it has none of that name."""
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):  # not glibc
        return None
    return found


def cameras_that_fit(other_bytes: int = 0) -> int | None:
    """Return how many further cameras of 1280x720 there is memory for, or None where that cannot be told.

    Args:
        other_bytes: what will be needed besides.
    """
    known = memory_bytes()
    if known is None or not known[1]:
        return None
    return max(0, known[1] - other_bytes) // CAMERA_BYTES


def check_cameras(named: int, limit: int | None) -> str:
    """Check before a server starts that there is memory for its cameras.

    Args:
        named: sources that have a name.
        limit: streams that may be open at once, where the operator has said so.

    Returns:
        a warning in one line, if the operator's own limit is too high; else nothing.

    Raises:
        UsageError: there are more sources than there is memory for, and no limit.
    """
    fit = cameras_that_fit(SERVER_BYTES)
    wanted = named if limit is None else min(limit, named)
    if fit is None or wanted <= fit:
        return ""
    why = (
        f"this machine has memory for {fit} of {wanted} cameras ({file_size(CAMERA_BYTES)} for each at 1280x720, "
        f"{file_size(SERVER_BYTES)} for the server)"
    )
    if limit is not None:
        return f"{why}; `limits: {{streams: {limit}}}` allows more"
    raise UsageError(f"{why}: name fewer sources, or open fewer at once: `limits: {{streams: {max(fit, 1)}}}`")


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
