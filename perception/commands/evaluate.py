"""The commands ``perception eval`` and ``perception data``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perception.commands.options import INPUT, MODEL, Card, Engine, Model, Precision, Size, Threads
from perception.errors import UsageError, require

evaluation = typer.Typer(help="Measure the accuracy of a model on labelled pictures.", no_args_is_help=True)
data = typer.Typer(help="Look after data sets.", no_args_is_help=True)

Images = Annotated[Path, typer.Option(help="Folder of pictures.", rich_help_panel=INPUT)]
Labels = Annotated[Path, typer.Option(help="Folder of label PNGs, same names.", rich_help_panel=INPUT)]
Annotations = Annotated[Path, typer.Option(help="COCO JSON of the boxes.", rich_help_panel=INPUT)]
Labelled = Annotated[
    Path, typer.Option("--data", help="Folder or .zip of CLASS/NAME.jpg, or .npz.", rich_help_panel=INPUT)
]
Ignore = Annotated[
    list[int] | None, typer.Option(help="Label id that counts for nothing; may be repeated.", rich_help_panel=INPUT)
]
Names = Annotated[
    Path | None,
    typer.Option(help="YAML of synonyms, 'name in the data: name in the model'.", rich_help_panel=INPUT),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output and nothing else.")]
ReportTo = Annotated[
    Path | None, typer.Option("--report", help="Folder for report.html: tables, curves, the worst pictures.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]


@evaluation.command("segmentation")
def eval_segmentation(
    images: Images,
    labels: Labels,
    ignore: Ignore = None,
    model: Model = None,
    card: Card = None,
    engine: Engine = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    size: Size = None,
    report: ReportTo = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Masks against label PNGs: IoU of each class and their mean, pixel accuracy.

    [bold]Example[/bold]

      perception eval segmentation -m camvid --images val/images --labels val/labels --ignore 11 --json
    """
    from perception.commands.terminal import evaluate
    from perception.common.settings import size as parse_size
    from perception.evaluation.segmentation import evaluate_segmentation

    evaluate(
        evaluate_segmentation, model, images, labels, ignore=ignore or (),
        card=card, engine=engine, precision=precision, threads=threads, size=parse_size(size),
        report=report, overwrite=overwrite, as_json=as_json,
    )  # fmt: skip


