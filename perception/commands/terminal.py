"""What a person reads in the terminal: progress, summaries and tables (Rich).

Progress and summaries go to standard error, so that standard output stays clean for data.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from perception.errors import PerceptionError, SinkError

if TYPE_CHECKING:
    from perception.annotate import Result
    from perception.diagnostics.verify import Agreement
    from perception.engines.trt.build import Built
    from perception.engines.trt.cache import EngineCache
    from perception.evaluation.check import DataCheck
    from perception.evaluation.result import Evaluation
    from perception.sources.base import Source

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it (128 + SIGINT)."""


@cache
def stderr() -> Console:
    """The console on standard error."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


@cache
def stdout() -> Console:
    """The console on standard output."""
    console = Console(highlight=False)
    # A pipe or a log has no width of its own; 80 columns would fold every table.
    return console if console.is_terminal else Console(highlight=False, width=160)


class _LogLines(logging.Handler):
    """One line a message, however long: Rich's own handler folds it at 80 columns where there is no terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        level = (f"{record.levelname:8} ", f"logging.level.{record.levelname.lower()}")
        try:
            stderr().print(Text.assemble(level, self.format(record)))
        except Exception:  # as every handler: what logs is not to fail by it
            self.handleError(record)


def log_to_stderr(debug: bool = False) -> None:
    """Send the package's warnings to standard error, one line each, without tearing a progress bar."""
    logger = logging.getLogger("perception")
    logger.handlers = [_LogLines()]
    logger.setLevel(logging.DEBUG if debug else logging.WARNING)


def complain(error: PerceptionError) -> None:
    """One line about an error."""
    stderr().print(f"[bold red]error:[/] {escape(str(error))}")


class Reporter:
    """Tells a person how the annotation of one source after the other goes.

    Args:
        quiet: tell only errors. A progress bar is shown only where standard error is a terminal.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._progress: Progress | None = None

    def say(self, line: str) -> None:
        """One line, unless quiet."""
        if not self._quiet:
            stderr().print(escape(line))

    def started(self, result: Result, source: Source) -> Callable[[int, int], None] | None:
        """Show a progress bar for a source; returns the callback that moves it."""
        console = stderr()
        if self._quiet or not console.is_terminal:
            return None
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[fps]:6.1f} fps"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[dropped]}"),
            console=console,
            transient=True,
        )
        name = escape(source.info.uri if "://" in source.info.uri else Path(source.info.uri).name or source.info.uri)
        task = self._progress.add_task(name, total=source.info.frame_count, fps=0.0, dropped="")
        self._progress.start()

        def moved(frames: int, dropped: int) -> None:
            assert self._progress is not None
            elapsed = self._progress.tasks[0].elapsed or 0.0
            self._progress.update(
                task,
                completed=frames,
                fps=frames / elapsed if elapsed else 0.0,
                dropped=f"{dropped} dropped" if dropped else "",
            )

        return moved

    def finished(self, result: Result) -> None:
        """Take the bar away and tell what became of the source."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        if result.error is not None:
            logging.getLogger("perception").debug("where it failed", exc_info=result.error)
            complain(result.error)
        elif result.report is not None and not self._quiet:
            stderr().print(summary(result))


def summary(result: Result) -> str:
    """What was done and where the time went, three lines."""
    from perception.sources.uri import redact

    report = result.report
    assert report is not None
    state = "interrupted after" if report.interrupted else "done:"
    dropped = f", {report.dropped} dropped" if report.dropped else ""
    written = ", ".join(escape(p) for p in result.outputs.values())
    stages = ", ".join(f"{name} {ms:.1f}" for name, ms in report.stage_ms.items())
    return (
        f"[bold]{escape(redact(result.source))}[/] {state} {report.frames} frames{dropped} in {report.seconds:.1f} s, "
        f"[bold]{report.fps:.1f} fps[/] -> {written}\n"
        f"  median ms a frame (stages overlap): {stages}\n"
        f"  {report.cpu_ms_per_frame:.1f} core-ms a frame, cores {100 * report.utilisation:.0f}% busy; {report.engine}"
    )


