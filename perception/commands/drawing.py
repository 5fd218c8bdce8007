"""Options of ``perception annotate`` for what is drawn."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from perception.commands.options import DRAWING

View = Annotated[
    Literal["boxes", "panoptic"],
    typer.Option(help="Draw objects as boxes, or as outlines of their pixels.", rich_help_panel=DRAWING),
]
Opacity = Annotated[float, typer.Option(min=0, max=1, help="Opacity of the class colours.", rich_help_panel=DRAWING)]
Hide = Annotated[
    str | None,
    typer.Option(
        help="Do not draw these: masks, boxes, trails, rules, labels, legend; comma-separated.",
        show_default="all are drawn", rich_help_panel=DRAWING,
    ),
]  # fmt: skip
ShowFps = Annotated[
    bool, typer.Option("--show-fps", help="Draw the frame rate onto the picture.", rich_help_panel=DRAWING)
]
