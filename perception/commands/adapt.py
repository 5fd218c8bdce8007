"""The command ``perception adapt``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perception.commands.options import Device, Engine, Overwrite


def adapt(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An .onnx file made elsewhere.")],
    card: Annotated[Path, typer.Option(help="YAML card with an adapter section, as in configs/cards/.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .onnx file to write, with the card inside.")],
    engine: Engine = "auto",
    device: Device = "CPU",
    overwrite: Overwrite = False,
) -> None:
    """Rewrite a foreign ONNX detector or segmenter as a model that runs like any other.

    docs/foreign.md lists the outputs that a card can describe.

    [bold]Example[/bold]

      perception adapt yolov8n.onnx --card configs/cards/yolov8.yaml -o yolov8n-adapted.onnx
    """
    from perception.foreign import adapt as adapt_file

    written = adapt_file(model, card, output, engine=engine, device=device, overwrite=overwrite)
    typer.echo(f"{output}: {written.name}, {', '.join(written.tasks)}, {written.input.width}x{written.input.height}")
