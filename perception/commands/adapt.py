"""The command ``perception adapt``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perception.commands.options import Device, Engine, Overwrite


def _list_formats(wanted: bool) -> None:
    if wanted:
        from perception.common.console import print_rows
        from perception.foreign.formats import FORMATS, KEYS

        rows = [
            {
                "in the adapter": f"{f.task}: {{{KEYS[f.task]}: {f.name}}}",
                "what the graph gives": f.about,
                "--card": f.card,
            }
            for f in FORMATS
        ]
        print_rows("formats, and the cards that ship", rows)
        raise typer.Exit


def adapt(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An .onnx file made elsewhere.")],
    card: Annotated[
        Path, typer.Option(help="Card with an adapter section: a YAML file, or the name of one that ships.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .onnx file to write, with the card inside.")],
    engine: Engine = "auto",
    device: Device = "CPU",
    overwrite: Overwrite = False,
    list_formats: Annotated[
        bool,
        typer.Option(
            "--list-formats", is_eager=True, callback=_list_formats, help="List formats of outputs, and the cards."
        ),
    ] = False,
) -> None:
    """Rewrite a foreign ONNX detector or segmenter as a model that runs like any other.

    docs/foreign.md lists the outputs that a card can describe.

    [bold]Examples[/bold]

      perception adapt --list-formats

      perception adapt yolov8n.onnx --card yolov8 -o yolov8n-adapted.onnx

      perception adapt mine.onnx --card mine.yaml -o mine-adapted.onnx
    """
    from perception.foreign import adapt as adapt_file

    written = adapt_file(model, card, output, engine=engine, device=device, overwrite=overwrite)
    typer.echo(f"{output}: {written.name}, {', '.join(written.tasks)}, {written.input.width}x{written.input.height}")
