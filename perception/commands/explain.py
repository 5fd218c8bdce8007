"""The command ``perception explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from perception.commands.options import Card
from perception.errors import require


def explain_model(
    model: Annotated[str, typer.Argument(help="Name or .onnx file of the model.")],
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="A picture; of a video the first frame.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture to write (.png, .jpg).")],
    method: Annotated[
        Literal["gradient", "guided", "deconvnet", "smoothgrad", "occlusion", "all"],
        typer.Option(help="How; all puts every method side by side."),
    ] = "smoothgrad",
    class_name: Annotated[
        str | None, typer.Option("--class", help="Class to explain; the one that the model is surest of by default.")
    ] = None,
    at: Annotated[str | None, typer.Option(metavar="X,Y", help="Pixel, or object around it, to explain.")] = None,
    task: Annotated[
        Literal["classification", "detection", "segmentation"] | None,
        typer.Option(help="Of a model that does several."),
    ] = None,
    card: Card = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
) -> None:
    """Show which pixels mattered for a class, a detection's score or the class of a pixel.

    [bold]Examples[/bold]

      perception explain camvid street.jpg -o heat.png --class car

      perception explain camvid street.jpg -o heat.png --at 240,180 --method guided

      perception explain signs.onnx sign.png -o heat.png --method all
    """
    require("torch", "train", "explaining a model")
    require("captum", "train", "explaining a model")
    from perception.explain.write import write_explanations

    for line in write_explanations(
        model, image, output, method=method, class_name=class_name, at=at, task=task, card=card, overwrite=overwrite
    ):
        typer.echo(line)
