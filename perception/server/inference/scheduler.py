"""One engine shared by many: cameras, viewers, requests and jobs, each getting its turn.

A client is whoever sends frames under one name. The clients of a kind take turns, so none can crowd out another by
sending more; a live one of weight 2 gets two turns where the others get one. Live clients come first; so that they do
not starve the others, one turn in ``BULK_TURN`` goes to those if they wait. A live client never has more than one
frame under way and one waiting, of which only the newest is worth anything: a newer one replaces it, and the older
one's future is cancelled.

Where the engine computes several frames together (``engine.batch``), those that wait when it is free go together, as
many as it takes: one turn each, given out by the same rules. It never waits for more to come. Frames are handed over
only when the engine is free for them, for until then they can still be joined, replaced or taken back.

    with Scheduler(model) as scheduler:
        future = scheduler.submit(frame, client="camera 1", live=True)      # never waits
        prediction = future.result()                                       # or `await asyncio.wrap_future(future)`
        perception.run(source, scheduler.shared("job 7"), sinks=sinks)     # anything that takes a Model
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from perception.errors import EngineError
from perception.model import Inference, Model
from perception.postprocess.post_processing import DetectionOptions
from perception.server.edge.places import share_of
from perception.server.inference.engine_share import EngineShare
from perception.server.inference.fair_queue import Client, FairQueue
from perception.server.problems import Busy
from perception.types import U8, Frame, Prediction

Result = TypeVar("Result")

BULK_TURN = 8
"""One turn in this many goes to bulk clients, if any waits, however many live ones there are."""

LIVE_CLIENTS = 256
"""Most live clients that may have a frame waiting at once; far more than an engine can serve."""


_log = logging.getLogger("perception")


@dataclass(eq=False)
class _Task:
    frame: Frame | U8
    finish: Callable[[Inference], Any]
    future: Future[Any]

    def give_up(self) -> None:
        """Cancel the future, and tell those who wait for it: cancelling alone wakes callbacks only."""
        self.future.cancel()
        self.future.set_running_or_notify_cancel()


@dataclass(eq=False)
class _Turn:
    client: Client[_Task]
    task: _Task
    live: bool


class Scheduler:
    """Runs a model for many clients, fairly and with bounded waiting. Safe to use from any thread.

    Args:
        model: a loaded model; it is not closed with the scheduler.
        waiting: frames of bulk clients that may wait, all clients together; beyond that ``submit`` raises ``Busy``.
        share: part of these places, in 0..1, that one client may take.
        workers: threads that run the model; by default as many calls as the engine takes at once and one more,
            which resizes or post-processes meanwhile.
        name: what clients call the model; None: what its card does.

    Attributes:
        model: as given.
        name: what clients call the model.
        replaced: frames of live clients that a newer one replaced before their turn.
        share: how far apart frames of live clients need to be, as these tell it.
    """

    def __init__(
        self,
        model: Model,
        waiting: int = 8,
        *,
        share: float = 1.0,
        workers: int | None = None,
        name: str | None = None,
    ) -> None:
        self.model = model
        self.name = name or model.card.name
        self.replaced = 0
        self.share = EngineShare()
        self._limit = waiting
        self._most = share_of(waiting, share)
        self._lock = threading.RLock()
        # A frame that can go wakes one thread: each that is woken for nothing takes the interpreter from the others.
        self._ready = threading.Condition(self._lock)  # for workers
        self._room = threading.Condition(self._lock)  # for who waits for a place to wait in
        self._live: FairQueue[_Task] = FairQueue()
        self._bulk: FairQueue[_Task] = FairQueue()
        self._live_turns = 0
        self._batches = 0  # under way in the engine, where it computes several frames together
        self._frame_s = 0.05
        self._closed = False
        self._count = workers or model.engine.streams + 1
        self._workers = [
            threading.Thread(target=self._work, name=f"perception-engine-{i}", daemon=True) for i in range(self._count)
        ]
        for worker in self._workers:
            worker.start()

    def submit(
        self, frame: Frame | U8, *, client: str, live: bool = False, model: Model | None = None
    ) -> Future[Prediction]:
        """Queue one frame for prediction.

        Args:
            frame: a frame, or uint8 ``[H, W, 3]`` BGR.
            client: whose turn it takes, such as ``"webcam 3f2a"``.
            live: only the newest frame of this client matters; it replaces one that waits, whose future is cancelled.
            model: with options of its own, from ``scheduler.model.with_options(...)``.

        Returns:
            a future; ``cancel()`` takes the frame back while it waits. It raises what ``Model.predict`` raises.
            Callbacks added to it run in the engine's thread: they must not take long.

        Raises:
            Busy: too many frames are waiting; it says when to try again.
            EngineError: the scheduler is closed.
        """
        return self.infer_then(frame, (model or self.model).interpret, client=client, live=live)

    def infer(self, frame: Frame | U8, *, client: str, live: bool = False, weight: float = 1.0) -> Future[Inference]:
        """Queue one frame for inference alone; its result is for ``Model.interpret``, of several models if need be."""
        return self.infer_then(frame, _as_it_is, client=client, live=live, weight=weight)

    def infer_then(
        self,
        frame: Frame | U8,
        finish: Callable[[Inference], Result],
        *,
        client: str,
        live: bool = False,
        wait: bool = False,
        weight: float = 1.0,
    ) -> Future[Result]:
        """Queue one frame for inference, and run ``finish`` on its result in the engine's thread; it must be quick.

        Each thread that a frame is handed to makes it wait where the cores are busy.

        Args:
            frame, client, live: as for ``submit``.
            finish: is given what the network said.
            wait: for a place to wait in, where a bulk client finds none.
            weight: of a live client: turns that it gets for each one of a client of weight 1, where both wait.
        """
        future: Future[Result] = Future()
        task, replaced = _Task(frame, finish, future), None
        with self._lock:
            if wait:
                self._room.wait_for(lambda: self._closed or self._has_room(client))
            if self._closed:
                raise EngineError("the model is being shut down; try again later")
            if live:
                if self._live.get(client) is None and len(self._live) >= LIVE_CLIENTS:
                    raise self._busy()
                replaced = self._live.replace(client, task, weight)
                self.replaced += replaced is not None
            elif not self._has_room(client):
                raise self._busy()
            else:
                self._bulk.add(client, task)
            self._ready.notify()
        if replaced is not None:
            replaced.give_up()  # outside the lock: callbacks may submit again
        return future

    def shared(self, client: str, *, live: bool = False, model: Model | None = None) -> SharedModel:
        """Return a model that runs here, for code that takes a ``Model``; its ``predict`` waits for the client's turn.

        Args:
            client, live, model: as for ``submit``. A bulk client waits also for a place to wait in.
        """
        return SharedModel(self, client, live, model or self.model)

    @property
    def waiting(self) -> int:
        """Frames that wait for their turn."""
        with self._lock:
            clients = [*self._live, *self._bulk]
            return sum(not task.future.cancelled() for client in clients for task in client.waiting)

    def close(self) -> None:
        """Stop: finish frames in progress, cancel those that wait."""
        with self._lock:
            self._closed = True
            tasks = [*self._live.clear(), *self._bulk.clear()]
            self._ready.notify_all()
            self._room.notify_all()
        for task in tasks:
            task.give_up()
        for worker in self._workers:
            if worker is not threading.current_thread():
                worker.join()

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _has_room(self, client: str) -> bool:
        own = self._bulk.get(client)
        if own is not None and sum(not task.future.cancelled() for task in own.waiting) >= self._most:
            return False
        tasks = [task for entry in self._bulk for task in entry.waiting]
        # Those that were cancelled lie there until their turn; they cost little, but not nothing.
        return sum(not task.future.cancelled() for task in tasks) < self._limit and len(tasks) < 8 * self._limit

    def _busy(self) -> Busy:
        wait_s = max(0.1, self._limit * self._frame_s)
        return Busy("the model is busy with other requests; try again shortly", retry_after_s=wait_s)

    def _take(self) -> list[_Turn]:
        """Take the next turns, as many as the engine computes together; none where nothing may run now."""
        engine = self.model.engine
        if engine.batch > 1 and self._batches >= engine.streams:
            return []
        turns: list[_Turn] = []
        while len(turns) < engine.batch and (turn := self._next()) is not None:
            turns.append(turn)
        return turns

    def _next(self) -> _Turn | None:
        """Choose the next turn by the rules; None where nobody may have one now."""
        order = [(self._live, True), (self._bulk, False)]
        if self._live_turns >= BULK_TURN - 1:
            order.reverse()
        for queue, live in order:
            taken = queue.take(alone=live)
            if taken is not None:
                if not live:
                    self._room.notify_all()
                self._live_turns = self._live_turns + 1 if live else 0
                return _Turn(*taken, live)
        return None

    def _work(self) -> None:
        while True:
            with self._lock:
                while not self._closed and not (turns := self._take()):
                    self._ready.wait()
                if self._closed:
                    return
                batched = self.model.engine.batch > 1
                self._batches += batched
            self._serve(turns, batched)
            del turns

    def _serve(self, turns: list[_Turn], batched: bool) -> None:
        started = time.perf_counter()
        wanted: list[_Turn] = []
        for turn in turns:
            if turn.task.future.set_running_or_notify_cancel():
                wanted.append(turn)
            else:
                self._end(turn)  # it was taken back
        outcomes = self._infer([turn.task.frame for turn in wanted])
        if batched:
            with self._lock:
                self._batches -= 1  # the engine is free; what follows is done on the CPU
                self._ready.notify()
        for turn, outcome in zip(wanted, outcomes, strict=True):
            result: Any = outcome
            if not isinstance(result, BaseException):
                try:
                    result = turn.task.finish(result)
                except BaseException as error:
                    result = error
            if isinstance(result, BaseException):
                turn.task.future.set_exception(result)
            else:
                turn.task.future.set_result(result)
            del result  # buffers are reused once nobody refers to them
            self._end(turn)
        if wanted:
            self._frame_s += 0.1 * ((time.perf_counter() - started) / len(wanted) - self._frame_s)
            self.share.frame_s = self._frame_s

    def _infer(self, frames: Sequence[Frame | U8]) -> list[Inference | BaseException]:
        """Return the network's output for each frame, or the error."""
        if len(frames) > 1:
            try:
                return list(self.model.infer_batch(frames))
            except Exception as error:  # of one of them, perhaps: it must not take the others with it
                _log.debug("%d frames one by one, for together they failed: %s", len(frames), error)
        outcomes: list[Inference | BaseException] = []
        for frame in frames:
            try:
                outcomes.append(self.model.infer(frame))
            except BaseException as error:
                outcomes.append(error)
        return outcomes

    def _end(self, turn: _Turn) -> None:
        with self._lock:
            waits = (self._live if turn.live else self._bulk).end(turn.client)
            if waits and turn.live and self.model.engine.batch > 1:
                self._ready.notify()  # the client's next frame can go; this thread may have others to finish first


