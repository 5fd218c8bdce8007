"""Reports of ``annotate`` and ``demo`` on each source: a progress bar, a summary, or an error."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from perception.common.console import complain, stderr
from perception.common.text import counted, listed
from perception.common.waits import WAITS

if TYPE_CHECKING:
    from perception.annotate import Result
    from perception.sources.base import Source

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it (128 + SIGINT)."""

PARTLY = 3
"""Exit code where some sources were done and others failed."""


class Reporter:
    """Reports on the annotation of one source after another, on standard error.

    Args:
        quiet: print errors only. A progress bar is shown only where standard error is a terminal.
        stats: say for each source how long each step took.
    """

    def __init__(self, quiet: bool = False, stats: bool = False) -> None:
        self._quiet = quiet
        self._stats = stats
        self._progress: Progress | None = None
        if quiet:
            logging.getLogger(WAITS).setLevel(logging.WARNING)

    def say(self, line: str) -> None:
        """Print one line, unless quiet."""
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
        name = place(result) + escape(Path(source.info.uri).name or source.info.uri)
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
        """Remove the bar and print what became of the source."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        if result.error is not None:
            logging.getLogger("perception").debug("where it failed", exc_info=result.error)
            complain(result.error)
        elif not self._quiet:
            for line in summary(result)[: None if self._stats else 1]:
                stderr().print(line)

    def ended(self, results: Sequence[Result]) -> None:
        """Print what became of several sources, or of several pictures of which some failed, in one line."""
        if not self._quiet and results and (results[-1].total > 1 or results[-1].unreadable):
            shared = [path for kind, path in results[-1].outputs.items() if kind in results[-1].shared]
            if shared and results[-1].own:
                stderr().print(escape(f"of all of them: {', '.join(shared)}"))
            stderr().print(escape(batch_summary(results)))


def place(result: Result) -> str:
    """Return the place of a source among several: ``[2/4]`` and a space, as Rich's markup."""
    return escape(f"[{result.number}/{result.total}] ") if result.total > 1 else ""


def summary(result: Result) -> list[str]:
    """Return lines in Rich's markup: what was done; then where the time went."""
    from perception.sources.uri import redact

    report = result.report
    head = f"{place(result)}[bold]{escape(redact(result.source))}[/]"
    if report is None:
        return [f"{head} skipped: its outputs are there"]
    state = "interrupted after" if report.interrupted else "done:"
    frame = "picture" if result.pictures else "frame"
    dropped = f", {report.dropped} dropped" if report.dropped else ""
    dropped += f", {len(result.unreadable)} cannot be read" if result.unreadable else ""
    written = ", ".join(escape(p) for p in (result.own or result.outputs).values())
    stages = ", ".join(f"{name} {ms:.1f}" for name, ms in report.stage_ms.items())
    return [
        f"{head} {state} {counted(report.frames, frame)}{dropped} in {report.seconds:.1f} s, "
        f"[bold]{report.fps:.1f} {'pictures/s' if result.pictures else 'fps'}[/] -> {written}",
        f"  median ms per {frame} (stages overlap): {stages}",
        f"  {report.cpu_ms_per_frame:.1f} core-ms per {frame}, cores {100 * report.utilisation:.0f}% busy; "
        f"{escape(report.engine)}",
    ]


def batch_summary(results: Sequence[Result]) -> str:
    """Say what became of several sources: ``3 of 4 done, 1 failed: b.mp4``. A folder's pictures alone are counted."""
    from perception.sources.uri import redact

    failed = [redact(result.source) for result in results if result.error is not None]
    pictures = [path for result in results for path in result.unreadable]
    skipped = sum(result.skipped for result in results)
    partly = sum(bool(result.unreadable) for result in results)
    total, done = results[-1].total, sum(result.whole for result in results)
    if total == 1 and pictures:
        report = results[0].report
        done, partly = report.frames if report is not None else 0, 0
        total = done + len(pictures)
        failed, pictures = pictures, []
    parts = [f"{done} of {total} done"]
    parts += [f"{partly} in part"] if partly else []
    parts += [f"{skipped} skipped"] if skipped else []
    if any(r.report is not None and r.report.interrupted for r in results):
        go_on = "" if results[-1].shared else ": the same command with --skip-existing goes on"
        parts.append(f"interrupted{go_on}")
    parts += [f"{len(failed)} failed: {listed(failed)}"] if failed else []
    parts += [f"{counted(len(pictures), 'picture')} failed: {listed(pictures)}"] if pictures else []
    return ", ".join(parts)


def exit_code(results: Sequence[Result]) -> int:
    """Choose the exit code: 130 after an interrupt, else 3 for partly done, else the first error's, else 0."""
    errors = [result.error for result in results if result.error is not None]
    if any(result.report is not None and result.report.interrupted for result in results):
        return INTERRUPTED
    if not errors:
        return PARTLY if any(result.unreadable for result in results) else 0
    return errors[0].exit_code if len(errors) == len(results) else PARTLY
