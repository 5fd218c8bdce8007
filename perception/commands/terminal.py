"""Output that several commands share: log lines, JSON, progress on standard error."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from perception.common.console import print_json_lines, stderr
from perception.common.log_lines import REQUEST, JsonFormatter
from perception.common.phases import phase_rows
from perception.common.waits import WAITS
from perception.errors import SinkError


class _LogLines(logging.Handler):
    """One line a message, however long: Rich's own handler folds it at 80 columns where there is no terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        level = (f"{record.levelname:8} ", f"logging.level.{record.levelname.lower()}")
        try:
            request = f" (request {REQUEST.get()})" if REQUEST.get() else ""
            text = self.format(record)
            text = text.replace("\n", f"{request}\n", 1) if "\n" in text else text + request  # before a traceback
            stderr().print(Text.assemble(*([] if record.name == WAITS else [level]), text))
        except Exception:  # as every handler: what logs is not to fail by it
            self.handleError(record)


def log_to_stderr(debug: bool = False, as_json: bool = False) -> None:
    """Send the package's warnings to standard error, one line each, without tearing a progress bar.

    What the user waits for is said, too, see `perception.common.waits`; ``--quiet`` turns that off. Uvicorn's warnings
    go the same way.

    Args:
        debug: of the package all lines.
        as_json: each line, and all else that is printed on standard error, is a JSON object; see
            `perception.common.log_lines.json_line`.
    """
    handler: logging.Handler = _LogLines()
    if as_json:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
        sys.excepthook = _log_crash
    print_json_lines(as_json)
    logger = logging.getLogger("perception")
    logger.handlers = [handler]
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)
    theirs = logging.getLogger("uvicorn")
    theirs.handlers, theirs.propagate = [handler], False  # as Uvicorn sets it up by itself
    logging.getLogger(WAITS).setLevel(logging.INFO)


def print_phases() -> None:
    """Print on standard error what the time of the start went to; phases lie in and beside each other."""
    console = stderr()
    console.print("began (s)  took (s)  where the time went")
    for row in phase_rows():
        console.print(f"{row['from_s']:9.2f}  {row['took_s']:8.2f}  {escape(row['what'])}")


def _log_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """`sys.excepthook` for a log in JSON."""
    logging.getLogger("perception").critical("%s", error or kind.__name__, exc_info=(kind, error, trace))


def write_json(data: Any, as_json: bool, file: Path | None = None) -> bool:
    """Write data as JSON to standard output, to a file, or both, as the options ``--json`` and ``--json-file`` say.

    Returns:
        Whether standard output is taken: nothing else may be printed there.

    Raises:
        SinkError: the file cannot be written.
    """
    text = json.dumps(data, indent=2) + "\n"
    if file is not None:
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise SinkError(f"cannot be written: {error.strerror}", file) from None
    if as_json:
        sys.stdout.write(text)
    return as_json


@contextmanager
def working(model: str, what: str) -> Iterator[Callable[[str, int, int], None] | None]:
    """Show a line that tells how far long work on a model is, where standard error is a terminal; else give None."""
    console = stderr()
    if not console.is_terminal:
        yield None
        return
    with console.status(f"{escape(model)}: {what}") as status:
        yield lambda phase, done, steps: status.update(f"{escape(model)}: {escape(phase)}, {done} of {steps}")


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a bar moved by calls with (done, all), where standard error is a terminal; else give None."""
    console = stderr()
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(escape(what), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def progress_of_several() -> Iterator[Callable[[str, int, int], None] | None]:
    """Show a bar moved by calls with (what, done, all), where standard error is a terminal; else give None."""
    console = stderr()
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def moved(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for earlier in tasks.values():
                    bar.update(earlier, visible=False)
                tasks[what] = bar.add_task(escape(what), total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield moved
