"""`perception.pipeline.run` in this process, into outputs of every kind, so that a fault can be made many times."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from perception import load_model, open_source
from perception.drawing.annotator import Annotator
from perception.model import Model
from perception.pipeline import Report, run
from perception.sinks import Sink, open_sink
from perception.stages.panoptic import PanopticStage
from tests.faults.annotation import model_in
from tests.faults.boxes import boxes
from tests.faults.outputs import FILES, kind_of_sink

Stages = Sequence[Any]


@contextmanager
def loaded(folder: Path) -> Iterator[Model]:
    """The model of `tests.faults.annotation.model_in`, loaded."""
    with load_model(model_in(folder), precision="fp32", mode="throughput") as model:
        yield model


def sinks_in(folder: Path, outputs: Iterable[str]) -> list[Sink]:
    """A sink for each of these outputs, see `tests.faults.outputs.FILES`."""
    return [open_sink(folder / FILES[output], kind=kind_of_sink(output)) for output in outputs]


def annotate(
    model: Model, sinks: Sequence[Sink], *, frames: int, seed: int = 0, stages: Stages = (), **options: Any
) -> Report:
    """Run the model over a drawn street of 25 frames a second."""
    with open_source(f"synthetic:?size=160x120&fps=25&frames={frames}&seed={seed}") as source:
        chain = [boxes, *stages, PanopticStage(model.card)]
        return run(source, model, sinks=sinks, annotator=Annotator(model.card), stages=chain, **options)


def threads_left(before: set[threading.Thread], seconds: float = 10) -> list[str]:
    """Threads of runs that have not ended within a while."""
    deadline = time.monotonic() + seconds
    while True:
        left = [t.name for t in set(threading.enumerate()) - before if t.name.startswith(("perception", "read "))]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.02)
