"""What `perception eval propagation` and `perception eval smoothing` measure on: videos, and labelled pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perception.commands.options import INPUT

if TYPE_CHECKING:
    from perception.card import SegmentationTask
    from perception.evaluation.folders import LabelFolder

Sources = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SOURCE]...", help="Videos; of 'synthetic:' the truth is known.", show_default="none"),
]
Images = Annotated[
    Path | None,
    typer.Option(
        help="Folder of labelled pictures, before each of which a moving camera is imitated.", show_default="none",
        rich_help_panel=INPUT,
    ),
]  # fmt: skip
Labels = Annotated[
    Path | None,
    typer.Option(
        help="Folder of label PNGs with the names of the pictures.", show_default="none", rich_help_panel=INPUT
    ),
]  # fmt: skip
Ignore = Annotated[
    list[int] | None,
    typer.Option(help="Label id to ignore; may be repeated.", show_default="none", rich_help_panel=INPUT),
]


def check_inputs(
    sources: Sequence[str] | None, images: Path | None, labels: Path | None, ignore: Sequence[int] | None
) -> None:
    """Check that there is something to measure on.

    Raises:
        UsageError: there is not, or ids to ignore are none.
    """
    from perception.errors import UsageError
    from perception.evaluation.folders import check_ignored

    if (images is None) != (labels is None) or not (sources or images):
        raise UsageError("give videos, or --images with --labels")
    check_ignored(ignore or ())


def labelled_folder(
    images: Path | None, labels: Path | None, task: SegmentationTask, ignore: Sequence[int] | None
) -> LabelFolder | None:
    """Open the labelled pictures, if any are given."""
    from perception.evaluation.folders import LabelFolder

    return None if images is None or labels is None else LabelFolder(images, labels, len(task.classes), ignore or ())
