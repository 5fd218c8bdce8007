"""Reports of ``annotate`` and ``demo`` on each source: a progress bar, a summary, or an error."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from perception.common.console import complain, stderr

if TYPE_CHECKING:
    from perception.annotate import Result
    from perception.sources.base import Source

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it (128 + SIGINT)."""


class Reporter:
    """Reports on the annotation of one source after another, on standard error.

    Args:
        quiet: print errors only. A progress bar is shown only where standard error is a terminal.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._progress: Progress | None = None

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
        name = escape(Path(source.info.uri).name or source.info.uri)
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
        elif result.report is not None and not self._quiet:
            stderr().print(summary(result))


def summary(result: Result) -> str:
    """Say in three lines what was done and where the time went."""
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
        f"  median ms per frame (stages overlap): {stages}\n"
        f"  {report.cpu_ms_per_frame:.1f} core-ms per frame, cores {100 * report.utilisation:.0f}% busy; "
        f"{report.engine}"
    )


def exit_code(results: Sequence[Result]) -> int:
    """Choose the exit code of a batch: the first error's, else 130 if it was interrupted, else 0."""
    for result in results:
        if result.error is not None:
            return result.error.exit_code
    return INTERRUPTED if any(r.report is not None and r.report.interrupted for r in results) else 0
