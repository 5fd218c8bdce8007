"""What became of several sources: the last line, the exit code and the JSON of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from perception.annotate.result import Result
from perception.common.text import counted, listed
from perception.sources.uri import redact

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it (128 + SIGINT)."""

PARTLY = 3
"""Exit code where some sources were done and others failed."""


@dataclass(frozen=True)
class RunSummary:
    """What became of the sources of a run.

    Attributes:
        results: of the sources that were come to, in any order.
        total: how many sources there are.
        interrupted: Ctrl-C ended it, or what stopped it is in ``stopped``.
        stopped: why it ended before all were come to; empty where it did not.
        goes_on: an option of the command line that would go on; empty where none would.
    """

    results: Sequence[Result]
    total: int
    interrupted: bool = False
    stopped: str = ""
    goes_on: str = ""

    @classmethod
    def of(cls, results: Sequence[Result]) -> RunSummary:
        """Sum up sources that were annotated one after the other; there is one at least."""
        interrupted = any(result.report is not None and result.report.interrupted for result in results)
        return cls(results, results[-1].total, interrupted, goes_on="" if results[-1].shared else "--skip-existing")

    @property
    def done(self) -> int:
        """How many were done to the end."""
        return sum(result.whole for result in self.results)

    @property
    def skipped(self) -> int:
        """How many were done before."""
        return sum(result.skipped for result in self.results)

    @property
    def failed(self) -> list[Result]:
        """Those that failed."""
        return [result for result in self.results if result.error is not None]

    @property
    def unreadable(self) -> list[str]:
        """Images of all of them that could not be read."""
        return [redact(path) for result in self.results for path in result.unreadable]

    @property
    def exit_code(self) -> int:
        """130 after an interrupt, else 3 for partly done, else the first error's, else 0."""
        failed = self.failed
        if self.interrupted:
            return INTERRUPTED
        if not failed:
            return PARTLY if self.unreadable else 0
        assert failed[0].error is not None
        return failed[0].error.exit_code if len(failed) == len(self.results) else PARTLY

    def line(self) -> str:
        """Return one line: ``3 of 4 done, 1 failed: b.mp4``. A folder's pictures alone are counted."""
        failed = [redact(result.source) for result in self.failed]
        pictures, total, done = self.unreadable, self.total, self.done
        partly = sum(bool(result.unreadable) and not result.skipped for result in self.results)
        if total == 1 and pictures and not self.skipped:
            report = self.results[0].report
            done, partly = report.frames if report is not None else 0, 0
            total = done + len(pictures)
            failed, pictures = pictures, []
        parts = [f"{done} of {total} done"]
        parts += [f"{partly} in part"] if partly else []
        parts += [f"{self.skipped} skipped"] if self.skipped else []
        if self.interrupted or self.stopped:
            go_on = f": the same command with {self.goes_on} goes on" if self.goes_on else ""
            parts.append(f"{self.stopped or 'interrupted'}{go_on}")
        parts += [f"{len(failed)} failed: {listed(failed)}"] if failed else []
        parts += [f"{counted(len(pictures), 'picture')} failed: {listed(pictures)}"] if pictures else []
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it: the counts of the line, and a row for each source, in their order."""
        return {
            "total": self.total,
            "done": self.done,
            "skipped": self.skipped,
            "failed": len(self.failed),
            "unreadable": self.unreadable,
            "interrupted": self.interrupted,
            "stopped": self.stopped or None,
            "sources": [_row(result) for result in sorted(self.results, key=lambda result: result.number)],
        }


def _row(result: Result) -> dict[str, Any]:
    row: dict[str, Any] = {"source": redact(result.source), "state": state(result), "outputs": result.outputs}
    if result.published:
        row["published"] = [*result.published]
    if result.report is not None:
        row |= {"frames": result.report.frames, "seconds": round(result.report.seconds, 3)}
    if result.error is not None:
        row["error"] = str(result.error)
    if result.unreadable:
        row["unreadable"] = [redact(path) for path in result.unreadable]
    return row


def state(result: Result) -> str:
    """Return one word: ``done``, ``skipped``, ``failed``, ``interrupted``, or ``partly``."""
    if result.error is not None:
        return "failed"
    if result.skipped or result.report is None:
        return "skipped"
    if result.report.interrupted:
        return "interrupted"
    return "done" if result.whole else "partly"
