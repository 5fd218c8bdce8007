"""Options of ``perception annotate`` for what is read: which files, and which part of each."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from perception.commands.options import INPUT
from perception.errors import UsageError


def _list_is_enough(ctx: typer.Context, path: str | None) -> str | None:
    if path is not None:  # no SOURCE need be given: an empty one stands for it
        ctx.default_map = {**(ctx.default_map or {}), "sources": [""]}
    return path


Recursive = Annotated[
    bool, typer.Option("--recursive", "-r", help="Search subfolders of folders too.", rich_help_panel=INPUT)
]  # fmt: skip
Start = Annotated[float, typer.Option(min=0, help="Start at this second.", rich_help_panel=INPUT)]
Duration = Annotated[
    float | None,
    typer.Option(min=0, help="Read this many seconds.", show_default="to the end", rich_help_panel=INPUT),
]  # fmt: skip
Every = Annotated[int, typer.Option(min=1, help="Read every N-th frame.", rich_help_panel=INPUT)]
MaxFrames = Annotated[
    int | None, typer.Option(min=1, help="Stop after N frames.", show_default="no limit", rich_help_panel=INPUT)
]  # fmt: skip
Timeout = Annotated[
    float, typer.Option(min=0.1, help="Seconds to wait for a stream.", rich_help_panel=INPUT)
]  # fmt: skip
Include = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB", show_default="all", rich_help_panel=INPUT,
        help="Of folders and globs take only files whose name matches, or that of a folder on the way; repeatable.",
    ),
]  # fmt: skip
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GLOB", show_default="none", rich_help_panel=INPUT,
        help="Leave out files of folders and globs whose name matches, or that of a folder on the way; repeatable.",
    ),
]  # fmt: skip
FilesFrom = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", show_default="none", rich_help_panel=INPUT,
        help="List of sources, one a line or as of `find -print0` ('-': standard input).",
        is_eager=True, callback=_list_is_enough,
    ),
]  # fmt: skip


def listed(path: str | None) -> list[str]:
    """Read the sources that a file or standard input lists; none where there is no list.

    Raises:
        UsageError: it cannot be read, or lists none.
    """
    from perception.batch import read_list

    if path is None:
        return []
    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"the list of files cannot be read: {error.strerror}", path) from None
    found = read_list(os.fsdecode(data))
    if not found:
        raise UsageError("the list of files is empty", "standard input" if path == "-" else path)
    return found
