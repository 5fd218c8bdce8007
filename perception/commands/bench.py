"""The command ``perception bench``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from perception.commands.options import INPUT, Device, Engine, Json, JsonFile, Model, PrecisionOption
from perception.weights import DEFAULT_MODEL


def bench(
    parts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PART",
            help="kernels, stages, pipeline, engines (by default); peers, encoders, live, cameras, rtsp, "
            "endurance, publish, batches, scaling, models, tracking, rules.",
        ),
    ] = None,
    model: Model = DEFAULT_MODEL,
    engine: Engine = "auto",
    precision: PrecisionOption = "auto",
    device: Device = "CPU",
    clip: Annotated[
        Path | None,
        typer.Option(
            help="Video for the stages and the pipeline.", show_default="a street clip at 1280x720",
            rich_help_panel=INPUT,
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Number of measurements of each kernel and each network.")] = 30,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL", help="Model to compare with in the part models; may be repeated.", show_default="none"
        ),
    ] = None,
    sequences: Annotated[
        Path | None,
        typer.Option(
            help="Folder of SEQUENCE/{seqinfo.ini,gt.txt,det.txt} for the part tracking.", show_default="none",
            rich_help_panel=INPUT,
        ),
    ] = None,
    trials: Annotated[
        int,
        typer.Option(
            min=0, help="Settings that each tracker is calibrated with, on half of the sequences; 0: none is."
        ),
    ] = 0,
    cameras: Annotated[int, typer.Option(min=2, max=256, help="Cameras at once (cameras, rtsp, endurance).")] = 16,
    seconds: Annotated[
        float, typer.Option(min=1, help="Seconds for each measurement of cameras, rtsp, publish and the like.")
    ] = 30.0,
    plot: Annotated[
        Path | None, typer.Option(help="PNG to draw what the part scaling measures into.", show_default="not drawn")
    ] = None,
    as_json: Json = False,
    json_file: JsonFile = None,
) -> None:  # fmt: skip
    """Measure kernels, stages and the pipeline, side by side with the obvious alternatives.

    [bold]Examples[/bold]

      perception bench kernels pipeline

      perception bench peers -m street --clip drive.mp4

      perception bench models --against lraspp.onnx --precision bf16

      perception bench tracking --sequences mot/ --trials 100

      perception bench cameras rtsp --cameras 16 --seconds 30

      perception bench endurance --seconds 1800

      perception bench publish --seconds 10

      perception bench scaling --plot growth.png

      perception bench batches --seconds 60
    """
    from perception.bench import run_bench

    tables = run_bench(
        parts, model=model, engine=engine, precision=precision, device=device, clip=clip, repeats=repeats,
        against=against or (), sequences=sequences, trials=trials,
        cameras=cameras, seconds=seconds, plot=plot,
    )  # fmt: skip
    print_tables(tables, as_json, json_file)


def print_tables(
    tables: Iterable[tuple[str, list[dict[str, Any]]]], as_json: bool = False, json_file: Path | None = None
) -> None:
    """Print each table as soon as it is ready; JSON has the rows of all, each with its title as ``table``."""
    from perception.commands.terminal import write_json
    from perception.common.console import print_rows

    all_rows: list[dict[str, Any]] = []
    for title, rows in tables:
        all_rows += [{"table": title, **row} for row in rows]
        if not as_json:
            print_rows(title, rows)
        write_json(all_rows, False, json_file)  # what is done survives a Ctrl-C during the next part
    write_json(all_rows, as_json)
