"""SIGHUP: the configuration is read again; but a server whose terminal has gone ends, as without this."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable


def on_hangup(reload: Callable[[], object], end: Callable[[], object]) -> None:
    """Call a function at each SIGHUP from now on, one at a time, in a thread. For the event loop of the main thread.

    Args:
        reload: what to call.
        end: called instead if SIGHUP comes because the terminal was closed that the server was started from.
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        return  # there is no such signal, or it cannot be waited for
    started_from_terminal = _has_terminal()
    one_at_a_time = threading.Lock()

    def work() -> None:
        with one_at_a_time:
            reload()

    def hung_up() -> None:
        if started_from_terminal and not _has_terminal():
            end()
        else:
            threading.Thread(target=work, name="perception-reload", daemon=True).start()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up)


def _has_terminal() -> bool:
    """Whether this process has a terminal that controls it."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
