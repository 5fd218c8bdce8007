"""The command ``perception verify``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from perception.commands.options import MODEL_HELP, Card, Json, JsonFile

_SHARES = ("mask", "worst_mask", "boxes")
_MEANINGS = {
    "logits": "largest difference of the network's output for pixels, before the argmax",
    "mask": "share of pixels that get the same class as in the reference",
    "worst_mask": "the same in the frame that agrees least",
    "boxes": "share of boxes that the reference has too: same class, overlap of at least 0.9",
    "scores": "largest difference of the scores of such boxes",
    "probabilities": "largest difference of the probabilities of labels",
    "fault": "why the engine did not run",
}


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
    """Run every installed engine on the same frames and say whether they agree.

    [bold]Examples[/bold]

      perception verify street-open

      perception verify street-open --clip street.mp4 --frames 20 --require 0.99
    """
    from perception.commands.terminal import write_json
    from perception.diagnostics.verify import verify as verify_engines
    from perception.sources.clips import clip_frames

    results = verify_engines(model, clip_frames(clip, frames), card=card)
    rows = [{**asdict(result), "verdict": result.verdict} for result in results]
    if not write_json(rows, as_json, json_file):
        _print(rows)
    raise typer.Exit(1 if min(result.least for result in results) < require else 0)


def _print(rows: list[dict[str, Any]]) -> None:
    """Print a table, what its columns mean, and whether it is good; columns that no engine fills are left out."""
    from perception.common.console import print_rows
    from perception.diagnostics.verify import EXPECTED

    bad = [f"{row['engine']} {row['precision']}" for row in rows if row["verdict"] in ("differs", "failed")]
    for row in rows:
        for share in _SHARES:
            row[share] = None if row[share] is None else f"{row[share]:.3%}"
    used = [key for key in rows[0] if any(row[key] not in (None, "") for row in rows)]
    print_rows("agreement", [{key: "" if row[key] is None else row[key] for key in used} for row in rows])
    for key in used:
        if key in _MEANINGS:
            typer.echo(f"{key}: {_MEANINGS[key]}")
    limits = ", ".join(f"{share:.1%} in {name}" for name, share in EXPECTED.items() if name != "int8")
    typer.echo(f"verdict: good where at least so many pixels and boxes agree: {limits}")
    if any(row["verdict"] == "quantised" for row in rows):
        typer.echo(
            "quantised: another model, which differs by more than rounding; `perception eval` says how good it is"
        )
    typer.echo(f"NOT GOOD: {', '.join(bad)}" if bad else "All engines agree as far as their precisions allow.")
