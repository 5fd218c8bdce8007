"""What one running server holds: models, streams, jobs, and what it counts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from perception.errors import PerceptionError
from perception.server.inference.models import Models
from perception.server.jobs.store import JobStore
from perception.server.jobs.worker import Worker
from perception.server.metrics import Metrics
from perception.server.problems import Busy
from perception.server.settings import ServerSettings
from perception.server.streams.hub import StreamHub

log = logging.getLogger("perception")


class Slots:
    """So many of something at once, each of which takes memory; the next one is told to come back.

    Args:
        count: how many.
        what: what they are, for the message.
    """

    def __init__(self, count: int, what: str) -> None:
        self._free = threading.BoundedSemaphore(count)
        self._what = what

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold a place.

        Raises:
            Busy: all are taken.
        """
        if not self._free.acquire(blocking=False):
            raise Busy(f"the server is busy with {self._what}; try again shortly")
        try:
            yield
        finally:
            self._free.release()


class Service:
    """Everything behind the routes. They find it as ``request.app.state.service``.

    Attributes:
        settings: what the operator set.
        metrics: counters.
        models: models by name.
        streams: server-side sources.
        jobs: uploaded videos and what becomes of them.
        pictures: places for pictures that are received and looked at.
        explanations: the one place for a picture that is explained.
        ready: set when the default model is loaded and warm.
        problem: why the default model could not be loaded, or None.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.models = Models(settings, self.metrics)
        self.streams = StreamHub(settings, self.models, self.metrics)
        self.jobs = JobStore(settings.folder / "jobs", settings.limits, self.metrics)
        self._worker = Worker(self.jobs, self.models, self.metrics, settings.limits)
        self.pictures = Slots(2 * settings.limits.waiting, "other pictures")
        self.explanations = Slots(1, "another explanation")
        self.ready = threading.Event()
        self.problem: str | None = None

    def start(self) -> None:
        """Begin to work: go on with the jobs that an earlier server left, and load the default model.

        Returns at once; ``ready`` is set when the default model is loaded and warm.
        """
        self._worker.start()
        threading.Thread(target=self._load, name="perception-load", daemon=True).start()

    def _load(self) -> None:
        try:
            self.models.scheduler()
        except PerceptionError as error:
            self.problem = str(error)
        except Exception as error:
            log.exception("loading the default model")
            self.problem = f"{type(error).__name__}: {error}"
        else:
            self.ready.set()

    def close(self) -> None:
        """Stop everything: viewers, streams, the job in progress (which goes on with the next server), engines."""
        self.streams.close()
        self._worker.close()
        self.jobs.close()
        self.models.close()

    def __enter__(self) -> Service:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
