"""The command ``perception data check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perception.commands.evaluate import Ignore, Names
from perception.commands.options import INPUT, Json, JsonCommand, JsonFile
from perception.common.distribution import require
from perception.errors import UsageError

if TYPE_CHECKING:
    from perception.evaluation.check import DataCheck

NOT_CHECKED = "not checked"

data = typer.Typer(
    no_args_is_help=True,
    help="""Check data sets.

    [bold]Example[/bold]

      perception data check --images train/images --labels train/labels --ignore 11
    """,
)


@data.callback()
def _data() -> None:
    pass


@data.command("check", cls=JsonCommand)
def data_check(
    recipe: Annotated[
        Path | None,
        typer.Argument(metavar="RECIPE", help="Training recipe (YAML): check all the data that it names."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of pictures.", show_default=NOT_CHECKED, rich_help_panel=INPUT)
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Folder of label PNGs with the names of the pictures.", show_default=NOT_CHECKED,
            rich_help_panel=INPUT,
        ),
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="COCO JSON of the boxes.", show_default=NOT_CHECKED, rich_help_panel=INPUT)
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(
            "--data", help="Folder or .zip of CLASS/NAME.jpg, or .npz.", show_default=NOT_CHECKED,
            rich_help_panel=INPUT,
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            help="The classes that the data should have, comma-separated.", show_default="any", rich_help_panel=INPUT
        ),
    ] = None,
    ignore: Ignore = None,
    names: Names = None,
    as_json: Json = False,
    json_file: JsonFile = None,
) -> None:  # fmt: skip
    """List everything that is wrong with a data set, file by file; exit code 2 if there is anything.

    [bold]Examples[/bold]

      perception data check --images train/images --labels train/labels --ignore 11

      perception data check --images train/images --annotations train/annotations.json --classes car,bus,truck

      perception data check configs/train/camvid.yaml --data camvid
    """
    from perception.commands.terminal import progress_bar, write_json
    from perception.common.settings import names as split
    from perception.evaluation.check import check_data
    from perception.evaluation.classes import read_synonyms

    if recipe is not None:
        if not images is labels is annotations is classes is ignore is names is None:
            raise UsageError("a recipe names its data, classes and ignored ids: give no other option than --data")
        require("torch", "train", "checking the data of a recipe")
        import perception.classics  # noqa: F401 - its recipes, too
        from perception.training.recipes.read import read_config
        from perception.training.tasks.kinds import open_task

        open_task(read_config(recipe, pictures))  # construction is the check
        if not write_json({"faults": []}, as_json, json_file):
            typer.echo(f"{recipe}: no faults")
        return
    with progress_bar("check") as progress:
        check = check_data(
            images=images, labels=labels, annotations=annotations, data=pictures, names=split(classes),
            synonyms=read_synonyms(names), ignore=ignore or (), progress=progress,
        )  # fmt: skip
    if not write_json(check.as_dict(), as_json, json_file):
        _print(check)
    raise typer.Exit(2 if check.faults else 0)


def _print(check: DataCheck) -> None:
    """Print how much there is of each class, and every fault."""
    from rich.markup import escape

    from perception.common.console import print_rows, stdout
    from perception.common.text import counted

    print_rows("", [{"class": name, check.unit.replace("_", " "): n} for name, n in check.classes.items()])
    for fault in check.faults:
        stdout().print(escape(str(fault)), soft_wrap=True)
    faults = f"faults: {len(check.faults)}" if check.faults else "no faults"
    stdout().print(f"{escape(check.data)}: {counted(check.images, 'image')}, [bold]{faults}[/]", soft_wrap=True)
