"""Source to model to stages to sinks, everything at once, nothing unbounded.

    with open_source("in.mp4") as source, load_model("street", mode="throughput") as model:
        report = run(source, model, annotator=Annotator(model.card), sinks=[open_sink("out.mp4")])
    print(report.fps)

Threads, and what is handed over between them::

    decoder ──Frame──▶ workers (one per engine stream, and one more) ──Prediction, in order──▶ stages + draw ──▶ sinks
                       resize, infer, post-process                                              (one thread per sink)

Every hand-over is bounded, so the slowest part sets the pace and memory stays flat. For a file the decoder reads a
few frames ahead; for a live source it takes a frame only when a worker is free, and the source itself keeps just the
newest one. Decoding, inference, kernels and encoding all release the GIL, so the threads really run side by side.

An error anywhere stops everything: the sinks keep what they wrote as valid files (``Sink.abort``) and the first error
is raised. A source that fails midway is let run dry first, so no decoded frame is lost.
"""

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

from perception.errors import PerceptionError, UsageError
from perception.types import Frame, Picture, Prediction, Stage

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
    """What a run did.

    Attributes:
        frames: frames that went through to the sinks.
        dropped: frames a live source dropped because nothing took them in time.
        seconds: wall time from the first read to the last write.
        cpu_seconds: time of all cores that this process used meanwhile.
        stage_ms: median milliseconds of wall time a frame, by stage; stages overlap, so they do not add up.
        engine: one line that names the engine.
        interrupted: whether Ctrl-C (or ``stop``) ended it early.
    """

    frames: int = 0
    dropped: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    stage_ms: dict[str, float] = field(default_factory=dict)
    engine: str = ""
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


class _Inference:
    """The decoder and the workers: an iterator of predictions in frame order.

    ``stop()`` ends reading, and what is in flight still comes out; ``fail(error)`` throws that away and makes the
    iteration raise; ``close()`` ends the threads.
    """

    def __init__(self, source: Source, model: Model, workers: int | None = None) -> None:
        self._source = source
        self._model = model
        live = source.info.live
        count = workers or (1 if live else model.engine.streams + 1)
        # How many frames the decoder may take from the source: each worker that waits for one adds to it.
        self._wanted = threading.Semaphore(0 if live else count)
        self._frames: queue.SimpleQueue[tuple[int, Frame, float] | None] = queue.SimpleQueue()
        self._window = 2 * count
        self._changed = threading.Condition()
        self._done: dict[int, Prediction] = {}
        self._read = 0
        self._next = 0
        self._ended = False
        self._error: BaseException | None = None
        self._source_error: BaseException | None = None
        self._decoder = threading.Thread(target=self._decode, name="perception-decode", daemon=True)
        self._workers = [
            threading.Thread(target=self._work, name=f"perception-infer-{i}", daemon=True) for i in range(count)
        ]
        for thread in (self._decoder, *self._workers):
            thread.start()

    def __iter__(self) -> Iterator[Prediction]:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._error or self._next in self._done or (self._ended and self._next == self._read)
                )
                if self._error is not None:
                    raise self._error
                if self._next not in self._done:
                    if self._source_error is not None:
                        raise self._source_error
                    return
                prediction = self._done.pop(self._next)
                self._next += 1
                self._changed.notify_all()
            yield prediction
            del prediction

    @property
    def error(self) -> BaseException | None:
        """The first error that was given to ``fail``."""
        return self._error

    def stop(self) -> None:
        """Read no further frame; those already read still come out."""
        with self._changed:
            if not self._ended:
                self._ended = True
                for _ in self._workers:
                    self._frames.put(None)
            self._changed.notify_all()
        self._wanted.release()

    def fail(self, error: BaseException) -> None:
        """Give up: the iteration raises ``error`` (the first one given)."""
        with self._changed:
            self._error = self._error or error
        self.stop()

    def close(self) -> None:
        """End all threads."""
        self.fail(GeneratorExit())
        for worker in self._workers:
            worker.join()
        # A decoder may be blocked in a read that nothing can wake (a silent pipe); it is a daemon and ends with it.
        self._decoder.join(timeout=1.0)

    def _decode(self) -> None:
        try:
            frames = iter(self._source)
            while True:
                self._wanted.acquire()
                if self._ended:
                    break
                started = time.perf_counter()
                frame = next(frames, None)
                elapsed_ms = 1000 * (time.perf_counter() - started)
                with self._changed:
                    if frame is None or self._ended:
                        break
                    self._frames.put((self._read, frame, elapsed_ms))
                    self._read += 1
                del frame
        except BaseException as error:
            self._source_error = error
        finally:
            self.stop()

    def _work(self) -> None:
        try:
            while True:
                self._wanted.release()
                item = self._frames.get()
                if item is None:
                    return
                number, frame, decode_ms = item
                prediction = self._model.predict(frame)
                prediction.timings = {"decode": decode_ms, **prediction.timings}
                with self._changed:
                    # The frame that is due next never waits here, so this cannot lock up.
                    self._changed.wait_for(lambda n=number: n < self._next + self._window or self._error)  # type: ignore[misc]
                    if self._error is not None:
                        return
                    self._done[number] = prediction
                    self._changed.notify_all()
                # Buffers are reused once nobody refers to them: hold none while waiting for the next frame.
                del item, frame, prediction
        except BaseException as error:
            self.fail(error)


