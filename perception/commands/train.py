"""The command ``perception train``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perception.commands.options import OUTPUT, Overwrite
from perception.common.distribution import require

if TYPE_CHECKING:
    from perception.training.run.progress import OnProgress, TrainProgress


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
    stop_after: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="EPOCHS", help="Stop once this many epochs are done in total, and export nothing.",
            show_default="epochs of the recipe",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:  # fmt: skip
    """Train a network from a recipe, then export the best checkpoint as a model with its accuracy in the card.

    [bold]Examples[/bold]

      perception train configs/train/camvid.yaml --data camvid -o camvid.onnx

      perception train mine.yaml --start street -o mine.onnx

      torchrun --nproc-per-node 4 -m perception train mine.yaml
    """
    require("torch", "train", "training")
    import perception.classics  # noqa: F401 - its networks and its task can be trained, too
    from perception.sinks.files import check_output
    from perception.training.export.release import release
    from perception.training.run.loop import train as run_training

    if output is not None:
        check_output(output, overwrite)  # hours before it is written
    with training_progress() as on_progress:
        result = run_training(recipe, not fresh, data, stop_after, start, on_progress)
    if not result.is_first:
        return
    if stop_after is not None:
        score = f"best score {result.score:.4f}" if result.score >= 0 else "not measured yet"
        typer.echo(f"{result.epochs} epochs, {score}: {result.best}")
        return
    model = output or result.best.with_suffix(".onnx")
    card = release(result.best, model, data)
    for name, value in card.metrics.items():
        typer.echo(f"{name:40} {value:.4f}")
    typer.echo(f"{model}")


@contextmanager
def training_progress() -> Iterator[OnProgress | None]:
    """Show how training goes: a line for every epoch and, on a terminal, a bar below."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from perception.common.console import stderr

    log = logging.getLogger("perception.training")
    log.setLevel(min(log.getEffectiveLevel(), logging.INFO))  # the scores of each epoch, and where it resumed
    console = stderr()
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        bars = {}

        def show(step: TrainProgress) -> None:
            if step.name not in bars:  # a recipe that starts from another one trains that first
                bars[step.name] = bar.add_task("", total=step.total, completed=step.done - 1)
            text = f"{step.name} epoch {step.epoch} loss {step.loss:.3f}"
            bar.update(bars[step.name], completed=step.done, description=text)

        yield show
