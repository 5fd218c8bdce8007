"""Runs a source through a model and stages into sinks, every part in threads of its own."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from perception.common.phases import note, phase
from perception.errors import PerceptionError, UsageError, out_of_memory
from perception.pipeline.stage_chain import StageChain
from perception.pipeline.workers import Workers
from perception.propagation.loss import PropagationLoss
from perception.stages.factories import StageFactory
from perception.types import Picture, Prediction, Stage

if TYPE_CHECKING:
    from perception.model import Model
    from perception.sinks.base import Sink
    from perception.sources.base import Source

SINK_QUEUE = 2
"""Predictions that may wait for each sink. More would only hold memory: the slowest part sets the pace."""

TIMINGS_KEPT = 4096
"""Frames over which the medians of a report are taken (the latest ones)."""


@dataclass
class Report:
    """Frames, times and interruptions of a run.

    Attributes:
        frames: frames that went through to the sinks.
        dropped: frames a live source dropped because nothing took them in time.
        seconds: wall time from the first read to the last write.
        cpu_seconds: time of all cores that this process used meanwhile.
        stage_ms: median milliseconds of wall time a frame, by stage; stages overlap, so they do not add up.
        engine: one line that names the engine.
        seen: frames that the model saw, where it did not see all; else None.
        loss: what propagation to the other frames loses, as measured meanwhile; else None.
        interrupted: True where Ctrl-C (or ``stop``) ended it early.
    """

    frames: int = 0
    dropped: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    stage_ms: dict[str, float] = field(default_factory=dict)
    engine: str = ""
    seen: int | None = None
    loss: PropagationLoss | None = None
    interrupted: bool = False

    @property
    def fps(self) -> float:
        """Frames per second of wall time."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    @property
    def cpu_ms_per_frame(self) -> float:
        """Core-milliseconds spent on each frame, everything included."""
        return 1000 * self.cpu_seconds / self.frames if self.frames else 0.0

    @property
    def utilisation(self) -> float:
        """Part of the machine's cores that was busy with this run, 0..1."""
        cores = os.cpu_count() or 1
        return self.cpu_seconds / (self.seconds * cores) if self.seconds > 0 else 0.0


def predict(
    source: Source,
    model: Model,
    stages: Sequence[Stage | StageFactory] = (),
    *,
    workers: int | None = None,
    max_loss: float | None = None,
) -> Iterator[Prediction]:
    """Predictions of a source's frames, in order, computed ahead in the background.

    Args:
        source: an open source.
        model: a loaded model.
        stages: steps applied to each prediction, in frame order; factories make one for this source.
        workers: threads that run the model at once; by default what suits the engine (one for a live source).
        max_loss: let the model see only some of the frames, see `run`.

    Yields:
        one prediction per frame. Leaving the loop early ends the background threads.

    Raises:
        PerceptionError: the source, the engine or a stage failed.
    """
    chain = StageChain(model.card, stages)
    flow = Workers(source, model, workers, max_loss)
    try:
        for prediction in flow:
            yield chain.apply(prediction)
    finally:
        flow.close()


class _Lane:
    """Feeds one sink from a bounded queue, in a thread of its own."""

    def __init__(self, sink: Sink, failed: Callable[[BaseException], None]) -> None:
        self.sink = sink
        self.name = sink.name
        self.write_ms: deque[float] = deque(maxlen=TIMINGS_KEPT)
        self._failed = failed
        self._queue: queue.Queue[Prediction | None] = queue.Queue(SINK_QUEUE)
        self._thread = threading.Thread(target=self._work, name=f"perception-{self.name}", daemon=True)
        self._thread.start()

    def put(self, prediction: Prediction | None) -> None:
        while self._thread.is_alive():
            with suppress(queue.Full):
                self._queue.put(prediction, timeout=0.1)
                break

    def join(self) -> None:
        self._thread.join()

    def _work(self) -> None:
        try:
            while (prediction := self._queue.get()) is not None:
                started = time.perf_counter()
                self.sink.write(prediction)
                self.write_ms.append(1000 * (time.perf_counter() - started))
                del prediction
        except BaseException as error:
            self._failed(error)


class _Run:
    """One call of `run`: the middle thread (stages, drawing, fan-out) and the lanes of the sinks."""

    def __init__(
        self,
        flow: Workers,
        sinks: Sequence[Sink],
        chain: StageChain,
    ) -> None:
        self.flow = flow
        self.frames = 0
        self.error: BaseException | None = None
        self._chain = chain
        self._renders = any(sink.wants_picture for sink in sinks)
        self._stage_ms: dict[str, deque[float]] = {}
        self._lanes = [_Lane(sink, flow.fail) for sink in sinks]
        # Waited for instead of the thread: a join() that Ctrl-C interrupts takes the thread for ended (bpo-45274).
        self.finished = threading.Event()
        threading.Thread(target=self._work, name="perception-draw", daemon=True).start()

    def stage_ms(self) -> dict[str, float]:
        """Median wall milliseconds a frame, by stage."""
        series = {**self._stage_ms, **{lane.name: lane.write_ms for lane in self._lanes}}
        return {name: float(np.median(list(values))) for name, values in series.items() if values}

    def _work(self) -> None:
        began = time.perf_counter()
        try:
            for prediction in self.flow:
                if not self.frames:
                    note("first result", began)
                prediction = self._chain.apply(prediction)
                if self._renders:
                    prediction = self._chain.render(prediction)
                for name, ms in prediction.timings.items():
                    self._stage_ms.setdefault(name, deque(maxlen=TIMINGS_KEPT)).append(ms)
                for lane in self._lanes:
                    lane.put(prediction)
                self.frames += 1
                del prediction
        except BaseException as error:
            self.error = error
        finally:
            for lane in self._lanes:
                lane.put(None)
            for lane in self._lanes:
                lane.join()
            # The last frames may have failed in a sink after the flow had ended.
            self.error = self.error or self.flow.error
            self.flow.close()
            self.finished.set()


