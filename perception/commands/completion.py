"""``perception completion``: what a shell needs to complete the command line."""

from __future__ import annotations

import os
from typing import Annotated, Literal

import typer
from typer.completion import completion_init, get_completion_script

ASKED = "_PERCEPTION_COMPLETE"
"""Environment variable by which a shell asks for completions instead of running the command."""


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(help="The shell.", show_default=False)],
) -> None:
    """Print a script that completes commands and options in a shell.

    [bold]Examples[/bold]

      perception completion bash | sudo tee /etc/bash_completion.d/perception

      perception completion fish | source
    """
    typer.echo(get_completion_script(prog_name="perception", complete_var=ASKED, shell=shell))


def prepare_completion() -> None:
    """Make the command answer a shell that asks for completions."""
    if ASKED in os.environ:
        completion_init()
