"""The ``perception`` command: its subcommands, each in a file of its own, and its exit codes.

Results go to standard output, everything about them (progress, warnings, summaries, errors) to standard error.
Exit codes: 0 done, 1 failed, 2 bad usage or bad input, 3 partly done, 130 interrupted.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

from perception.commands.adapt import adapt
from perception.commands.annotate import annotate
from perception.commands.bench import bench
from perception.commands.build import build
from perception.commands.cache import cache
from perception.commands.classics import classics
from perception.commands.completion import completion, prepare_completion
from perception.commands.data import data
from perception.commands.demo import demo
from perception.commands.doctor import doctor
from perception.commands.evaluate import evaluation
from perception.commands.explain import explain
from perception.commands.export import export
from perception.commands.gpu_check import gpu_check
from perception.commands.live import live
from perception.commands.models import models
from perception.commands.options import JsonCommand
from perception.commands.pseudo_label import pseudo_label
from perception.commands.quantize import quantize
from perception.commands.suite import eval_calibrate, eval_suite, eval_table
from perception.commands.summary import summary
from perception.commands.track import track
from perception.commands.train import train
from perception.commands.verify import verify
from perception.commands.weights import weights
from perception.errors import PerceptionError, out_of_memory

app = typer.Typer(
    name="perception",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Streaming video perception: boxes and class masks for live and recorded video, on a GPU or a plain CPU.

    [bold]Examples[/bold]

      perception demo

      perception annotate street.mp4 -o annotated.mp4

      perception live
    """,
)
_COMMANDS: tuple[Callable[..., Any], ...] = (
    *(annotate, demo, live, track, doctor, build, verify, gpu_check),
    *(adapt, bench, train, pseudo_label, export, quantize, explain, summary),
    completion,
)
for _command in _COMMANDS:
    app.command(cls=JsonCommand)(_command)
evaluation.command("suite", cls=JsonCommand)(eval_suite)
evaluation.command("calibrate", cls=JsonCommand)(eval_calibrate)
evaluation.command("table")(eval_table)
app.add_typer(models, name="models")
app.add_typer(cache, name="cache")
app.add_typer(evaluation, name="eval")
app.add_typer(data, name="data")
app.add_typer(weights, name="weights")
app.add_typer(classics, name="classics")


LogFormat = Literal["text", "json"]


@app.callback(invoke_without_command=True)
def _main(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version, and in a checkout its revision.", is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error.")] = False,
    log_format: Annotated[
        LogFormat,
        typer.Option(
            envvar="PERCEPTION_LOG_FORMAT", help="Lines on standard error: text, or JSON objects for log collectors."
        ),
    ] = "text",
) -> None:
    if ctx.invoked_subcommand is not None:
        from perception.commands.terminal import log_to_stderr

        log_to_stderr(debug, log_format == "json")
    if version:
        from perception.common.version import full_version

        typer.echo(full_version())
        raise typer.Exit


def main() -> None:
    """Run the ``perception`` command: the entry point."""
    debug = "--debug" in sys.argv
    if debug:
        # Accepted anywhere on the line, not only before the command.
        sys.argv.remove("--debug")
    sys.argv[1:] = _log_format_first(sys.argv[1:])
    # `docker stop` and systemd send SIGTERM: treated as Ctrl-C, so that outputs are finished and not left as drafts.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    prepare_completion()
    try:
        app()
    except PerceptionError as error:
        if debug:
            raise
        _complain(error)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        told = out_of_memory(error)
        if debug or told is None:
            raise
        _complain(told)


def _log_format_first(words: list[str]) -> list[str]:
    """Move ``--log-format`` to the front: it, too, is accepted anywhere."""
    for i, word in enumerate(words):
        if word == "--":
            break
        if word == "--log-format" or word.startswith("--log-format="):
            count = 1 if "=" in word else 2
            return words[i : i + count] + words[:i] + words[i + count :]
    return words


def _complain(error: PerceptionError) -> None:
    from perception.common.console import complain

    complain(error)
    sys.exit(error.exit_code)
