"""The ``perception`` command: its subcommands, each in a file of its own, and its exit codes.

Results go to standard output, everything about them (progress, warnings, summaries, errors) to standard error.
Exit codes: 0 done, 1 failed, 2 bad usage or bad input, 3 partly done, 130 interrupted.
"""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from typing import Annotated, Any, Literal

import typer

from perception.commands.completion import prepare_completion
from perception.commands.options import JsonCommand
from perception.common.phases import STARTED, note
from perception.errors import PerceptionError, out_of_memory

_HELP = """Streaming video perception: boxes and class masks for live and recorded video, on a GPU or a plain CPU.

    [bold]Examples[/bold]

      perception demo

      perception annotate street.mp4 -o annotated.mp4

      perception live
    """
_COMMANDS = (
    *("annotate", "demo", "live", "track", "doctor", "build", "verify", "gpu-check", "adapt", "bench", "train"),
    *("pseudo-label", "export", "quantize", "explain", "summary", "completion"),
)
_GROUPS = ("models", "cache", "eval", "data", "weights", "classics")
_ELSEWHERE = {"eval": ("evaluate", "evaluation")}
"""Module, and name in it, of what is not called as its command is."""

LogFormat = Literal["text", "json"]


def _main(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version, and in a checkout its revision.", is_eager=True)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Print the traceback of an error, and what the time of the start went to.")
    ] = False,
    log_format: Annotated[
        LogFormat,
        typer.Option(
            envvar="PERCEPTION_LOG_FORMAT", help="Lines on standard error: text, or JSON objects for log collectors."
        ),
    ] = "text",
) -> None:
    note("Python and the command line", STARTED)
    if ctx.invoked_subcommand is not None:
        from perception.commands.terminal import log_to_stderr

        log_to_stderr(debug, log_format == "json")
    if version:
        from perception.common.version import full_version

        typer.echo(full_version())
        raise typer.Exit


def command_line(only: str | None = None) -> typer.Typer:
    """Make the command with its subcommands.

    Args:
        only: the one that is made: to look at the options of them all takes longer than a start should. None: all.
    """
    made = typer.Typer(
        name="perception",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
        help=_HELP,
    )
    made.callback(invoke_without_command=True)(_main)
    for name in _COMMANDS:
        if only in (None, name):
            made.command(cls=JsonCommand)(_found(name))
    for name in _GROUPS:
        if only in (None, name):
            made.add_typer(_found(name), name=name)
    return made


def _found(name: str) -> Any:
    """Import a command, or a group of commands: mostly it has the name of its module."""
    plain = name.replace("-", "_")
    module, attribute = _ELSEWHERE.get(name, (plain, plain))
    return getattr(import_module(f"perception.commands.{module}"), attribute)


def __getattr__(name: str) -> Any:
    """Make ``app``, the command with all subcommands, when it is asked for (PEP 562)."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()["app"] = made = command_line()
    return made


def main() -> None:
    """Run the ``perception`` command: the entry point."""
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    sys.argv[1:] = [*(["--debug"] if debug else []), *_log_format_first(sys.argv[1:])]
    # `docker stop` and systemd send SIGTERM: treated as Ctrl-C, so that outputs are finished and not left as drafts.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    prepare_completion()
    try:
        command_line(_named(sys.argv[1:]))()
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
    finally:
        if debug:
            from perception.commands.terminal import print_phases

            print_phases()


def _log_format_first(words: list[str]) -> list[str]:
    """Move ``--log-format`` to the front: it, too, is accepted anywhere."""
    for i, word in enumerate(words):
        if word == "--":
            break
        if word == "--log-format" or word.startswith("--log-format="):
            count = 1 if "=" in word else 2
            return words[i : i + count] + words[:i] + words[i + count :]
    return words


def _named(words: list[str]) -> str | None:
    """The command that a line names, if nothing stands before it that may want to know all of them."""
    words = words[words[:1] == ["--debug"] :]
    count = 0 if not words or not words[0].startswith("--log-format") else 1 if "=" in words[0] else 2
    named = "".join(words[count : count + 1])
    return named if named in (*_COMMANDS, *_GROUPS) else None


def _complain(error: PerceptionError) -> None:
    from perception.common.console import complain

    complain(error)
    sys.exit(error.exit_code)
