"""The commands ``perception eval``; tracking, smoothing and propagation are in files of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perception.commands.options import (
    INPUT,
    MODEL,
    OUTPUT,
    Card,
    Json,
    JsonCommand,
    JsonFile,
    Model,
    Overwrite,
    Running,
    Things,
    Unknown,
    runs_a_model,
)
from perception.commands.propagation_evaluation import eval_propagation
from perception.commands.smoothing_evaluation import eval_smoothing
from perception.commands.suite import eval_calibrate, eval_suite, eval_table
from perception.commands.tracking_evaluation import eval_tracking
from perception.weights import DEFAULT_MODEL

if TYPE_CHECKING:
    from perception.evaluation.result import Evaluation

evaluation = typer.Typer(
    no_args_is_help=True,
    help="""Measure the accuracy of a model on labelled pictures.

    [bold]Examples[/bold]

      perception eval segmentation --images val/images --labels val/labels --ignore 11

      perception eval detection --images val/images --annotations val/annotations.json

      perception eval classification -m imagenet --data pictures/
    """,
)

Images = Annotated[Path, typer.Option(help="Folder of pictures.", rich_help_panel=INPUT)]
Labels = Annotated[
    Path, typer.Option(help="Folder of label PNGs with the names of the pictures.", rich_help_panel=INPUT)
]
Annotations = Annotated[Path, typer.Option(help="COCO JSON of the boxes.", rich_help_panel=INPUT)]
Labelled = Annotated[
    Path, typer.Option("--data", help="Folder or .zip of CLASS/NAME.jpg, or .npz.", rich_help_panel=INPUT)
]
Ignore = Annotated[
    list[int] | None,
    typer.Option(help="Label id to ignore; may be repeated.", show_default="none", rich_help_panel=INPUT),
]
Names = Annotated[
    Path | None,
    typer.Option(
        help="YAML of synonyms, 'name in the data: name in the model'.", show_default="names match as they are",
        rich_help_panel=INPUT,
    ),
]  # fmt: skip
ReportTo = Annotated[
    Path | None,
    typer.Option(
        "--report", help="Folder for report.html: tables, curves, the worst pictures.", show_default="not written",
        rich_help_panel=OUTPUT,
    ),
]  # fmt: skip


@evaluation.command("segmentation")
@runs_a_model
def eval_segmentation(
    running: Running,
    images: Images,
    labels: Labels,
    ignore: Ignore = None,
    unknown: Unknown = 0.0,
    model: Model = DEFAULT_MODEL,
    card: Card = None,
    report: ReportTo = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    json_file: JsonFile = None,
) -> None:
    """Compare masks with label PNGs: IoU of each class and their mean, pixel accuracy.

    [bold]Example[/bold]

      perception eval segmentation -m camvid --images val/images --labels val/labels --ignore 11 --json
    """
    from perception.evaluation.segmentation import evaluate_segmentation

    _evaluate(
        evaluate_segmentation, model, images, labels, ignore=ignore or (), unknown=unknown,
        card=card, running=running, report=report,
        overwrite=overwrite, as_json=as_json, json_file=json_file,
    )  # fmt: skip


@evaluation.command("detection")
@runs_a_model
def eval_detection(
    running: Running,
    images: Images,
    annotations: Annotations,
    names: Names = None,
    model: Model = DEFAULT_MODEL,
    card: Card = None,
    score: Annotated[float, typer.Option(min=0, max=1, help="Score threshold of boxes.", rich_help_panel=MODEL)] = 0.01,
    report: ReportTo = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    json_file: JsonFile = None,
) -> None:
    """Compare boxes with a COCO file: average precision of each class and their mean.

    [bold]Example[/bold]

      perception eval detection -m street --images val/images --annotations val/annotations.json
    """
    from perception.evaluation.classes import read_synonyms
    from perception.evaluation.detection import evaluate_detection

    _evaluate(
        evaluate_detection, model, images, annotations, synonyms=read_synonyms(names), score_threshold=score,
        card=card, running=running, report=report,
        overwrite=overwrite, as_json=as_json, json_file=json_file,
    )  # fmt: skip


@evaluation.command("panoptic")
@runs_a_model
def eval_panoptic(
    running: Running,
    images: Images,
    annotations: Annotated[Path, typer.Option(help="COCO panoptic JSON.", rich_help_panel=INPUT)],
    segments: Annotated[
        Path | None,
        typer.Option(help="Folder of its PNGs.", show_default="beside the JSON, with its name", rich_help_panel=INPUT),
    ] = None,
    names: Names = None,
    things: Things = None,
    model: Model = DEFAULT_MODEL,
    card: Card = None,
    report: ReportTo = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    json_file: JsonFile = None,
) -> None:
    """Compare segments with a COCO panoptic file: panoptic quality of each class, of things and of stuff.

    [bold]Example[/bold]

      perception eval panoptic -m street --images val/images --annotations val/panoptic.json
    """
    from perception.common.settings import things as parse_things
    from perception.evaluation.classes import read_synonyms
    from perception.evaluation.panoptic import evaluate_panoptic

    _evaluate(
        evaluate_panoptic, model, images, annotations, segments=segments, synonyms=read_synonyms(names),
        things=parse_things(things), card=card, running=running, report=report,
        overwrite=overwrite, as_json=as_json, json_file=json_file,
    )  # fmt: skip


@evaluation.command("classification")
@runs_a_model
def eval_classification(
    running: Running,
    pictures: Labelled,
    names: Names = None,
    model: Model = DEFAULT_MODEL,
    card: Card = None,
    top_k: Annotated[
        int,
        typer.Option(
            min=1, help="Also count pictures whose class is among the K most likely.", rich_help_panel=MODEL
        ),
    ] = 1,
    report: ReportTo = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    json_file: JsonFile = None,
) -> None:  # fmt: skip
    """Compare whole-image classes with folder names, or the labels of an NPZ file: accuracy, confusion matrix.

    [bold]Example[/bold]

      perception eval classification -m signs.onnx --data signs.zip --top-k 3
    """
    from perception.evaluation.classes import read_synonyms
    from perception.evaluation.classification import evaluate_classification

    _evaluate(
        evaluate_classification, model, pictures, synonyms=read_synonyms(names), top_k=top_k,
        card=card, running=running, report=report,
        overwrite=overwrite, as_json=as_json, json_file=json_file,
    )  # fmt: skip


evaluation.command("tracking")(eval_tracking)
evaluation.command("smoothing")(eval_smoothing)
evaluation.command("propagation")(eval_propagation)
evaluation.command("suite", cls=JsonCommand)(eval_suite)
evaluation.command("calibrate", cls=JsonCommand)(eval_calibrate)
evaluation.command("table")(eval_table)


def _evaluate(
    run: Callable[..., Evaluation],
    model: str,
    *data: Path,
    running: Running,
    report: Path | None,
    overwrite: bool,
    as_json: bool,
    json_file: Path | None,
    **options: Any,
) -> None:
    """Run an evaluation with a progress bar, print it, and write its report if one is wanted."""
    from rich.markup import escape

    from perception.commands.terminal import progress_bar, write_json
    from perception.common.console import print_rows, stderr
    from perception.evaluation.report import PICTURES, Report

    file = None if report is None else Report(report, overwrite)
    with progress_bar("evaluate") as progress:
        result = run(model, *data, worst=PICTURES if file else 0, progress=progress, **running.options(), **options)
    if not write_json(result.as_dict(), as_json, json_file):
        for title, rows in result.tables():
            print_rows(title, rows)
        for name, value in result.facts().items():
            stderr().print(f"{name:6} {escape(value)}")
    if file is not None:  # last: a full disk must not cost the numbers
        file.write(result)
        if not as_json:
            stderr().print(f"report {escape(str(file.path))}")