def predict(
    source: Source, model: Model, stages: Sequence[Stage] = (), *, workers: int | None = None
) -> Iterator[Prediction]:
    """Predictions of a source's frames, in order, computed ahead in the background.

    Args:
        source: an open source.
        model: a loaded model.
        stages: pure steps applied to each prediction, in order.
        workers: threads that run the model at once; by default what suits the engine (one for a live source).

    Yields:
        one prediction per frame. Leaving the loop early ends the background threads.

    Raises:
        PerceptionError: the source, the engine or a stage failed.
    """
    flow = _Inference(source, model, workers)
    try:
        for prediction in flow:
            for stage in stages:
                prediction = stage(prediction)
            yield prediction
    finally:
        flow.close()


class _Lane:
    """Feeds one sink from a bounded queue, in a thread of its own."""

    def __init__(self, sink: Sink, failed: Callable[[BaseException], None]) -> None:
        self.sink = sink
        self.name = type(sink).__name__.removesuffix("Sink").lower()
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
    """One call of :func:`run`: the middle thread (stages, drawing, fan-out) and the lanes of the sinks."""

    def __init__(
        self,
        flow: _Inference,
        sinks: Sequence[Sink],
        annotator: Callable[[Prediction], Picture] | None,
        stages: Sequence[Stage],
    ) -> None:
        self.flow = flow
        self.frames = 0
        self.error: BaseException | None = None
        self._annotator = annotator if any(sink.wants_picture for sink in sinks) else None
        self._stages = stages
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
        try:
            for prediction in self.flow:
                for stage in self._stages:
                    prediction = stage(prediction)
                if self._annotator is not None:
                    started = time.perf_counter()
                    prediction.picture = self._annotator(prediction)
                    prediction.timings["draw"] = 1000 * (time.perf_counter() - started)
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
    stages: Sequence[Stage] = (),
    workers: int | None = None,
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
        stages: pure steps applied to each prediction, in frame order, before drawing.
        workers: threads that run the model at once; by default what suits the engine.
        progress: called about ten times a second with (frames done, frames dropped).
        stop: set it to end the run early, as Ctrl-C does.

    Returns:
        what was done and where the time went.

    Raises:
        PerceptionError: something failed; what was written until then is valid.
    """
    if annotator is None and any(sink.wants_picture for sink in sinks):
        raise UsageError("a sink wants annotated pictures: give run() an annotator")
    report = Report(engine=model.engine.description)
    with _opened(sinks, source, model):
        started, cpu_started = time.perf_counter(), time.process_time()
        running = _Run(_Inference(source, model, workers), sinks, annotator, stages)
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
    report.frames, report.dropped, report.stage_ms = running.frames, source.dropped, running.stage_ms()
    return report


@contextmanager
def _opened(sinks: Sequence[Sink], source: Source, model: Model) -> Iterator[None]:
    """The sinks opened; on the way out closed, or after an error aborted. One that fails never keeps another open."""
    ready: list[Sink] = []
    try:
        for sink in sinks:
            ready.append(sink)
            sink.open(source.info, model.card)
        yield
        errors: list[Exception] = []
        while ready:
            try:
                ready[0].close()
            except Exception as error:
                errors.append(error)
                _abort(ready[:1])
            del ready[0]
        if errors:
            raise errors[0]
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
    """The error itself where it explains itself, else one line that does, with the original as its cause."""
    if isinstance(error, (PerceptionError, KeyboardInterrupt)):
        return error
    wrapped = PerceptionError(f"{type(error).__name__}: {error} (--debug shows where)", source.info.uri)
    wrapped.__cause__ = error
    return wrapped