def exit_code(results: Sequence[Result]) -> int:
    """The exit code of a batch: the first error's, else 130 if it was interrupted, else 0."""
    for result in results:
        if result.error is not None:
            return result.error.exit_code
    return INTERRUPTED if any(r.report is not None and r.report.interrupted for r in results) else 0


def print_models(models: Sequence[Any], as_json: Path | None = None) -> None:
    """The list of models, as a table."""
    rows: list[dict[str, Any]] = [
        {
            "name": m.card.name,
            "version": m.card.version,
            "tasks": ", ".join(m.card.tasks),
            "input": f"{m.card.input.width}x{m.card.input.height}",
            "MB": round(m.size_bytes / 1e6, 1),
            "licence": m.card.licence,
            "metrics": m.card.metrics,
            "path": str(m.path),
        }
        for m in models
    ]
    if as_json is not None:
        _write_json(rows, as_json)
        return
    for row in rows:
        del row["path"]
        # The one that a card lists first is its headline; the rest are in the JSON.
        row["metrics"] = next((f"{name} {value:.3f}" for name, value in row["metrics"].items()), "")
    print_rows("models", rows)


def print_checks(checks: Sequence[Any], as_json: Path | None = None) -> None:
    """The findings of ``perception doctor``, grouped."""
    if as_json is not None:
        _write_json([asdict(c) for c in checks], as_json)
        return
    marks = {"ok": "[green]ok[/]", "warn": "[yellow]warn[/]", "missing": "[red]missing[/]"}
    table = Table(show_header=False, box=None, pad_edge=False)
    group = None
    for check in checks:
        if check.group != group:
            group = check.group
            table.add_row(f"[bold]{escape(group)}[/]")
        detail = escape(check.detail) + (f"\n[dim]{escape(check.hint)}[/]" if check.hint else "")
        table.add_row(f"  {escape(check.name)}", marks[check.status], detail)
    stdout().print(table)


def print_agreements(results: Sequence[Agreement], as_json: Path | None = None) -> None:
    """How far engines agree, as a table; columns that no engine fills are left out."""
    rows = [asdict(result) for result in results]
    if as_json is not None:
        _write_json(rows, as_json)
        return
    for row in rows:
        for share in ("mask", "worst_mask", "boxes"):
            row[share] = None if row[share] is None else f"{row[share]:.3%}"
    used = [key for key in rows[0] if any(row[key] not in (None, "") for row in rows)]
    print_rows("agreement", [{key: "" if row[key] is None else row[key] for key in used} for row in rows])


@contextmanager
def working(model: str, what: str) -> Iterator[Callable[[str, int, int], None] | None]:
    """A line that tells how far long work on a model is, where standard error is a terminal; else None."""
    console = stderr()
    if not console.is_terminal:
        yield None
        return
    with console.status(f"{escape(model)}: {what}") as status:
        yield lambda phase, done, steps: status.update(f"{escape(model)}: {escape(phase)}, {done} of {steps}")


def print_built(built: Built) -> None:
    """What `perception build` made, or found in the cache."""
    recipe, engine = built.recipe, built.engine
    target = f"compute capability {', '.join(recipe.capabilities)}" if recipe.capabilities else "this GPU"
    how = f"built in {built.seconds:.1f} s: {engine.built}" if engine.built else "cached"
    lines = [
        f"[bold]{escape(recipe.model)}[/] {recipe.precision} for {target}, {len(engine.plan) / 1e6:.1f} MB",
        f"  {escape(how)}",
        f"  {escape(str(built.inspection))}",
        f"  {escape(recipe.flavour.title)}, {escape(str(recipe.profile))}",
        f"  {escape(str(engine.path or 'not kept'))}",
    ]
    stdout().print("\n".join(lines), soft_wrap=True)