@evaluation.command("detection")
def eval_detection(
    images: Images,
    annotations: Annotations,
    names: Names = None,
    model: Model = None,
    card: Card = None,
    engine: Engine = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    size: Size = None,
    score: Annotated[float, typer.Option(min=0, max=1, help="Least score of a box.", rich_help_panel=MODEL)] = 0.01,
    report: ReportTo = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Boxes against a COCO file: average precision of each class and their mean.

    [bold]Example[/bold]

      perception eval detection -m street --images val/images --annotations val/annotations.json
    """
    from perception.commands.terminal import evaluate
    from perception.common.settings import size as parse_size
    from perception.evaluation.classes import read_synonyms
    from perception.evaluation.detection import evaluate_detection

    evaluate(
        evaluate_detection, model, images, annotations, synonyms=read_synonyms(names), score_threshold=score,
        card=card, engine=engine, precision=precision, threads=threads, size=parse_size(size),
        report=report, overwrite=overwrite, as_json=as_json,
    )  # fmt: skip


@evaluation.command("panoptic")
def eval_panoptic(
    images: Images,
    annotations: Annotated[Path, typer.Option(help="COCO panoptic JSON.", rich_help_panel=INPUT)],
    segments: Annotated[
        Path | None, typer.Option(help="Folder of its PNGs; the JSON's name by default.", rich_help_panel=INPUT)
    ] = None,
    names: Names = None,
    things: Annotated[
        str | None,
        typer.Option(metavar="PIXELS=BOX+BOX,...", help="Which boxes show which pixels.", rich_help_panel=MODEL),
    ] = None,
    model: Model = None,
    card: Card = None,
    engine: Engine = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    size: Size = None,
    report: ReportTo = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Segments against a COCO panoptic file: panoptic quality of each class, of things and of stuff.

    [bold]Example[/bold]

      perception eval panoptic -m street --images val/images --annotations val/panoptic.json
    """
    from perception.commands.terminal import evaluate
    from perception.common.settings import size as parse_size
    from perception.common.settings import things as parse_things
    from perception.evaluation.classes import read_synonyms
    from perception.evaluation.panoptic import evaluate_panoptic

    evaluate(
        evaluate_panoptic, model, images, annotations, segments=segments, synonyms=read_synonyms(names),
        things=parse_things(things), card=card, engine=engine, precision=precision, threads=threads,
        size=parse_size(size), report=report, overwrite=overwrite, as_json=as_json,
    )  # fmt: skip


@evaluation.command("classification")
def eval_classification(
    pictures: Labelled,
    names: Names = None,
    model: Model = None,
    card: Card = None,
    engine: Engine = "auto",
    precision: Precision = "auto",
    threads: Threads = None,
    size: Size = None,
    top_k: Annotated[
        int, typer.Option(min=1, help="Also how often the right class is among the K likeliest.", rich_help_panel=MODEL)
    ] = 1,
    report: ReportTo = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Whole-image classes against folder names, or the labels of an NPZ file: accuracy, confusion matrix."""
    from perception.commands.terminal import evaluate
    from perception.common.settings import size as parse_size
    from perception.evaluation.classes import read_synonyms
    from perception.evaluation.classification import evaluate_classification

    evaluate(
        evaluate_classification, model, pictures, synonyms=read_synonyms(names), top_k=top_k,
        card=card, engine=engine, precision=precision, threads=threads, size=parse_size(size),
        report=report, overwrite=overwrite, as_json=as_json,
    )  # fmt: skip


@data.command("check")
def data_check(
    recipe: Annotated[
        Path | None, typer.Argument(metavar="[RECIPE]", help="Training recipe (YAML): all the data that it names.")
    ] = None,
    images: Annotated[Path | None, typer.Option(help="Folder of pictures.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Folder of label PNGs, same names.")] = None,
    annotations: Annotated[Path | None, typer.Option(help="COCO JSON of the boxes.")] = None,
    pictures: Annotated[Path | None, typer.Option("--data", help="Folder or .zip of CLASS/NAME.jpg, or .npz.")] = None,
    classes: Annotated[str | None, typer.Option(help="Classes that there should be, comma-separated.")] = None,
    ignore: Ignore = None,
    names: Names = None,
    as_json: AsJson = False,
) -> None:
    """Name everything that is wrong with a data set, file by file; exit code 2 if there is anything.

    [bold]Examples[/bold]

      perception data check --images train/images --labels train/labels --ignore 11

      perception data check --images train/images --annotations train/annotations.json --classes car,bus,truck

      perception data check configs/train/camvid.yaml --data camvid
    """
    from perception.commands.terminal import print_check, progress_bar
    from perception.common.settings import names as split
    from perception.evaluation.check import check_data
    from perception.evaluation.classes import read_synonyms

    if recipe is not None:
        if not images is labels is annotations is classes is ignore is names is None:
            raise UsageError("a recipe names its data, classes and what is ignored: give no other option than --data")
        require("torch", "train", "checking the data of a recipe")
        import perception.classics  # noqa: F401 - its recipes, too
        from perception.training.recipes.read import read_config
        from perception.training.tasks.kinds import open_task

        open_task(read_config(recipe, pictures))  # construction is the check
        typer.echo('{"faults": []}' if as_json else f"{recipe}: nothing wrong")
        return
    with progress_bar("check") as progress:
        check = check_data(
            images=images, labels=labels, annotations=annotations, data=pictures, names=split(classes),
            synonyms=read_synonyms(names), ignore=ignore or (), progress=progress,
        )  # fmt: skip
    print_check(check, as_json)
    raise typer.Exit(2 if check.faults else 0)
