"""What is done of a task, wherever that is: its source is annotated into its drafts."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from perception.annotate.result import Result
from perception.annotate.run import annotate_one
from perception.annotate.settings import Annotating, Annotation
from perception.batch.task import Task
from perception.batch.transfer import upload, with_files
from perception.card import ModelCard
from perception.errors import PerceptionError, SinkError
from perception.pipeline import Report
from perception.sinks import Sink, open_sink
from perception.sinks.names import ClassNames
from perception.sources.base import Source
from perception.types import Prediction, SourceInfo

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class Outcome:
    """What became of a task: an error, or none where there is a report.

    Attributes:
        report: where nothing failed.
        error: what failed.
        unreadable: images that could not be read.
        boxes: how many were found, by class.
        full: it failed because nothing more can be written there.
    """

    report: Report | None = None
    error: PerceptionError | None = None
    unreadable: tuple[str, ...] = ()
    boxes: dict[str, int] = field(default_factory=dict)
    full: bool = False


def annotate_task(
    task: Task,
    annotation: Annotation,
    opened: Annotating,
    started: Callable[[Result, Source], Callable[[int, int], None] | None] | None = None,
) -> Outcome:
    """Annotate the source of a task into its drafts.

    Args:
        task: what to do.
        annotation: how.
        opened: the same, with the model loaded.
        started: see `perception.annotate.annotate_all`.
    """
    tally = _Tally()
    names = {path: task.outputs[kind] for kind, path in task.drafts.items()}
    try:
        with with_files(task) as (files, copy):
            names |= {path: task.outputs[kind] for kind, path in files.drafts.items()} | {copy or "": task.source}

            def sinks() -> list[Sink]:
                for path in files.drafts.values():
                    Path(path).parent.mkdir(parents=True, exist_ok=True)
                options = annotation.sink_options
                made = [open_sink(path, kind=kind, **options.get(kind, {})) for kind, path in files.drafts.items()]
                return [*made, tally]

            result = Result(task.source, files.drafts, pictures=task.pictures, chosen=task.chosen)
            annotate_one(
                result, opened.model, sinks, annotator=opened.annotator, stages=opened.stages, started=started,
                source_options=dict(annotation.source_options), max_loss=annotation.max_loss, copy=copy,
            )  # fmt: skip
            if result.error is not None:
                raise result.error
            upload(files, task)
            return Outcome(result.report, None, tuple(result.unreadable), tally.boxes())
    except PerceptionError as error:
        if is_full(error):
            place = next(iter(task.outputs.values()))
            return Outcome(error=SinkError("the disk is full or cannot be written any more", place), full=True)
        text = str(error)
        for path, name in names.items():
            text = text.replace(path, name) if path else text
        return Outcome(error=plain_error(error, text))


def is_full(error: PerceptionError | None) -> bool:
    """Return whether an error says that nothing more can be written."""
    return isinstance(error, SinkError) and getattr(error.__cause__, "errno", None) in _FULL


def plain_error(error: PerceptionError, text: str | None = None) -> PerceptionError:
    """Return an error of the same class that another process can be sent: without what caused it."""
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == PerceptionError.__module__)
    return kind(str(error) if text is None else text)


class _Tally(Sink):
    """Counts boxes by class; writes nothing."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._names = ClassNames(None)

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        self._names = ClassNames(card)

    def write(self, prediction: Prediction) -> None:
        if prediction.detections is not None:
            self._counts.update(prediction.detections.class_ids.tolist())

    def close(self) -> None:
        pass

    def boxes(self) -> dict[str, int]:
        """Return how many there were by name, in the order of the classes."""
        return {self._names.detection(i): self._counts[i] for i in sorted(self._counts)}