def print_engines(cache: EngineCache, as_json: Path | None = None) -> None:
    """The engines in the cache, as a table."""
    rows: list[dict[str, Any]] = [
        {
            "model": entry.fields.get("model", "(damaged)"),
            "precision": entry.fields.get("precision", ""),
            "shapes": entry.fields.get("profile", ""),
            "for": ", ".join(entry.fields.get("capabilities") or ())
            or (entry.fields.get("machine") or {}).get("gpu", ""),
            "by": f"{entry.fields.get('flavour', '')} {entry.fields.get('version', '')}".strip(),
            "MB": round(entry.size_bytes / 1e6, 1),
            "used": time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used)),
            "key": entry.key if as_json else entry.key[:12],
        }
        for entry in cache.entries()
    ]
    if as_json is not None:
        _write_json(rows, as_json)
    elif rows:
        print_rows(f"engines in {cache.folder}", rows)
    else:
        stdout().print(f"no engines in {escape(str(cache.folder))}", soft_wrap=True)


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar moved by calls with (done, all), where standard error is a terminal; else None."""
    console = stderr()
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(escape(what), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def evaluate(
    run: Callable[..., Evaluation],
    model: str | None,
    *data: Path,
    report: Path | None,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Run an evaluation with a progress bar, then print it, or write it as JSON, and its report if one is wanted."""
    from perception.evaluation.report import PICTURES, Report
    from perception.weights.library import DEFAULT_MODEL

    file = None if report is None else Report(report, overwrite)
    with progress_bar("evaluate") as progress:
        result = run(model or DEFAULT_MODEL, *data, worst=PICTURES if file else 0, progress=progress, **options)
    if as_json:
        _write_json(result.as_dict(), Path("-"))
    else:
        for title, rows in result.tables():
            print_rows(title, rows)
        for name, value in result.facts().items():
            stderr().print(f"{name:6} {escape(value)}")
    if file is not None:  # last: a full disk must not cost the numbers
        file.write(result)
        if not as_json:
            stderr().print(f"report {escape(str(file.path))}")


def print_check(check: DataCheck, as_json: bool) -> None:
    """What a data set has, and every fault in it."""
    if as_json:
        _write_json(check.as_dict(), Path("-"))
        return
    print_rows("", [{"class": name, check.unit.replace("_", " "): n} for name, n in check.classes.items()])
    for fault in check.faults:
        stdout().print(escape(str(fault)), soft_wrap=True)
    faults = f"faults: {len(check.faults)}" if check.faults else "nothing wrong"
    stdout().print(f"{escape(check.data)}: {check.images} images, [bold]{faults}[/]", soft_wrap=True)


def print_tables(tables: Iterable[tuple[str, list[dict[str, Any]]]], as_json: Path | None = None) -> None:
    """Each table as soon as it is there; JSON has the rows of all of them, each with its title as ``table``."""
    all_rows: list[dict[str, Any]] = []
    for title, rows in tables:
        all_rows += [{"table": title, **row} for row in rows]
        if str(as_json) != "-":
            print_rows(title, rows)
            if as_json is not None:  # what is there survives a Ctrl-C in the next
                _write_json(all_rows, as_json)
    if str(as_json) == "-":
        _write_json(all_rows, Path("-"))


def print_rows(title: str, rows: Sequence[dict[str, Any]], as_json: Path | None = None) -> None:
    """A table of rows that share their keys; as JSON, too, if that is wanted."""
    if as_json is not None:
        _write_json(list(rows), as_json)
        if str(as_json) == "-":
            return
    table = Table(title=title, title_justify="left", title_style="bold")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    for column in columns:
        numeric = all(isinstance(row.get(column, 0), (int, float)) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column, "")) for column in columns))
    stdout().print(table)


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else escape(str(value))


def _write_json(data: Any, path: Path) -> None:
    text = json.dumps(data, indent=2)
    if str(path) == "-":
        sys.stdout.write(text + "\n")
    else:
        try:
            path.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise SinkError(f"cannot be written: {error.strerror}", path) from None
