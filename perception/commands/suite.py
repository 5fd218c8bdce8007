"""The commands ``perception eval suite``, ``perception eval table`` and ``perception eval calibrate``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from perception.commands.options import (
    INPUT,
    MODEL,
    MODEL_HELP,
    OUTPUT,
    Json,
    JsonFile,
    Model,
    Overwrite,
    Running,
    Unknown,
    runs_a_model,
)
from perception.errors import UsageError
from perception.weights import DEFAULT_MODEL

SuiteFile = Annotated[Path, typer.Argument(metavar="SUITE", help="YAML file of sets, as those in configs/suites/.")]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", "-m", help=f"{MODEL_HELP} May be repeated: side by side.", show_default=DEFAULT_MODEL,
        rich_help_panel=MODEL,
    ),
]  # fmt: skip
DataRoot = Annotated[
    Path | None,
    typer.Option("--data", help="Folder of the sets.", show_default="the suite's root", rich_help_panel=INPUT),
]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.", rich_help_panel=OUTPUT)]


@runs_a_model
def eval_suite(
    running: Running,
    suite: SuiteFile,
    model: Models = None,
    data: DataRoot = None,
    unknown: Unknown = 0.0,
    failures: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the worst pictures of each set, truth beside prediction.", show_default="not written",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    worst: Annotated[int, typer.Option(min=1, help="How many of a set.", rich_help_panel=OUTPUT)] = 12,
    store: Annotated[
        bool,
        typer.Option(
            "--store", help="Keep the table in each model's card; auto is fp32 then.", rich_help_panel=OUTPUT
        ),
    ] = False,
    overwrite: Overwrite = False,
    as_markdown: Markdown = False,
    as_json: Json = False,
    json_file: JsonFile = None,
) -> None:  # fmt: skip
    """Measure models on many sets of labelled pictures, in one table.

    [bold]Examples[/bold]

      perception eval suite configs/suites/street.yaml -m street -m street-wide

      perception eval suite configs/suites/street.yaml -m new.onnx --failures failures/ --store
    """
    from perception.commands.terminal import progress_of_several, write_json
    from perception.common.console import print_rows, stderr
    from perception.engines.quantised import change_card
    from perception.evaluation.suite import read_suite
    from perception.evaluation.suite_result import evaluate_suite, markdown
    from perception.weights.library import find_model

    if failures is not None and not overwrite and failures.is_dir() and any(failures.iterdir()):
        raise UsageError("this folder is not empty; give another one, or --overwrite to write into it", failures)
    if store and unknown:
        raise UsageError("a card holds the accuracy of all pixels: leave out --unknown or --store")
    names = model or [DEFAULT_MODEL]
    if store:
        running = _of_the_file(running)
    with progress_of_several() as progress:
        result = evaluate_suite(
            names, read_suite(suite, data), worst=worst if failures else 0, progress=progress, unknown=unknown,
            **running.options(),
        )  # fmt: skip
    if not write_json(result.as_dict(), as_json, json_file):
        if as_markdown:
            typer.echo(markdown({one.name: one.accuracy(result.name) for one in result.models}), nl=False)
        else:
            print_rows(result.name, result.rows())
    for one in result.models:
        stderr().print(f"{one.name}: {one.engine}", markup=False)
        for title, lacking in one.left_out.items():
            if lacking:
                stderr().print(f"{title}: {one.name} does not have {', '.join(lacking)}", markup=False)
    if failures is not None:
        written = result.write_failures(failures, overwrite)
        stderr().print(f"{len(written)} pictures in {failures}", markup=False)
    for name, one in zip(names, result.models, strict=True) if store else ():
        change_card(find_model(name), suite=one.accuracy(result.name))


def eval_table(model: Models = None, as_markdown: Markdown = False) -> None:
    """Print the table that models' cards hold, without measuring.

    [bold]Example[/bold]

      perception eval table -m street --markdown
    """
    from perception.card import read_card
    from perception.common.console import print_rows
    from perception.evaluation.suite_result import markdown, table
    from perception.weights.library import find_model

    kept = {}
    for name in model or [DEFAULT_MODEL]:
        path = find_model(name)
        card = read_card(path)
        if card.suite is None:
            raise UsageError(
                "this model's card holds no table: `perception eval suite SUITE.yaml --store` puts one in", path
            )
        kept[Path(name).stem] = card.suite
    if as_markdown:
        typer.echo(markdown(kept), nl=False)
    else:
        print_rows(", ".join(dict.fromkeys(suite.name for suite in kept.values())), table(kept))


@runs_a_model
def eval_calibrate(
    running: Running,
    suite: SuiteFile,
    model: Model = DEFAULT_MODEL,
    data: DataRoot = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="The same model with the calibration in its card; auto is fp32 then.",
            show_default="not written", rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    json_file: JsonFile = None,
) -> None:  # fmt: skip
    """Measure how sure a model is where it is right, for --unknown and for scores that are chances.

    The pictures must be other ones than those that it learnt from.

    [bold]Examples[/bold]

      perception eval calibrate configs/suites/street.yaml -m street

      perception eval calibrate configs/suites/street.yaml -m new.onnx -o new.onnx --overwrite
    """
    from perception.commands.terminal import progress_of_several, write_json
    from perception.common.console import print_rows, stderr
    from perception.engines.quantised import change_card
    from perception.evaluation.calibrate import calibrate
    from perception.evaluation.suite import read_suite
    from perception.sinks.files import check_output
    from perception.weights.library import find_model

    path = find_model(model)
    if output is not None:
        check_output(output, overwrite)
        running = _of_the_file(running)
    with progress_of_several() as progress:
        result = calibrate(
            model, read_suite(suite, data), progress=progress, **running.options()
        )  # fmt: skip
    if not write_json(result.as_dict(), as_json, json_file):
        if result.pixels:
            print_rows("--unknown: part of the right and of the wrong pixels that become unknown", result.pixel_rows())
        if result.boxes:
            print_rows("expected calibration error of boxes, each half by the fit on the other", result.box_rows())
            task = result.card.detection
            assert task is not None and task.calibration is not None
            typer.echo(
                f"temperature {task.calibration.temperature:g}, bias {task.calibration.bias:g}; "
                f"score threshold {task.score_threshold:g}"
            )
    if output is not None:
        change_card(path, output, **result.changes())
        stderr().print(str(output), markup=False)


def _of_the_file(running: Running) -> Running:
    """Leave ``auto`` out, which may run the eight-bit file beside the one whose card is written."""
    return replace(running, precision="fp32") if running.precision == "auto" else running
