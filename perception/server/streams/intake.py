"""Frames of a stream on their way through the model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from perception.errors import EngineError, PerceptionError
from perception.model import Inference
from perception.server.inference.scheduler import Scheduler
from perception.server.problems import Busy
from perception.types import Frame


class Intake:
    """Gives frames to the scheduler and holds the newest result until it is taken; older ones are dropped.

    Args:
        scheduler: runs the model.
        client: name of the stream to the scheduler.
        changed: of the stream; notified of each result and each error.
        drop: counts a frame that came to nothing.
        clock: seconds.

    Attributes:
        eager: the stream takes all the turns it can get; `Scheduler.share` is told of those that it could not have.
        lost: a frame came to nothing since its last turn.
        weight: of the stream among those that want the same engine, see `Scheduler.infer_then`.
        error: the last one of the engine, or None.
        errors: frames in a row that the engine failed on.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        client: str,
        changed: threading.Condition,
        drop: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self.eager = False
        self.lost = False
        self.weight = 1.0
        self.error: PerceptionError | None = None
        self.errors = 0
        self._scheduler = scheduler
        self._client = client
        self._changed = changed
        self._drop = drop
        self._now = clock
        self._ready: Inference | None = None

    def submit(self, frame: Frame) -> None:
        """Have a frame inferred. Does not wait."""
        try:
            future = self._scheduler.infer(frame, client=self._client, live=True, weight=self.weight)
        except Busy:
            self._drop()
        except EngineError as error:
            self._failed(error)
        else:
            future.add_done_callback(self._inferred)

    def next(self, otherwise: Callable[[], bool], timeout: float) -> Inference | None:
        """Wait for the next result and take it; None where there was an error or nothing in time, or ``otherwise``."""
        errors = self.errors
        with self._changed:
            self._changed.wait_for(lambda: self._ready is not None or self.errors > errors or otherwise(), timeout)
            inference, self._ready = self._ready, None
            return inference

    def forget(self) -> None:
        """The stream is closed: nobody takes what is ready."""
        with self._changed:
            self._ready = None

    # In the threads of the scheduler.

    def _inferred(self, future: Future[Inference]) -> None:
        if future.cancelled():
            self.lost = True
            self._drop()
            return
        error = future.exception()
        if error is not None:
            self._failed(error)
            return
        result = future.result()
        self._tell(result.frame)
        with self._changed:
            late, self._ready = self._ready, result
            self.errors = 0
            self._changed.notify_all()
        if late is not None:
            self._drop()

    def _tell(self, frame: Frame) -> None:
        """Tell of a turn, and whether more of them were wanted."""
        share, lost, self.lost = self._scheduler.share, self.lost, False
        waited = self._now() - frame.arrived - share.frame_s
        share.turn(self._client, lost, waited, self.weight, self.eager)

    def _failed(self, error: BaseException) -> None:
        with self._changed:
            self.errors += 1
            if isinstance(error, PerceptionError):
                self.error = error
            else:
                self.error = EngineError(f"the model failed: {type(error).__name__}: {error}")
            self._changed.notify_all()
