"""The command ``perception doctor``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from perception.commands.options import Json, JsonFile

if TYPE_CHECKING:
    from perception.diagnostics.doctor import Check

_MARKS = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "missing": "[red]missing[/]"}


def doctor(as_json: Json = False, json_file: JsonFile = None) -> None:
    """Show what this machine can run, what is missing, and how to get it.

    [bold]Examples[/bold]

      perception doctor

      perception doctor --json
    """
    from perception.commands.terminal import write_json
    from perception.diagnostics.doctor import diagnose

    checks = diagnose()
    if not write_json([asdict(check) for check in checks], as_json, json_file):
        _print(checks)


def _print(checks: Sequence[Check]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from perception.common.console import stdout

    table = Table(show_header=False, box=None, pad_edge=False)
    group = None
    for check in checks:
        if check.group != group:
            group = check.group
            table.add_row(f"[bold]{escape(group)}[/]")
        detail = escape(check.detail) + (f"\n[dim]{escape(check.hint)}[/]" if check.hint else "")
        table.add_row(f"  {escape(check.name)}", _MARKS[check.status], detail)
    stdout().print(table)
