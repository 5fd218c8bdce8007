"""The progress bar of a training run: on a terminal, nowhere else."""

from __future__ import annotations

from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from perception.common.console import stderr


class TrainProgress:
    """A bar with epoch and loss; context manager."""

    def __init__(self, name: str, steps: int, done: int) -> None:
        console = stderr()  # what is logged meanwhile goes above the bar
        self._progress = Progress(
            TextColumn(f"{name} {{task.description}}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("", total=steps, completed=done)

    def __enter__(self) -> TrainProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, epoch: int, loss: float) -> None:
        """One step done."""
        self._progress.update(self._task, advance=1, description=f"epoch {epoch} loss {loss:.3f}")
