"""The two consoles (Rich): results go to standard output, everything about them to standard error."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from perception.common.log_lines import JsonPrinter
from perception.errors import PerceptionError

WIDTH = 160
"""Columns of standard output where it is a pipe or a file, which has no width of its own; 80 would fold every table."""


@cache
def stderr() -> Console:
    """Return the console on standard error; its lines are JSON after `print_json_lines`."""
    if _json_lines:
        return Console(
            file=JsonPrinter(sys.stderr, time.time), force_terminal=False, color_system=None, emoji=False,
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    return Console(stderr=True, emoji=False, highlight=False, soft_wrap=True)


_json_lines = False


def print_json_lines(wanted: bool = True) -> None:
    """Let all that `stderr` prints be JSON, one object a line, without bars of progress; or text again."""
    global _json_lines
    _json_lines = wanted
    stderr.cache_clear()


@cache
def stdout() -> Console:
    """Return the console on standard output."""
    console = Console(emoji=False, highlight=False)
    return console if console.is_terminal else Console(emoji=False, highlight=False, width=WIDTH)


def complain(error: PerceptionError) -> None:
    """Print an error as one line on standard error, in the words of the command line."""
    unexpected = error.__cause__ is not None and not isinstance(error.__cause__, (PerceptionError, OSError))
    where = " (--debug shows where)" if unexpected else ""
    stderr().print(f"[bold red]error:[/] {escape(in_flags(str(error)))}{where}")


def in_flags(text: str) -> str:
    """Spell arguments of functions as flags: messages have them as code, such as ```overwrite=True```."""

    def flag(found: re.Match[str]) -> str:
        value = "" if found[2] == "True" else f" {found[2]}"
        return f"--{found[1].replace('_', '-')}{value}"

    return re.sub(r"`([a-z_]+)=([^`]+)`", flag, text)


def print_rows(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print a table of rows on standard output; columns are their keys, in order of appearance."""
    table = Table(title=title, title_justify="left", title_style="bold")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        numeric = all(isinstance(row.get(column, 0), (int, float)) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column, "")) for column in columns))
    stdout().print(table)


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else escape(str(value))
