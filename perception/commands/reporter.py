"""Reports of ``annotate`` and ``demo`` on each source: a progress bar, a summary, or an error."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from perception.common.console import complain, in_flags, stderr
from perception.common.text import counted
from perception.common.waits import WAITS

if TYPE_CHECKING:
    from perception.annotate import Result, RunSummary
    from perception.batch import Batch, Progress
    from perception.propagation.loss import PropagationLoss
    from perception.sources.base import Source


class Reporter:
    """Reports on the annotation of one source after another, on standard error.

    Args:
        quiet: print errors only. A progress bar is shown only where standard error is a terminal.
        stats: say for each source how long each step took.
    """

    def __init__(self, quiet: bool = False, stats: bool = False) -> None:
        self._quiet = quiet
        self._stats = stats
        self._progress: Bar | None = None
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
        self._progress = Bar(
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
            for line in summary(result, self._stats):
                stderr().print(line)

    def run_batch(self, batch: Batch) -> RunSummary:
        """Run a batch, with a bar for the whole of it."""
        with ExitStack() as bars:
            running = batch.run(lambda total: bars.enter_context(self._bar(total)))
            try:
                for result in running:
                    if not result.skipped:  # there may be thousands; they are counted at the end
                        self.finished(result)
            except KeyboardInterrupt as interrupt:  # here, and not while it was working
                with suppress(StopIteration):
                    running.throw(interrupt)
        return batch.summary

    @contextmanager
    def _bar(self, total: int) -> Iterator[Callable[[Progress], None] | None]:
        """Show one bar for a whole batch, where standard error is a terminal; gives the callback that moves it."""
        console = stderr()
        if self._quiet or not console.is_terminal:
            yield None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[rest]}"))
        with Bar(*columns, console=console, transient=True) as bar:
            task = bar.add_task(f"0 of {total}", total=1.0, rest="")

            def moved(progress: Progress) -> None:
                bar.update(
                    task, completed=progress.part, description=f"{progress.done} of {progress.total}",
                    rest=remaining(progress.remaining_s),
                )  # fmt: skip

            yield moved

    def ended(self, summed: RunSummary) -> None:
        """Print what became of several sources, or of several pictures of which some failed, in one line."""
        results = summed.results
        if self._quiet or not (summed.total > 1 or summed.stopped or summed.unreadable):
            return
        shared = [path for kind, path in results[-1].outputs.items() if kind in results[-1].shared] if results else []
        if shared and results[-1].own:
            stderr().print(escape(f"of all of them: {', '.join(shared)}"))
        stderr().print(escape(in_flags(summed.line())))


def remaining(seconds: float | None) -> str:
    """Say how long something takes yet, no more exactly than it is known: ``about 2 h 10 min left``."""
    if seconds is None:
        return ""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute left" if seconds < 50 else "about 1 min left"
    if minutes < 60:
        return f"about {minutes} min left"
    hours, minutes = divmod(round(minutes / 10) * 10, 60)
    return f"about {hours} h {minutes} min left" if hours < 10 and minutes else f"about {hours} h left"


def place(result: Result) -> str:
    """Return the place of a source among several: ``[2/4]`` and a space, as Rich's markup."""
    return escape(f"[{result.number}/{result.total}] ") if result.total > 1 else ""


def summary(result: Result, stats: bool = False) -> list[str]:
    """Return lines in Rich's markup: what was done, and with ``stats`` where the time went."""
    from perception.sources.uri import redact

    report = result.report
    head = f"{place(result)}[bold]{escape(redact(result.source))}[/]"
    if report is None:
        return [f"{head} skipped: its outputs are there"]
    state = "interrupted after" if report.interrupted else "done:"
    frame = "picture" if result.pictures else "frame"
    dropped = f", {report.dropped} dropped" if report.dropped else ""
    dropped += f", {len(result.unreadable)} cannot be read" if result.unreadable else ""
    written = ", ".join(escape(p) for p in [*(result.own or result.outputs).values(), *result.published])
    stages = ", ".join(f"{name} {ms:.1f}" for name, ms in report.stage_ms.items())
    lines = [
        f"{head} {state} {counted(report.frames, frame)}{dropped} in {report.seconds:.1f} s, "
        f"[bold]{report.fps:.1f} {'pictures/s' if result.pictures else 'fps'}[/] -> {written}"
    ]
    if report.seen is not None and report.loss is not None:
        lines.append(f"  {seen_line(report.seen, report.frames, report.loss)}")
    if not stats:
        return lines
    return [
        *lines,
        f"  median ms per {frame} (stages overlap): {stages}",
        f"  {report.cpu_ms_per_frame:.1f} core-ms per {frame}, cores {100 * report.utilisation:.0f}% busy; "
        f"{escape(report.engine)}",
    ]


def seen_line(seen: int, frames: int, loss: PropagationLoss) -> str:
    """Return how many frames the network saw, and what that loses as far as it was measured, in one line."""
    told = []
    for kind, measured in loss.as_dict().items():
        error = "" if measured["interval"] is None else f" (± {measured['interval']:.1%})"
        told.append(f"{measured['loss']:.1%}{error} of the {kind}")
    words = f"that loses {' and '.join(told)}" if told else "what that loses was not measured: too few frames"
    return f"the network saw {seen} of {counted(frames, 'frame')}; {words}"
