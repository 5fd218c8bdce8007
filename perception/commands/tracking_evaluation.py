"""The command ``perception eval tracking``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perception.commands.options import INPUT, OUTPUT, Json, JsonFile, Overwrite

if TYPE_CHECKING:
    from perception.evaluation.tracking import TrackingResult


def eval_tracking(
    truth: Annotated[
        list[Path] | None,
        typer.Option(
            help="MOT text of the truth, or COCO (.json) as CVAT exports it; may be repeated.", show_default="none",
            rich_help_panel=INPUT,
        ),
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(
            help="MOT text of the tracks, or COCO (.json), in the same order; may be repeated.", show_default="none",
            rich_help_panel=INPUT,
        ),
    ] = None,
    sequences: Annotated[
        Path | None,
        typer.Option(
            help="Instead: folder of SEQUENCE/{seqinfo.ini,gt.txt,det.txt}, whose detections are tracked.",
            show_default="none", rich_help_panel=INPUT,
        ),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            help="YAML of the tracker's settings, for --sequences.", show_default="the usual ones",
            rich_help_panel=INPUT,
        ),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="Find the best settings for --sequences and write them here, as YAML for a model's card.",
            show_default="not written", rich_help_panel=OUTPUT,
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option(min=1, help="Settings to try with --calibrate.", rich_help_panel=OUTPUT)
    ] = 300,
    overwrite: Overwrite = False,
    as_json: Json = False,
    json_file: JsonFile = None,
) -> None:  # fmt: skip
    """Compare tracks with truth: HOTA, MOTA, IDF1, changes of identity. No model is needed.

    [bold]Examples[/bold]

      perception eval tracking --truth gt.txt --results mot.txt --json

      perception eval tracking --truth instances_default.json --results street.coco.json

      perception eval tracking --sequences mot/ --calibrate tracking.yaml
    """
    from perception.commands.terminal import write_json
    from perception.common.console import print_rows
    from perception.errors import UsageError
    from perception.evaluation.tracking import combine, evaluate_tracking

    truth, results = truth or [], results or []
    if (sequences is None) != bool(truth or results) or (sequences is None and (settings or calibrate)):
        raise UsageError("give --truth and --results, or --sequences with or without --settings and --calibrate")
    if len(truth) != len(results):
        raise UsageError(f"give as many --results as --truth: there are {len(results)} and {len(truth)}")
    if sequences is None:
        found = [evaluate_tracking(t, r) for t, r in zip(truth, results, strict=True)]
    else:
        found = _track(sequences, settings, calibrate, trials, overwrite)
    rows, both = [one.as_dict() for one in found], combine(found).as_dict()
    if not write_json({"sequences": rows, "all": both}, as_json, json_file):
        print_rows("tracking", rows if len(rows) == 1 else [*rows, both])


def _track(
    folder: Path, settings: Path | None, calibrated: Path | None, trials: int, overwrite: bool
) -> list[TrackingResult]:
    """Track labelled sequences, with settings that are searched for first where ``calibrated`` is to be written."""
    import yaml

    from perception.commands.terminal import progress_bar
    from perception.evaluation.tracking_calibration import calibrate, read_sequences, track_sequence
    from perception.sinks.files import PartFile, sink_errors
    from perception.tracking.files import read_settings

    chosen = None if settings is None else read_settings(settings)
    file = None if calibrated is None else PartFile(calibrated, overwrite)
    sequences = read_sequences(folder)
    if file is not None:
        with progress_bar("calibrate") as progress:
            chosen = calibrate(sequences, trials, start=chosen, progress=progress)
        text = yaml.safe_dump({"tracking": chosen.model_dump()}, sort_keys=False)
        with file.open() as out, sink_errors(str(calibrated)):
            out.write(text.encode())
        file.publish()
    return [track_sequence(sequence, chosen) for sequence in sequences]
