"""The command ``perception demo``: a real street clip, annotated, with no argument and no network needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perception.commands.options import INPUT, OUTPUT, Device, Engine, Model, PrecisionOption
from perception.weights import DEFAULT_MODEL

if TYPE_CHECKING:
    from perception.types import U8

PICTURES = 9
"""Frames on the contact sheet."""


def demo(
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="Folder for demo.mp4, demo.jsonl and demo.png.", rich_help_panel=OUTPUT),
    ] = Path(),
    clip: Annotated[
        str,
        typer.Option(
            help="dashcam, street or synthetic; auto: the first of them that is available.", rich_help_panel=INPUT
        ),
    ] = "auto",
    model: Model = DEFAULT_MODEL,
    engine: Engine = "auto",
    precision: PrecisionOption = "auto",
    device: Device = "CPU",
) -> None:
    """Annotate a street clip: writes demo.mp4, demo.jsonl and a contact sheet, demo.png.

    Files of an earlier demo are overwritten.

    [bold]Examples[/bold]

      perception demo

      perception demo -o out/ --clip synthetic --model camvid
    """
    from perception.annotate import Outputs, RunSummary, annotate_all
    from perception.commands.reporter import Reporter
    from perception.drawing.annotator import Annotator
    from perception.drawing.contact_sheet import contact_sheet
    from perception.model import load_model
    from perception.sinks.picture import write_picture
    from perception.sources.clips import find_clip

    reporter = Reporter()
    found = find_clip(clip)
    reporter.say(f"clip: {found.name}: {found.about}")
    video, sheet = output / "demo.mp4", output / "demo.png"
    outputs = Outputs(video=str(video), jsonl=str(output / "demo.jsonl"))
    with load_model(model, engine=engine, precision=precision, device=device, mode="throughput") as loaded:
        (result,) = annotate_all(
            [found.uri], loaded, outputs, annotator=Annotator(loaded.card), source_options=found.options,
            overwrite=True, started=reporter.started,
        )  # fmt: skip
    reporter.finished(result)
    if result.report is not None and result.report.frames:
        write_picture(sheet, contact_sheet(_spread(video, PICTURES)), overwrite=True)
        reporter.say(f"contact sheet: {sheet}")
    raise typer.Exit(RunSummary.of([result]).exit_code)


def _spread(video: Path, count: int) -> list[U8]:
    """Read pictures taken evenly from a video."""
    from perception.sources import open_source

    with open_source(str(video)) as source:
        total = source.info.frame_count or 1
        wanted = {round((i + 0.5) * total / count) for i in range(count)}
        return [frame.image for frame in source if frame.index in wanted]
