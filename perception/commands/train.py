"""The command ``perception train``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from perception.commands.options import OUTPUT, Overwrite
from perception.errors import require


def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Training recipe (YAML), as in configs/train/.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="The .onnx file to write at the end.", show_default="best.onnx in the run's folder",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Root folder of the data.", show_default="data.root of the recipe")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of resuming an earlier run.")] = False,
    start: Annotated[
        Path | None,
        typer.Option(
            help="Model (a name or .onnx) or checkpoint to take initial weights from, where they fit.",
            show_default="network.start of the recipe",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:  # fmt: skip
    """Train a network by a recipe, then export the best checkpoint as a model with its accuracy in the card.

    [bold]Examples[/bold]

      perception train configs/train/camvid.yaml --data camvid -o camvid.onnx

      perception train mine.yaml --start street -o mine.onnx
    """
    require("torch", "train", "training")
    from perception.sinks.files import check_output
    from perception.training.export.release import release
    from perception.training.run.loop import train as run_training

    if output is not None:
        check_output(output, overwrite)  # hours before it is written
    log = logging.getLogger("perception.training")
    log.setLevel(min(log.getEffectiveLevel(), logging.INFO))  # the scores of each epoch, and where it resumed
    result = run_training(recipe, not fresh, data, start=start)
    model = output or result.best.with_suffix(".onnx")
    card = release(result.best, model, data)
    for name, value in card.metrics.items():
        typer.echo(f"{name:40} {value:.4f}")
    typer.echo(f"{model}")
