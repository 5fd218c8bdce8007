"""A sink, a stage or the engine that raises at a random frame of a run."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from perception.errors import PerceptionError
from perception.model import Inference, Model
from perception.sinks import Sink
from perception.types import Prediction, SourceInfo
from tests.faults.outputs import DOCUMENTS, FILES, VIDEOS, indices_of, looks_finished
from tests.faults.row import Outcome, Work
from tests.faults.running import annotate, loaded, sinks_in, threads_left

FRAMES = 40
PARTS = ("sink", "stage", "engine", "closing")
ERRORS: tuple[type[BaseException], ...] = (
    ValueError, KeyError, RuntimeError, MemoryError, OSError, RecursionError, StopIteration, AssertionError,
    SystemExit, GeneratorExit,
)  # fmt: skip


class BadSink(Sink):
    """Raises at one frame, or when it is closed."""

    def __init__(self, at: int | None, error: type[BaseException]) -> None:
        self.at, self.error, self.seen = at, error, 0
        self.where = "a sink of somebody's own"

    def open(self, info: SourceInfo, card: Any = None) -> None: ...

    def write(self, prediction: Prediction) -> None:
        if self.seen == self.at:
            raise self.error("the fault")
        self.seen += 1

    def close(self) -> None:
        if self.at is None:
            raise self.error("the fault")


def run(work: Work) -> Outcome:
    """Raise; the run ends with one line, and every other output is good up to there."""
    outcome = Outcome()
    lost = 0
    with loaded(work.folder) as model:
        for number in range(work.count):
            part = PARTS[number % len(PARTS)]
            error = work.random.choice(ERRORS)
            at = work.random.randrange(FRAMES)
            with outcome.trial(f"{part} raises {error.__name__} at frame {at}"):
                lost = max(lost, _raise(model, part, error, at, work.folder / str(number)))
    outcome.figures["kinds of errors"] = str(len(ERRORS))
    outcome.figures["frames before the fault that an output lacks"] = f"{lost} at most"
    return outcome


def _raise(model: Model, part: str, error: type[BaseException], at: int, folder: Path) -> int:
    """One run; how many frames before the fault are missing in the worst output."""
    sinks = sinks_in(folder, FILES)
    stages: list[Any] = []
    used: Model = model
    if part == "sink":
        sinks.insert(at % len(sinks), BadSink(at, error))
    elif part == "closing":
        sinks.insert(at % len(sinks), BadSink(None, error))
    elif part == "stage":
        stages = [_bad_stage(at, error)]
    else:
        used = _BadEngine(model, at, error)
    before = set(threading.enumerate())
    raised: BaseException | None = None
    try:
        annotate(used, sinks, frames=FRAMES, stages=stages)
    except BaseException as ended:
        raised = ended
    assert isinstance(raised, PerceptionError), f"ended with {raised!r}"
    assert "\n" not in str(raised), str(raised)
    words = "not enough memory" if error is MemoryError else "the fault"
    assert words in str(raised) or error.__name__ in str(raised), f"says {raised}"
    left = threads_left(before)
    assert not left, f"threads left: {left}"
    lost = 0
    for output in FILES:
        if output in DOCUMENTS:
            if part != "closing":
                assert not looks_finished(output, folder), f"{output} looks finished"
            continue
        there = (folder / FILES[output]).exists()
        found = sorted(set(indices_of(output, folder))) if there else []
        assert found == list(range(len(found))), f"{output} has gaps"
        if part == "closing":
            assert len(found) == FRAMES, f"{output}: {len(found)} of {FRAMES} frames"
        else:
            lost = max(lost, at - len(found))
            # Frames on their way when it failed: two in the queue of a sink, and those in flight in the engine.
            assert len(found) >= at - 16 or output in VIDEOS, f"{output}: {len(found)} frames of {at}"
    return lost


def _bad_stage(at: int, error: type[BaseException]) -> Any:
    def stage(prediction: Prediction) -> Prediction:
        if prediction.frame.index == at:
            raise error("the fault")
        return prediction

    return stage


class _BadEngine(Model):
    """The same model, whose engine fails at one frame."""

    def __init__(self, model: Model, at: int, error: type[BaseException]) -> None:
        super().__init__(model.card, model.engine, model._post_processing)
        self._owns_engine = False
        self._fault = at, error

    def infer(self, frame: Any) -> Inference:
        at, error = self._fault
        if frame.index == at:
            raise error("the fault")
        return super().infer(frame)
