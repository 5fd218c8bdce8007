"""The commands ``perception weights``: average, shrink, release, store and make trained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perception.commands.options import INPUT, MODEL_HELP, Json, JsonCommand, JsonFile, Overwrite
from perception.common.distribution import require
from perception.errors import UsageError

weights = typer.Typer(
    no_args_is_help=True,
    help="""Average, shrink and release trained weights.

    [bold]Examples[/bold]

      perception weights soup runs/a/best.pt runs/b/best.pt -o soup.pt

      perception weights release runs/street/best.pt -o street.onnx
    """,
)

Output = Annotated[Path, typer.Option("-o", "--output", help="The file to write.")]
Data = Annotated[Path | None, typer.Option(help="Root folder of the data.", show_default="data.root of the recipe")]


@weights.command("soup")
def soup(
    checkpoints: Annotated[
        list[Path], typer.Argument(metavar="CHECKPOINT", help="Two or more checkpoints of one network.")
    ],
    output: Output,
    shares: Annotated[
        str | None, typer.Option(help="Share of each checkpoint, comma-separated.", show_default="equal shares")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Average the weights of several checkpoints into one (a model soup).

    [bold]Examples[/bold]

      perception weights soup runs/a/best.pt runs/b/best.pt -o soup.pt

      perception weights soup runs/a/best.pt runs/b/best.pt --shares 0.4,0.6 -o soup.pt
    """
    require("torch", "train", "averaging weights")
    from perception.sinks.files import check_output
    from perception.training.weights.soup import soup as average

    check_output(output, overwrite)
    average(checkpoints, output, _numbers(shares))
    typer.echo(f"{output}")


@weights.command("compact")
def compact(
    checkpoint: Annotated[
        str,
        typer.Argument(metavar="CHECKPOINT", help="A checkpoint; with --recipe, a model (name or .onnx file)."),
    ],
    output: Output,
    recipe: Annotated[
        Path | None, typer.Option(help="Recipe of the model's network.", show_default="the input is a checkpoint")
    ] = None,
    data: Data = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a checkpoint of a seventh of the size; from a model file, one as if training had just started with it.

    [bold]Examples[/bold]

      perception weights compact runs/street/last.pt -o street.pt

      perception weights compact street-wide --recipe configs/train/street-wide.yaml -o teacher.pt
    """
    require("torch", "train", "writing a checkpoint")
    from perception.sinks.files import check_output

    check_output(output, overwrite)
    if recipe is None:
        if data is not None:
            raise UsageError("--data belongs to --recipe; a checkpoint alone needs no data")
        from perception.training.weights.compact import compact as write_compact

        write_compact(checkpoint, output)
    else:
        from perception.training.run.import_model import import_model

        import_model(checkpoint, recipe, output, data)
    typer.echo(f"{output}")


@weights.command("release")
def release(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint of `train`.")],
    output: Output,
    recipe: Annotated[
        Path | None,
        typer.Option(help="Recipe with the text of the card.", show_default="the recipe stored in the checkpoint"),
    ] = None,
    data: Data = None,
    overwrite: Overwrite = False,
) -> None:
    """Export a checkpoint with weights in half precision, measure that file, and put its accuracy into its card.

    [bold]Example[/bold]

      perception weights release runs/street/best.pt -o street.onnx
    """
    require("torch", "train", "exporting a network")
    import perception.classics  # noqa: F401 - its networks and its task can be exported, too
    from perception.sinks.files import check_output
    from perception.training.export.release import release as export

    check_output(output, overwrite)
    card = export(checkpoint, output, data, recipe)
    for name, value in card.metrics.items():
        typer.echo(f"{name:40} {value:.4f}")


@weights.command("imagenet")
def imagenet(output: Output, overwrite: Overwrite = False) -> None:
    """Write the imagenet model: EfficientNet-Lite0 with its published weights.

    [bold]Example[/bold]

      perception weights imagenet -o imagenet.onnx
    """
    require("torch", "train", "exporting a network")
    from perception.sinks.files import check_output
    from perception.training.export.imagenet import export_imagenet

    check_output(output, overwrite)
    export_imagenet(output)
    typer.echo(f"{output}")


@weights.command("half")
def half(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    output: Output,
    overwrite: Overwrite = False,
) -> None:
    """Store the weights of a model in half precision: half the size, the same arithmetic.

    [bold]Example[/bold]

      perception weights half mine.onnx -o mine-half.onnx
    """
    require("torch", "train", "storing weights in half precision")
    from perception.sinks.files import check_output
    from perception.training.weights.half_weights import write_half
    from perception.weights.library import find_model

    check_output(output, overwrite)
    change = write_half(find_model(model), output)
    typer.echo(f"{output}: weights changed by at most {change:.2e} of the largest of their tensor")


@weights.command("make", cls=JsonCommand)
def make(
    name: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Name of a model that ships.", show_default="all")
    ] = None,
    plans: Annotated[Path, typer.Option("--plans", help="YAML file of the steps.", rich_help_panel=INPUT)] = Path(
        "configs/models/shipped.yaml"
    ),
    run: Annotated[bool, typer.Option("--run", help="Do the steps that are not done yet; takes hours.")] = False,
    as_json: Json = False,
    json_file: JsonFile = None,
) -> None:
    """Print how the models that ship are made, from data to card, or make them.

    [bold]Examples[/bold]

      perception weights make street

      perception weights make street --run
    """
    from perception.commands.terminal import write_json
    from perception.common.console import print_rows
    from perception.training.export.making import do, read_plans, steps_of

    steps = steps_of(read_plans(plans), name)
    rows = [
        {
            "model": model,
            "hours": step.hours,
            "done": step.done,
            "command": step.run,
            "makes": step.makes and str(step.makes),
        }
        for model, step in steps
    ]
    if not run:
        if not write_json(rows, as_json, json_file):
            print_rows("steps", [{**row, "done": "yes" if row["done"] else ""} for row in rows])
        return
    for number, (model, step) in enumerate(steps, 1):
        if step.done:
            typer.echo(f"[{number}/{len(steps)}] {model}: {step.makes} is there", err=True)
            continue
        typer.echo(f"[{number}/{len(steps)}] {model}, about {step.hours:g} hours: {step.run}", err=True)
        do(step)
    write_json(rows, as_json, json_file)


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--shares takes numbers, for example 0.4,0.6, not {text!r}") from None
