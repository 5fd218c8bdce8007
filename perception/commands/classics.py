"""The commands ``perception classics train`` and ``perception classics tour``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perception.errors import PerceptionError, require

classics = typer.Typer(help="The classic networks: train their recipes, draw the tour.", no_args_is_help=True)


@classics.command("train")
def classics_train(
    recipes: Annotated[list[Path], typer.Argument(metavar="CONFIG", help="Recipes, as in configs/classics/.")],
    table_only: Annotated[bool, typer.Option("--table-only", help="Train nothing, print the table.")] = False,
) -> None:
    """Train and export each recipe that is not trained yet, then print a table of what all have reached."""
    require("torch", "train", "training")
    from perception.classics.train import row, shipped, train_once
    from perception.commands.terminal import complain, print_rows
    from perception.commands.train import training_progress
    from perception.training.recipes.read import read_config

    worst, rows = 0, []
    for recipe in recipes:
        try:
            if not table_only:
                with training_progress() as on_progress:
                    train_once(recipe, on_progress)
            rows.append(row(read_config(recipe)))
        except PerceptionError as error:  # one recipe without its data must not cost the others
            complain(error)
            worst = max(worst, error.exit_code)
    if any("miou" in row for row in rows):
        rows.append(shipped())
    print_rows("classics", rows)
    if worst:
        raise typer.Exit(worst)


@classics.command("tour")
def classics_tour(
    folder: Annotated[Path, typer.Argument(help="For the PNGs.")],
    video: Annotated[
        str | None, typer.Option(help="Scene: a video, 'street' for a sample clip, or any source; else a drawn one.")
    ] = None,
    at: Annotated[float, typer.Option(metavar="SECOND", min=0, help="Second of the video.")] = 2.0,
    model: Annotated[str, typer.Option("--model", "-m", help="Name or .onnx file of the model.")] = "street",
    runs: Annotated[Path, typer.Option(help="Folder of the trained recipes.")] = Path("runs/classics"),
    only: Annotated[str | None, typer.Option(help="Only these pictures, comma-separated.")] = None,
) -> None:
    """Draw the pictures of docs/classics.md; what needs networks that are not trained yet is left out, and named."""
    require("torch", "train", "the tour")
    from perception.classics.tour.pictures import PICTURES, make
    from perception.classics.tour.stop import DRAWN, stop_at
    from perception.commands.terminal import complain
    from perception.common.settings import names
    from perception.sources.clips import find_clip

    chosen = names(only, PICTURES) or list(PICTURES)
    uri = find_clip("street").uri if video == "street" else video or DRAWN
    faults = make(folder, stop_at(uri, model, runs, at), chosen)
    for fault in faults:
        complain(fault)
    if faults:
        raise typer.Exit(max(fault.exit_code for fault in faults))
