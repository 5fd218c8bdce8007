"""The command ``perception gpu-check``."""

from __future__ import annotations

from typing import Annotated

import typer

from perception.commands.options import Json, JsonFile


def gpu_check(
    quick: Annotated[bool, typer.Option("--quick", help="Less of each block: two minutes in place of nine.")] = False,
    as_json: Json = False,
    json_file: JsonFile = None,
) -> None:
    """Check everything that runs on an NVIDIA GPU, and print a table; exits with 1 if a block failed.

    Each block runs in a process of its own. Without a GPU, what can be simulated is, and says so.

    [bold]Examples[/bold]

      perception gpu-check

      perception gpu-check --quick --json-file gpu.json
    """
    from perception.commands.terminal import working, write_json
    from perception.gpu_check import BLOCKS, as_data, as_table, passed, run_blocks

    outcomes = []
    with working("gpu-check", BLOCKS[0].what) as progress:
        for outcome in run_blocks(quick=quick):
            outcomes.append(outcome)
            if progress is not None:
                progress(f"{outcome.what}: {outcome.status}", len(outcomes), len(BLOCKS))
    if not write_json(as_data(outcomes, quick), as_json, json_file):
        typer.echo(as_table(outcomes))
    if not passed(outcomes):
        raise typer.Exit(1)
