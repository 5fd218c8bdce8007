"""The command ``perception quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from perception.commands.options import INPUT, MODEL_HELP, Json, JsonFile, Overwrite

if TYPE_CHECKING:
    from perception.quantize.quantize import Quantised

ACCURACY = "Accuracy"
NOT_MEASURED = "not measured"
FIRST_IMAGES = "the first --images"


def quantize(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="The .onnx file to write; as MODEL-int8.onnx it is found beside MODEL.onnx."
        ),
    ],
    images: Annotated[
        list[Path], typer.Option(help="Folder of pictures to calibrate on; may be repeated.", rich_help_panel=INPUT)
    ],
    count: Annotated[int, typer.Option(min=1, help="Number of pictures to calibrate on.", rich_help_panel=INPUT)] = 100,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Folder of label PNGs to measure masks on.", show_default=NOT_MEASURED, rich_help_panel=ACCURACY
        ),
    ] = None,
    labelled: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the pictures that belong to --labels.", show_default=FIRST_IMAGES, rich_help_panel=ACCURACY
        ),
    ] = None,
    ignore: Annotated[
        list[int] | None,
        typer.Option(help="Label id to ignore; may be repeated.", show_default="none", rich_help_panel=ACCURACY),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="COCO JSON to measure boxes on.", show_default=NOT_MEASURED, rich_help_panel=ACCURACY),
    ] = None,
    annotated: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the pictures that belong to --annotations.", show_default=FIRST_IMAGES,
            rich_help_panel=ACCURACY,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder or .zip of CLASS/NAME.jpg to measure classes on.", show_default=NOT_MEASURED,
            rich_help_panel=ACCURACY,
        ),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(
            help="YAML of synonyms, 'name in the data: name in the model'.", show_default="names match as they are",
            rich_help_panel=ACCURACY,
        ),
    ] = None,
    max_drop: Annotated[
        float,
        typer.Option(min=0, max=1, help="Largest loss of mean IoU or accuracy to allow.", rich_help_panel=ACCURACY),
    ] = 0.007,
    max_box_drop: Annotated[
        float, typer.Option(min=0, max=1, help="Largest loss of mAP50 to allow.", rich_help_panel=ACCURACY)
    ] = 0.01,
    overwrite: Overwrite = False,
    as_json: Json = False,
    json_file: JsonFile = None,
) -> None:  # fmt: skip
    """Quantise a model to eight bits; show accuracy, time and size before and after.

    Layers that cost more accuracy than allowed stay in float. The file runs on CPUs and in TensorRT.

    [bold]Example[/bold]

      perception quantize camvid --images train/images --labelled val/images --labels val/labels --ignore 11
      -o camvid-int8.onnx
    """
    from perception.commands.terminal import working, write_json
    from perception.evaluation.classes import read_synonyms
    from perception.quantize.accuracy import Validation
    from perception.quantize.quantize import quantize as quantize_model

    validation = Validation(
        images=labelled or images[0], labels=labels, ignore=ignore or (), boxed=annotated or images[0],
        annotations=annotations, synonyms=read_synonyms(names), labelled=data, max_drop=max_drop,
        max_box_drop=max_box_drop,
    )  # fmt: skip
    with working(model, "quantising") as progress:
        result = quantize_model(
            model, images, output, count=count, validation=validation, overwrite=overwrite, progress=progress
        )
    if not write_json(result.as_dict(), as_json, json_file):
        _print(result, output)


def _print(result: Quantised, output: Path) -> None:
    """Print a table of before and after, and what became of the layers."""
    from rich.markup import escape

    from perception.common.console import print_rows, stderr
    from perception.common.text import counted

    print_rows("before and after", result.rows())
    facts = result.card.quantization
    assert facts is not None
    kept = f"{len(facts.float_layers)} in float: {', '.join(facts.float_layers)}" if facts.float_layers else "all"
    stderr().print(f"calibrated on {escape('; '.join(facts.calibrated_on))}, by {escape(facts.tool)}")
    stderr().print(f"{counted(result.layers, 'layer')} in eight bits, {escape(kept)}")
    stderr().print(f"{escape(str(output))}: {escape(result.card.name)}")
