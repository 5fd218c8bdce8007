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
Every = Annotated[
    str,
    typer.Option(
        metavar="N|auto",
        help="Read every N-th frame; auto: all, but let the network see only those that are needed, and move its "
        "results to the others with the picture.",
        rich_help_panel=INPUT,
    ),
]
MaxLoss = Annotated[
    float | None,
    typer.Option(
        min=0.001, max=0.5, help="Mean loss that --every auto may cost, as a part of the pixels and of the boxes.",
        show_default="0.01", rich_help_panel=INPUT,
    ),
]  # fmt: skip
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
    if path is None:
        return []
    from perception.batch import read_list

    try:
        data = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"the list of files cannot be read: {error.strerror}", path) from None
    found = read_list(os.fsdecode(data))
    if not found:
        raise UsageError("the list of files is empty", "standard input" if path == "-" else path)
    return found


MAX_LOSS = 0.01
"""Mean loss that ``--every auto`` may cost unless something else is said."""


def root_of(names: list[str]) -> Path | None:
    """Return the folder that all files of a list lie in; None where there is none, or no list."""
    if not names:
        return None
    from perception.batch import common_folder

    return common_folder(names)


def frames_to_see(every: str, max_loss: float | None) -> tuple[int, float | None]:
    """Return the step of reading, and the loss that is accepted, None where the network sees every frame.

    Raises:
        UsageError: it is neither a whole number above 0 nor ``auto``, or the loss is given without ``auto``.
    """
    if every == "auto":
        return 1, MAX_LOSS if max_loss is None else max_loss
    if not every.isdecimal() or not int(every):
        raise UsageError(f"--every takes a whole number from 1, or auto, not {every!r}")
    if max_loss is not None:
        raise UsageError("--max-loss is what --every auto may cost: give that, too")
    return int(every), None
