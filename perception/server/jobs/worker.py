"""The thread that processes uploaded videos, one at a time, with a lower priority than everything live."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from perception.errors import PerceptionError, SinkError
from perception.pipeline import run
from perception.server.edge.uploads import MOST_FPS, check_pixels
from perception.server.inference.models import Models
from perception.server.jobs.store import Job, JobStore, State
from perception.server.metrics import Metrics
from perception.server.problems import Busy, TooLarge
from perception.server.settings import Limits
from perception.sinks import open_sink
from perception.sources import Bounds, open_source
from perception.stages.factories import StageFactory
from perception.types import Prediction

log = logging.getLogger("perception")

EXPIRE_S = 60.0
"""Seconds between searches for finished jobs past their retention time."""

AGAIN_S = 5.0
"""Seconds until another attempt where the job database cannot be written, for example on a full disk."""


class Worker:
    """Worker that takes jobs from a store and produces their results.

    Args:
        store: the jobs.
        models: the models; a job's frames take their turn after live ones.
        metrics: told of each frame.
        limits: what a video may hold, whatever its header claimed.
        stages: of the operator, for every job.
    """

    def __init__(
        self,
        store: JobStore,
        models: Models,
        metrics: Metrics,
        limits: Limits,
        stages: Sequence[StageFactory] = (),
    ) -> None:
        self._store = store
        self._models = models
        self._metrics = metrics
        self._limits = limits
        self._stages = stages
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="perception-jobs", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop; the current job goes back into the queue, for the next server."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def _work(self) -> None:
        looked = time.monotonic()
        while not self._stop.is_set():
            try:
                job = self._store.take(timeout_s=0.5)
                if job is not None:
                    self._do(job)
                if time.monotonic() - looked > EXPIRE_S:
                    looked = time.monotonic()
                    self._store.expire()
            except Exception as error:  # no end of this thread: the jobs behind would wait for ever
                log.warning("jobs: %s", error)
                self._stop.wait(AGAIN_S)

    def _do(self, job: Job) -> None:
        try:
            fps = self._annotate(job)
        except Busy as busy:  # as many models as may be are loaded: nothing that a later try would change soon
            self._let_go(job, "failed", error=busy.message)
        except PerceptionError as error:
            if self._stop.is_set():
                self._let_go(job, "queued")
            else:
                log.info("job %s: %s", job.id, error)
                self._let_go(job, "failed", error=f"{job.name}: {error.message}")
        except Exception as error:
            log.exception("job %s", job.id)
            self._let_go(job, "failed", error=f"{job.name}: {type(error).__name__} in the server")
        else:
            if fps is None:
                # Put back at a stop, which is no fault of the job.
                self._let_go(job, "queued", attempts=job.attempts - 1)
            else:
                self._let_go(job, "done", fps=fps)

    def _let_go(self, job: Job, state: State, **values: Any) -> None:
        """Record the outcome of a job, however long that takes; at a stop the next server finds it as it was."""
        while True:
            try:
                self._store.release(job.id, state, **values)
                return
            except SinkError as error:
                log.warning("job %s is %s, but %s", job.id, state, error)
                if self._stop.wait(AGAIN_S):
                    return

    def _annotate(self, job: Job) -> float | None:
        """Produce the results; return frames per second, or None if it was stopped."""
        scheduler = self._models.scheduler(job.model)
        model = scheduler.shared(f"job {job.id}", model=job.options.applied_to(scheduler.model, self._stages))
        given_up = threading.Event()

        def checked(prediction: Prediction) -> Prediction:
            frame = prediction.frame
            check_pixels(frame.width, frame.height, self._limits.video_pixels, "video")
            seconds = self._limits.upload_seconds
            if frame.time > seconds or frame.index >= seconds * MOST_FPS:
                raise TooLarge(f"the video is longer than the limit of {seconds:g} s")
            self._metrics.frame_done(prediction, "job")
            return replace(prediction, frame=frame.at(source=job.name))  # and not a path of the server's

        with open_source(self._store.input(job.id), bounds=Bounds(self._limits.video_pixels)) as source:
            total = source.info.frame_count

            def moved(frames: int, dropped: int) -> None:
                if self._stop.is_set() or not self._store.advance(job.id, frames, total):
                    given_up.set()

            report = run(
                source,
                model,
                sinks=[
                    open_sink(self._store.output(job.id, "video"), overwrite=True),
                    open_sink(self._store.output(job.id, "jsonl"), overwrite=True),
                ],
                annotator=job.options.annotator(model.card),
                stages=[
                    checked,
                    *job.options.stages(model.card, self._stages),
                    *job.options.view_stages(self._stages),
                ],
                progress=moved,
                stop=given_up,
            )
        if report.interrupted:
            return None
        self._store.advance(job.id, report.frames, report.frames)
        return report.fps
