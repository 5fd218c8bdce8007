"""The command ``perception verify``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from perception.commands.options import MODEL_HELP, Card, Json, JsonFile

_SHARES = ("mask", "worst_mask", "boxes")


def verify(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    card: Card = None,
    clip: Annotated[
        str | None, typer.Option(help="Video to compare the engines on.", show_default="a street clip")
    ] = None,
    frames: Annotated[
        int, typer.Option(min=1, help="Number of frames to compare: every fifth one from the start.")
    ] = 10,
    require: Annotated[
        float, typer.Option(min=0, max=1, help="Exit with code 1 if a smaller share of pixels or boxes agrees.")
    ] = 0.0,
    as_json: Json = False,
    json_file: JsonFile = None,
) -> None:
    """Run every installed engine on the same frames and show how closely they agree.

    [bold]Examples[/bold]

      perception verify street

      perception verify street --clip street.mp4 --frames 20 --require 0.99
    """
    from perception.commands.terminal import write_json
    from perception.diagnostics.verify import verify as verify_engines
    from perception.sources.clips import clip_frames

    results = verify_engines(model, clip_frames(clip, frames), card=card)
    rows = [asdict(result) for result in results]
    if not write_json(rows, as_json, json_file):
        _print(rows)
    raise typer.Exit(1 if min(result.least for result in results) < require else 0)


def _print(rows: list[dict[str, Any]]) -> None:
    """Print a table; columns that no engine fills are left out."""
    from perception.common.console import print_rows

    for row in rows:
        for share in _SHARES:
            row[share] = None if row[share] is None else f"{row[share]:.3%}"
    used = [key for key in rows[0] if any(row[key] not in (None, "") for row in rows)]
    print_rows("agreement", [{key: "" if row[key] is None else row[key] for key in used} for row in rows])