def _as_it_is(inference: Inference) -> Inference:
    return inference


class SharedModel(Model):
    """A model whose frames go through a `Scheduler`, as one of its clients. Made by `Scheduler.shared`."""

    def __init__(self, scheduler: Scheduler, client: str, live: bool, model: Model) -> None:
        super().__init__(model.card, model.engine, model._post_processing)
        self._owns_engine = False
        self._scheduler = scheduler
        self._client = client
        self._live = live

    def with_options(self, options: DetectionOptions) -> Model:
        """See `Model.with_options`. The returned model takes its turns as this same client."""
        return SharedModel(self._scheduler, self._client, self._live, super().with_options(options))

    def infer(self, frame: Frame | U8) -> Inference:
        """See `Model.infer`.

        Raises:
            EngineError: the engine failed, or the scheduler was closed meanwhile.
        """
        return self._result(self._ask(frame))

    def infer_batch(self, frames: Sequence[Frame | U8]) -> list[Inference]:
        """See `Model.infer_batch`; each frame takes a turn of its own. Errors: as of `infer`."""
        return [self._result(future) for future in [self._ask(frame) for frame in frames]]

    def _ask(self, frame: Frame | U8) -> Future[Inference]:
        return self._scheduler.infer_then(frame, _as_it_is, client=self._client, live=self._live, wait=not self._live)

    def _result(self, future: Future[Inference]) -> Inference:
        try:
            return future.result()
        except CancelledError:
            raise EngineError("the model was shut down, or this frame was replaced by a newer one") from None
