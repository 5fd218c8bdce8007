"""The command ``perception export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perception.commands.options import Overwrite
from perception.common.distribution import require


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A checkpoint of `train`, or torchvision:NAME.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .onnx file to write, with the card inside.")],
    weights: Annotated[
        str | None,
        typer.Option(
            help="Weights, for torchvision:NAME: COCO_V1, DEFAULT, ..., or none (untrained).",
            show_default="DEFAULT",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WxH", help="Input size, for torchvision:NAME.", show_default="torchvision's own"
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Data set to measure a checkpoint on; its accuracy goes into the card.",
            show_default="not measured",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:  # fmt: skip
    """Export a trained network, or one of torchvision's, as a model, and check it against torch.

    [bold]Examples[/bold]

      perception export torchvision:fcos_resnet50_fpn --weights COCO_V1 -o fcos.onnx

      perception export torchvision:lraspp_mobilenet_v3_large --weights none -o lraspp.onnx

      perception export runs/camvid/best.pt -o camvid.onnx
    """
    require("torch", "train", "exporting a network")
    import perception.classics  # noqa: F401 - its networks and its task can be exported, too
    from perception.common.settings import size as parse_size
    from perception.sinks.files import check_output
    from perception.training.export.torchvision import export_any

    check_output(output, overwrite)
    written = export_any(model, output, weights=weights, size=parse_size(size), data=data)
    typer.echo(f"{output}: {written.name}, {', '.join(written.tasks)}, {written.input.width}x{written.input.height}")
