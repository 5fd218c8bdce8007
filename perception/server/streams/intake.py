"""Frames of a stream on their way through the model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

from perception.errors import EngineError, PerceptionError
from perception.model import Inference
from perception.server.inference.scheduler import Scheduler
from perception.server.problems import Busy
from perception.types import Frame


class Arrival:
    """A frame that is looked at.

    Attributes:
        frame: as it came.
        inference: what the network says of it; None before it has.
        ways: on which it may still be shown: by what the network says of it, or of a frame before.
    """

    __slots__ = ("frame", "inference", "ways")

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.inference: Inference | None = None
        self.ways = 1


class Intake:
    """Gives frames to the scheduler and holds the newest result until it is taken; older ones are dropped.

    Where ``carries`` says so, it holds the newest frame, too, that came while the network was at work on one before: an
    engine that does not keep up with the source is always at work.

    Args:
        scheduler: runs the model.
        client: name of the stream to the scheduler.
        changed: of the stream; notified of each result, each frame that is held, and each error.
        drop: counts a frame that came to nothing.
        clock: seconds.

    Attributes:
        carries: frames that the network has no time for get the results of earlier ones.
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
        self.carries = False
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
        self._seen: Arrival | None = None
        self._passing: Arrival | None = None
        self._under_way = 0

    def submit(self, frame: Frame) -> None:
        """Have a frame inferred. Does not wait."""
        arrival, passed = Arrival(frame), None
        with self._changed:
            if self.carries and self._under_way:
                arrival.ways += 1
                passed, self._passing = self._passing, arrival
                self._changed.notify_all()
        if passed is not None:
            self.missed(passed)
        try:
            future = self._scheduler.infer(frame, client=self._client, live=True, weight=self.weight)
        except Busy:
            self.missed(arrival)
        except EngineError as error:
            self._failed(error)
        else:
            with self._changed:
                self._under_way += 1
            future.add_done_callback(partial(self._inferred, arrival))

    def next(self, otherwise: Callable[[], bool], timeout: float) -> tuple[Arrival | None, Arrival | None]:
        """Wait for something to show, and take it; nothing after an error, ``otherwise``, or where none is in time.

        Returns:
            the newest frame that the network has seen since, and the newest one that came while it was at work.
        """
        errors = self.errors
        with self._changed:
            self._changed.wait_for(
                lambda: self._seen is not None or self._passing is not None or self.errors > errors or otherwise(),
                timeout,
            )
            taken = self._seen, self._passing
            self._seen = self._passing = None
            return taken

    def missed(self, arrival: Arrival) -> None:
        """A frame is not shown on one of its ways; it is dropped where it has no other one."""
        with self._changed:
            arrival.ways -= 1
            over = not arrival.ways
        if over:
            self._drop()

    def forget(self) -> None:
        """The stream is closed: nobody takes what is ready."""
        with self._changed:
            self._seen = self._passing = None

    # In the threads of the scheduler.

    def _inferred(self, arrival: Arrival, future: Future[Inference]) -> None:
        with self._changed:
            self._under_way -= 1
        if future.cancelled():
            self.lost = True
            self.missed(arrival)
            return
        error = future.exception()
        if error is not None:
            self._failed(error)
            return
        arrival.inference = future.result()
        self._tell(arrival.frame)
        with self._changed:
            late, self._seen = self._seen, arrival
            self.errors = 0
            self._changed.notify_all()
        if late is not None:
            self.missed(late)

    def _tell(self, frame: Frame) -> None:
        """Tell of a turn, and whether more of them were wanted."""
        share, lost, self.lost = self._scheduler.share, self.lost, False
        waited = self._now() - frame.arrived - share.frame_s
        if self.carries:  # it gets along with the turns that it has, and its frames come as they are
            share.turn(self._client, False, weight=self.weight, eager=False)
        else:
            share.turn(self._client, lost, waited, self.weight, self.eager)

    def _failed(self, error: BaseException) -> None:
        with self._changed:
            self.errors += 1
            if isinstance(error, PerceptionError):
                self.error = error
            else:
                self.error = EngineError(f"the model failed: {type(error).__name__}: {error}")
            self._changed.notify_all()
