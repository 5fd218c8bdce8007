"""The commands ``perception export`` and ``perception train``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perception.errors import require

if TYPE_CHECKING:
    from perception.training.run.progress import OnProgress, TrainProgress

Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")]


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A checkpoint of `train`, or torchvision:NAME.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .onnx to write, with the card inside.")],
    weights: Annotated[
        str | None, typer.Option(help="Of torchvision: COCO_V1, DEFAULT, ..., or none (untrained).")
    ] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Input size, for torchvision:NAME.")] = None,
    data: Annotated[Path | None, typer.Option(help="Data set to measure a checkpoint on, for its card.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Export a trained network, or one of torchvision's, as a model, and check it against torch.

    [bold]Examples[/bold]

      perception export torchvision:fcos_resnet50_fpn --weights COCO_V1 -o fcos.onnx

      perception export torchvision:lraspp_mobilenet_v3_large --weights none -o lraspp.onnx

      perception export runs/camvid/best.pt -o camvid.onnx
    """
    require("torch", "train", "exporting a network")
    import perception.classics  # noqa: F401 - its networks and its task can be exported, too
    from perception.common.settings import size as parse_size
    from perception.sinks.files import check_output
    from perception.training.export.torchvision import export_any

    check_output(output, overwrite)
    written = export_any(model, output, weights=weights, size=parse_size(size), data=data)
    typer.echo(f"{output}: {written.name}, {', '.join(written.tasks)}, {written.input.width}x{written.input.height}")


def train(
    recipe: Annotated[Path, typer.Argument(metavar="CONFIG", help="Training recipe (YAML), as in configs/train/.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The .onnx to write when done.")] = None,
    data: Annotated[Path | None, typer.Option(help="Replaces data.root of the recipe.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over instead of going on where it stopped.")] = False,
    start: Annotated[
        Path | None,
        typer.Option(help="Model (a name or .onnx) or checkpoint whose weights a new run starts from, where they fit."),
    ] = None,
    stop_after: Annotated[
        int | None,
        typer.Option(min=1, metavar="EPOCHS", help="Stop once so many epochs are done in all, and export nothing."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a network by a recipe, then export the best checkpoint as a model with its accuracy in the card.

    [bold]Examples[/bold]

      perception train configs/train/camvid.yaml --data ../shared/data/camvid -o camvid.onnx

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

    from perception.commands.terminal import stderr

    told = logging.getLogger("perception.training")
    told.setLevel(min(told.getEffectiveLevel(), logging.INFO))  # scores of an epoch, where it went on from
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
