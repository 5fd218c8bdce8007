"""The command ``perception explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from perception.commands.options import MODEL_HELP, Card, Overwrite
from perception.common.distribution import require


def explain(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="A picture, or a video: its first frame.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture to write (.png, .jpg).")],
    method: Annotated[
        Literal["gradient", "guided", "deconvnet", "smoothgrad", "occlusion", "all"],
        typer.Option(help="Method; all: every method, side by side."),
    ] = "smoothgrad",
    class_name: Annotated[
        str | None,
        typer.Option("--class", help="Class to explain.", show_default="the one the model is most confident of"),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="X,Y", help="Explain this pixel, or the object around it.", show_default="the whole picture"
        ),
    ] = None,
    task: Annotated[
        Literal["classification", "detection", "segmentation"] | None,
        typer.Option(
            help="Which task to explain, for a model with several.", show_default="the first that fits --class and --at"
        ),
    ] = None,
    card: Card = None,
    overwrite: Overwrite = False,
) -> None:
    """Show which pixels mattered for a class, for the score of a detection, or for the class of a pixel.

    [bold]Examples[/bold]

      perception explain street street.jpg -o heat.png --class car

      perception explain street street.jpg -o heat.png --at 240,180 --method guided

      perception explain signs.onnx sign.png -o heat.png --method all
    """
    for module in ("torch", "captum"):
        require(module, "train", "explaining a model", "torch", "captum")
    from perception.explain.write import write_explanations

    for line in write_explanations(
        model, image, output, method=method, class_name=class_name, at=at, task=task, card=card, overwrite=overwrite
    ):
        typer.echo(line)
