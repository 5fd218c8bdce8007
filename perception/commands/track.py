"""The command ``perception track``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perception.commands.options import INPUT, OUTPUT, Overwrite


def track(
    detections: Annotated[
        Path, typer.Argument(metavar="DETECTIONS", help="MOT text: frame, id, left, top, width, height, score, class.")
    ],
    fps: Annotated[float, typer.Option(min=0.01, help="Frames per second.", rich_help_panel=INPUT)] = 30.0,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WxH", help="Size of the frames, to which boxes are cut.", show_default="boxes are not cut",
            rich_help_panel=INPUT,
        ),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            help="YAML of thresholds, such as --calibrate writes.", show_default="by the scores' usual range",
            rich_help_panel=INPUT,
        ),
    ] = None,
    output: Annotated[
        str, typer.Option("-o", "--output", help="MOT text; '-': standard output.", rich_help_panel=OUTPUT)
    ] = "-",
    overwrite: Overwrite = False,
) -> None:  # fmt: skip
    """Follow boxes that are in a file: each gets an identity that stays.

    [bold]Example[/bold]

      perception track det.txt --fps 30 --size 1920x1080 -o mot.txt
    """
    from perception.common.settings import size as parse_size
    from perception.sinks.files import LineFile, check_not_source
    from perception.tracking.files import detections_of, read_settings, track_frames
    from perception.tracking.mot_text import mot_lines, read_mot

    file = LineFile(output, overwrite)
    if file.path is not None:
        check_not_source(file.path, str(detections))
    chosen = None if settings is None else read_settings(settings)
    frames, classes = detections_of(read_mot(detections))
    file.open()
    try:
        for frame, found in track_frames(frames, classes, fps, parse_size(size), chosen):
            assert found.track_ids is not None
            file.write(mot_lines(frame, found.track_ids, found.boxes, found.scores, found.class_ids).encode())
    finally:
        file.close()
