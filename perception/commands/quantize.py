"""The command ``perception quantize``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perception.commands.options import INPUT

ACCURACY = "Accuracy"


def quantize_model(
    model: Annotated[str, typer.Argument(help="Name or .onnx file of the model.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The .onnx to write: MODEL-int8.onnx is found beside MODEL.onnx.")
    ],
    images: Annotated[
        list[Path], typer.Option(help="Folder of pictures to calibrate on; may be repeated.", rich_help_panel=INPUT)
    ],
    count: Annotated[int, typer.Option(min=1, help="Pictures to take.", rich_help_panel=INPUT)] = 100,
    labels: Annotated[
        Path | None, typer.Option(help="Folder of label PNGs to measure masks on.", rich_help_panel=ACCURACY)
    ] = None,
    labelled: Annotated[
        Path | None, typer.Option(help="Their pictures; the first --images where left out.", rich_help_panel=ACCURACY)
    ] = None,
    ignore: Annotated[
        list[int] | None, typer.Option(help="Label id that counts for nothing.", rich_help_panel=ACCURACY)
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="COCO JSON to measure boxes on.", rich_help_panel=ACCURACY)
    ] = None,
    annotated: Annotated[
        Path | None, typer.Option(help="Its pictures; the first --images where left out.", rich_help_panel=ACCURACY)
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder or .zip of CLASS/NAME.jpg to measure classes on.", rich_help_panel=ACCURACY),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(help="YAML of synonyms, 'name in the data: name in the model'.", rich_help_panel=ACCURACY),
    ] = None,
    max_drop: Annotated[
        float, typer.Option(min=0, max=1, help="Mean IoU or accuracy that may be lost.", rich_help_panel=ACCURACY)
    ] = 0.007,
    max_box_drop: Annotated[
        float, typer.Option(min=0, max=1, help="mAP50 that may be lost.", rich_help_panel=ACCURACY)
    ] = 0.01,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output and nothing else.")] = False,
) -> None:
    """Turn a model into eight bits, and print accuracy, time and size before and after.

    Layers that cost more accuracy than may be lost stay in float. One file for CPUs and for TensorRT.

    [bold]Example[/bold]

      perception quantize camvid --images train/images --labelled val/images --labels val/labels --ignore 11
      -o camvid-int8.onnx
    """
    from perception.commands.quantize_tables import print_quantised
    from perception.commands.terminal import working
    from perception.evaluation.classes import read_synonyms
    from perception.quantize.accuracy import Validation
    from perception.quantize.quantize import quantize

    validation = Validation(
        images=labelled or images[0], labels=labels, ignore=ignore or (), boxed=annotated or images[0],
        annotations=annotations, synonyms=read_synonyms(names), labelled=data, max_drop=max_drop,
        max_box_drop=max_box_drop,
    )  # fmt: skip
    with working(model, "quantising") as progress:
        result = quantize(
            model, images, output, count=count, validation=validation, overwrite=overwrite, progress=progress
        )
    print_quantised(result, output, as_json)
