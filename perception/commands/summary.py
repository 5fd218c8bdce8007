"""The command ``perception summary``."""

from __future__ import annotations

from typing import Annotated

import typer

from perception.commands.options import Json
from perception.errors import require


def summary(
    model: Annotated[
        str,
        typer.Argument(
            help="lenet5, mini_alexnet_v4, resnet34, googlenet, xception, ..., torchvision:NAME, timm:NAME; or a model "
            "by its name or .onnx file."
        ),
    ],
    classes: Annotated[int | None, typer.Option(min=1, help="Classes of its head.")] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Of the image; its own by default.")] = None,
    as_json: Json = None,
) -> None:
    """Print what each layer of a network gives, costs and sees: shapes, parameters, multiplications, receptive field.

    [bold]Examples[/bold]

      perception summary lenet5

      perception summary torchvision:vgg16 --size 448x448
    """
    require("torch", "train", "a summary of a network")
    import perception.classics  # noqa: F401 - their names, too
    from perception.commands.terminal import print_rows
    from perception.common.settings import size as parse_size
    from perception.networks.summary import summarise_named

    result = summarise_named(model, classes, parse_size(size))
    channels, height, width = result.input
    title = f"{result.name}, {width}x{height}, {channels} channels"
    print_rows(title, result.rows(), as_json)