def run(
    source: Source,
    model: Model,
    *,
    sinks: Sequence[Sink] = (),
    annotator: Callable[[Prediction], Picture] | None = None,
    stages: Sequence[Stage | StageFactory] = (),
    workers: int | None = None,
    max_loss: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    stop: threading.Event | None = None,
) -> Report:
    """Drive a source through a model into sinks until it ends, with everything overlapped.

    Ctrl-C (in the main thread) or ``stop`` ends reading; frames in flight are still written and the sinks are
    finished properly. A second Ctrl-C gives up at once, leaving valid files.

    Args:
        source: an open source.
        model: a loaded model.
        sinks: where predictions go; opened and closed here.
        annotator: draws a prediction; needed where a sink wants pictures.
        stages: steps applied to each prediction, in frame order, before drawing; factories make one for this source.
        workers: threads that run the model at once; by default what suits the engine.
        max_loss: let the model see only as many frames as it takes to lose so much on average: a part of the pixels,
            and of boxes, in 0..1, measured meanwhile. The others get the results of an earlier frame, moved with the
            picture, see `perception.propagation.key_frames`. None: the model sees every frame.
        progress: called about ten times a second with (frames done, frames dropped).
        stop: set it to end the run early, as Ctrl-C does.

    Returns:
        what was done and where the time went.

    Raises:
        PerceptionError: something failed; what was written until then is valid.
    """
    if annotator is None and any(sink.wants_picture for sink in sinks):
        raise UsageError("a sink needs annotated pictures: pass an annotator to run()")
    chain = StageChain(model.card, stages, annotator)
    report = Report(engine=model.engine.description)
    with _opened(sinks, source, model), phase("frames"):
        started, cpu_started = time.perf_counter(), time.process_time()
        running = _Run(Workers(source, model, workers, max_loss), sinks, chain)
        try:
            while not running.finished.is_set():
                try:
                    running.finished.wait(timeout=0.1)
                    if progress is not None:
                        progress(running.frames, source.dropped)
                    if stop is not None and stop.is_set() and not report.interrupted:
                        report.interrupted = True
                        running.flow.stop()
                except KeyboardInterrupt as interrupt:
                    if report.interrupted:
                        running.flow.fail(interrupt)
                    report.interrupted = True
                    running.flow.stop()
        except BaseException as error:  # of `progress`; the sinks must be at rest before they are aborted
            running.flow.fail(error)
            running.finished.wait()
            raise
        if running.error is not None:
            raise _as_perception_error(running.error, source)
    # Closing a sink is work too (the encoder's last frames, the index of the file).
    report.seconds = time.perf_counter() - started
    report.cpu_seconds = time.process_time() - cpu_started
    if model.engine.description != report.engine:  # a GPU was lost
        report.engine += f"; then {model.engine.description}"
    keys = running.flow.key_frames
    if keys is not None:
        report.seen, report.loss = keys.seen, keys.loss
    report.frames, report.dropped, report.stage_ms = running.frames, source.dropped, running.stage_ms()
    return report


@contextmanager
def _opened(sinks: Sequence[Sink], source: Source, model: Model) -> Iterator[None]:
    """Open sinks; close them on the way out, or abort them after an error. One that fails keeps none open."""
    ready: list[Sink] = []
    try:
        with phase("opening outputs"):
            for sink in sinks:
                ready.append(sink)
                sink.open(source.info, model.card)
        yield
        closing = time.perf_counter()
        errors: list[BaseException] = []
        while ready:
            try:
                ready[0].close()
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # of a sink of somebody's own, anything
                errors.append(error)
                _abort(ready[:1])
            del ready[0]
        note("closing outputs", closing)
        if errors:
            raise _as_perception_error(errors[0], source)
    except Exception as error:
        _abort(ready)
        raise _as_perception_error(error, source)  # noqa: B904 (has its cause)
    except BaseException:  # Ctrl-C, also while they are closed
        _abort(ready)
        raise


def _abort(sinks: Sequence[Sink]) -> None:
    for sink in sinks:
        with suppress(Exception):
            sink.abort()


def _as_perception_error(error: BaseException, source: Source) -> BaseException:
    """Return the error itself where it explains itself, else one line that does, with the original as its cause."""
    if isinstance(error, (PerceptionError, KeyboardInterrupt)):
        return error
    short = out_of_memory(error, source.info.uri)
    if short is not None:
        return short
    wrapped = PerceptionError(f"{type(error).__name__}: {error}", source.info.uri)
    wrapped.__cause__ = error
    return wrapped
