"""The commands ``perception classics train`` and ``perception classics tour``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perception.commands.options import Model
from perception.common.distribution import require
from perception.errors import PerceptionError
from perception.weights import DEFAULT_MODEL

classics = typer.Typer(
    no_args_is_help=True,
    help="""Train the classic networks, and draw the pictures of their tour.

    [bold]Examples[/bold]

      perception classics train configs/classics/lenet5-mnist.yaml

      perception classics tour pictures/
    """,
)


@classics.command("train")
def classics_train(
    recipes: Annotated[list[Path], typer.Argument(metavar="RECIPE", help="Recipes, as in configs/classics/.")],
    table_only: Annotated[bool, typer.Option("--table-only", help="Print the table without training.")] = False,
) -> None:
    """Train and export each recipe that is not trained yet, then print a table of all results.

    [bold]Example[/bold]

      perception classics train configs/classics/lenet5-mnist.yaml configs/classics/lenet5-v2-mnist.yaml
    """
    require("torch", "train", "training")
    from perception.classics.train import COMPARED, row, shipped, train_once
    from perception.commands.train import training_progress
    from perception.common.console import complain, print_rows
    from perception.training.recipes.read import read_config
    from perception.weights.library import model_paths

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
    if any("miou" in row for row in rows) and COMPARED in model_paths():
        rows.append(shipped())
    print_rows("classics", rows)
    if worst:
        raise typer.Exit(worst)


@classics.command("tour")
def classics_tour(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder for the PNGs.")],
    video: Annotated[
        str | None, typer.Option(help="A video, or any source; 'street': a sample clip.", show_default="a drawn scene")
    ] = None,
    at: Annotated[float, typer.Option(metavar="SECOND", min=0, help="Second of the video.")] = 2.0,
    model: Model = DEFAULT_MODEL,
    runs: Annotated[Path, typer.Option(help="Folder of the trained recipes.")] = Path("runs/classics"),
    only: Annotated[
        str | None, typer.Option(help="Only these pictures, comma-separated.", show_default="all of them")
    ] = None,
) -> None:
    """Draw the pictures of docs/classics.md; those that need networks not trained yet are left out and listed.

    [bold]Examples[/bold]

      perception classics tour pictures/

      perception classics tour pictures/ --video street.mp4 --only heat,panoptic
    """
    require("torch", "train", "the tour")
    from perception.classics.tour.pictures import PICTURES, make
    from perception.classics.tour.stop import DRAWN, stop_at
    from perception.common.console import complain
    from perception.common.settings import names
    from perception.sources.clips import find_clip

    chosen = names(only, PICTURES) or list(PICTURES)
    uri = find_clip("street").uri if video == "street" else video or DRAWN
    faults = make(folder, stop_at(uri, model, runs, at), chosen)
    for fault in faults:
        complain(fault)
    if faults:
        raise typer.Exit(max(fault.exit_code for fault in faults))
