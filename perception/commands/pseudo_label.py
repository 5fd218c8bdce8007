"""The command ``perception pseudo-label``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perception.commands.options import Overwrite


def pseudo_label(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe (YAML), as in configs/labels/.")],
    data: Annotated[
        Path | None, typer.Option(help="Root folder of the pictures.", show_default="root of the recipe")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Label pictures with the networks of others, to train on: class ids as PNGs, unknown where the networks disagree.

    An interrupted run continues where it was; labels of other teachers, or of another recipe, are made anew.

    [bold]Example[/bold]

      perception pseudo-label configs/labels/street-open.yaml
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from perception.common.console import stderr
    from perception.training.pseudo_labels.label import make_labels
    from perception.training.pseudo_labels.recipe import read_labels_recipe

    config = read_labels_recipe(recipe, data)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=stderr(), transient=True) as bar:
        rows = {str(part.images): bar.add_task(str(part.images), total=None) for part in config.sets}

        def on_progress(name: str, done: int, total: int) -> None:
            bar.update(rows[name], completed=done, total=total)

        for made in make_labels(config, overwrite, on_progress, recipe):
            bar.console.print(
                f"{made.output}: {made.pictures} pictures, {made.known:.0%} of their pixels labelled", highlight=False
            )
