"""Modules of this package that are run as programs of their own."""

from __future__ import annotations

import sys


def program(module: str) -> list[str]:
    """Return the command that runs a module in a process of its own.

    It imports from where this process does. ``python -m`` would look into the current folder first, where a file of
    anybody's may have the name of a library.
    """
    code = f"import sys; sys.path[:] = {sys.path!r}; import runpy; runpy.run_module({module!r}, run_name='__main__')"
    return [sys.executable, "-c", code]
