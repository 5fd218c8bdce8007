"""Options of ``perception annotate`` for the boxes that are found."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from perception.commands.options import IN_CARD, MODEL

Score = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, help="Leave out boxes with a lower score; the others do not change.", show_default=IN_CARD,
        rich_help_panel=MODEL,
    ),
]  # fmt: skip
Iou = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, help="IoU threshold: of boxes that overlap more, keep the best only.", show_default=IN_CARD,
        rich_help_panel=MODEL,
    ),
]  # fmt: skip
MaxDetections = Annotated[
    int | None,
    typer.Option(min=1, help="Maximum number of boxes per frame.", show_default=IN_CARD, rich_help_panel=MODEL),
]  # fmt: skip
Nms = Annotated[
    Literal["nms", "soft-linear", "soft-gaussian"],
    typer.Option(help="How overlapping boxes are suppressed.", rich_help_panel=MODEL),
]  # fmt: skip
ClassAgnostic = Annotated[
    bool | None,
    typer.Option(
        help="Suppress overlapping boxes of different classes too.", show_default=IN_CARD, rich_help_panel=MODEL
    ),
]  # fmt: skip
Classes = Annotated[
    str | None,
    typer.Option(help="Only these classes, comma-separated.", show_default="all", rich_help_panel=MODEL),
]  # fmt: skip
