"""The commands ``perception export`` and ``perception train``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from perception.errors import require

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
    overwrite: Overwrite = False,
) -> None:
    """Train a network by a recipe, then export the best checkpoint as a model with its accuracy in the card.

    [bold]Examples[/bold]

      perception train configs/train/camvid.yaml --data ../shared/data/camvid -o camvid.onnx

      perception train mine.yaml --start street -o mine.onnx
    """
    require("torch", "train", "training")
    from perception.sinks.files import check_output
    from perception.training.export.release import release
    from perception.training.run.loop import train as run_training

    if output is not None:
        check_output(output, overwrite)  # hours before it is written
    told = logging.getLogger("perception.training")
    told.setLevel(min(told.getEffectiveLevel(), logging.INFO))  # scores of an epoch, where it went on from
    result = run_training(recipe, not fresh, data, start=start)
    model = output or result.best.with_suffix(".onnx")
    card = release(result.best, model, data)
    for name, value in card.metrics.items():
        typer.echo(f"{name:40} {value:.4f}")
    typer.echo(f"{model}")
