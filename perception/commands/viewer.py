"""The desktop's viewer: opens what ``annotate --open`` has made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from perception.errors import UsageError

if TYPE_CHECKING:
    from perception.annotate import Outputs, Result

SHOWN = ("picture", "video", "subtitles", "pictures", "images")
"""Kinds of outputs that a viewer shows, the one that is opened first."""


def check_viewable(outputs: Outputs, batched: bool) -> None:
    """Check that something will be written that a viewer shows, and soon.

    Raises:
        UsageError: there will not be.
    """
    if batched:
        raise UsageError("--open shows what was just made, and a batch may be long; leave out one of them")
    if not any(kind in outputs.given() for kind in SHOWN):
        raise UsageError("--open shows a video or pictures: give -o OUT, or --images FOLDER")


def open_made(results: Sequence[Result]) -> None:
    """Open what was made of one source, or the folder that holds what was made of the first of several."""
    from perception.common.console import stderr

    made = [path for result in results if result.report is not None and (path := _shown(result.outputs)) is not None]
    if not made:
        return
    path = made[0] if len(results) == 1 else made[0].parent
    if typer.launch(str(path.absolute())):
        stderr().print(f"{path} cannot be opened: there is no desktop here, or no viewer of such files", markup=False)


def _shown(outputs: Mapping[str, str]) -> Path | None:
    return next((Path(outputs[kind]) for kind in SHOWN if kind in outputs), None)
