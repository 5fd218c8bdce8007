"""The command ``perception summary``."""

from __future__ import annotations

from typing import Annotated

import typer

from perception.commands.options import Json, JsonFile
from perception.common.distribution import require


def summary(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help="Network: lenet5, mini_alexnet_v4, resnet34, googlenet, xception, ..., torchvision:NAME, timm:NAME; "
            "or a model by its name or .onnx file.",
        ),
    ],
    classes: Annotated[
        int | None, typer.Option(min=1, help="Number of classes.", show_default="the network's own")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Size of the image.", show_default="the network's own")
    ] = None,
    as_json: Json = False,
    json_file: JsonFile = None,
) -> None:
    """List the layers of a network: output shapes, parameters, multiplications, receptive fields.

    [bold]Examples[/bold]

      perception summary lenet5

      perception summary torchvision:vgg16 --size 448x448
    """
    require("torch", "train", "a summary of a network")
    import perception.classics  # noqa: F401 - their names, too
    from perception.commands.terminal import write_json
    from perception.common.console import print_rows
    from perception.common.settings import size as parse_size
    from perception.networks.summary import summarise_named

    result = summarise_named(model, classes, parse_size(size))
    rows = result.rows()
    if not write_json(rows, as_json, json_file):
        channels, height, width = result.input
        print_rows(f"{result.name}, {width}x{height}, {channels} channels", rows)
