"""One engine shared by many: cameras, viewers, requests and jobs, each getting its turn.

A client is whoever sends frames under one name. The clients of a kind take turns (round robin), so none can crowd out
another by sending more. Live clients come first; so that they do not starve the others, one turn in ``BULK_TURN`` goes
to those if they wait. A live client never has more than one frame under way and one waiting, of which only the newest
is worth anything: a newer one replaces it, and the older one's future is cancelled.

    with Scheduler(model) as scheduler:
        future = scheduler.submit(frame, client="camera 1", live=True)      # never waits
        prediction = future.result()                                       # or `await asyncio.wrap_future(future)`
        perception.run(source, scheduler.shared("job 7"), sinks=sinks)     # anything that takes a Model
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

from perception.errors import EngineError
from perception.model import Inference, Model
from perception.server.problems import Busy
from perception.types import U8, Frame, Prediction

Result = TypeVar("Result")

BULK_TURN = 8
"""One turn in so many is for bulk clients, if any waits, however many live ones there are."""

LIVE_CLIENTS = 256
"""Live clients that may have a frame waiting at once; far more than an engine can serve."""


@dataclass(eq=False)
class _Task:
    work: Callable[[], Any]
    future: Future[Any]

    def give_up(self) -> None:
        """Cancel the future, and tell those who wait for it: cancelling alone wakes callbacks only."""
        self.future.cancel()
        self.future.set_running_or_notify_cancel()


@dataclass(eq=False)
class _Client:
    waiting: deque[_Task] = field(default_factory=deque)
    running: int = 0


class Scheduler:
    """Runs a model for many clients, fairly and with bounded waiting. Safe to use from any thread.

    Args:
        model: a loaded model; it is not closed with the scheduler.
        waiting: frames of bulk clients that may wait, all clients together; beyond that ``submit`` raises ``Busy``.
        workers: threads that run the model; by default as many calls as the engine takes at once and one more,
            which resizes meanwhile.

    Attributes:
        model: as given.
        replaced: frames of live clients that a newer one replaced before their turn.
    """

    def __init__(self, model: Model, waiting: int = 8, *, workers: int | None = None) -> None:
        self.model = model
        self.replaced = 0
        self._limit = waiting
        self._changed = threading.Condition()
        # In the order in which they are served next; clients without waiting or running frames are not in it.
        self._live: OrderedDict[str, _Client] = OrderedDict()
        self._bulk: OrderedDict[str, _Client] = OrderedDict()
        self._live_turns = 0
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
        """Have one frame predicted when the client's turn comes.

        Args:
            frame: a frame, or uint8 ``[H, W, 3]`` BGR.
            client: whose turn it takes, such as ``"webcam 3f2a"``.
            live: only the newest frame of this client matters; it replaces one that waits, whose future is cancelled.
            model: with options of its own, from ``scheduler.model.tuned(...)``.

        Returns:
            a future; ``cancel()`` takes the frame back while it waits. It raises what ``Model.predict`` raises.
            Callbacks added to it run in the engine's thread: they must not take long.

        Raises:
            Busy: too many frames are waiting; it says when to try again.
            EngineError: the scheduler is closed.
        """
        chosen = model or self.model
        return self._submit(lambda: chosen.predict(frame), client, live)

    def infer(self, frame: Frame | U8, *, client: str, live: bool = False) -> Future[Inference]:
        """The same for the network alone; what comes is for ``Model.interpret``, of several models if need be."""
        return self._submit(lambda: self.model.infer(frame), client, live)

    def shared(self, client: str, *, live: bool = False, model: Model | None = None) -> SharedModel:
        """A model that runs here, for whatever takes a ``Model``; its ``predict`` waits for the client's turn.

        Args:
            client, live, model: as for ``submit``. A bulk client waits also for a place to wait in.
        """
        return SharedModel(self, client, live, model or self.model)

    @property
    def waiting(self) -> int:
        """Frames that wait for their turn."""
        with self._changed:
            clients = [*self._live.values(), *self._bulk.values()]
            return sum(not task.future.cancelled() for client in clients for task in client.waiting)

    def close(self) -> None:
        """Stop. Frames under way are finished, those that wait are cancelled."""
        with self._changed:
            self._closed = True
            tasks = [task for queue in (self._live, self._bulk) for c in queue.values() for task in c.waiting]
            self._live.clear()
            self._bulk.clear()
            self._changed.notify_all()
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

    def _submit(self, work: Callable[[], Result], client: str, live: bool, wait: bool = False) -> Future[Result]:
        future: Future[Result] = Future()
        replaced: _Task | None = None
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._closed or self._has_room())
            if self._closed:
                raise EngineError("the model is being shut down; try again later")
            queue = self._live if live else self._bulk
            entry = queue.get(client)
            if live:
                if entry is None and len(queue) >= LIVE_CLIENTS:
                    raise self._busy()
            elif not self._has_room():
                raise self._busy()
            if entry is None:
                entry = queue[client] = _Client()
            if live and entry.waiting:
                replaced = entry.waiting.popleft()
                self.replaced += 1
            entry.waiting.append(_Task(work, future))
            self._changed.notify_all()
        if replaced is not None:
            replaced.give_up()  # outside the lock: callbacks may submit again
        return future

    def _has_room(self) -> bool:
        tasks = [task for client in self._bulk.values() for task in client.waiting]
        # Those that were cancelled lie there until their turn; they cost little, but not nothing.
        return sum(not task.future.cancelled() for task in tasks) < self._limit and len(tasks) < 8 * self._limit

    def _busy(self) -> Busy:
        wait_s = max(0.1, self._limit * self._frame_s)
        return Busy("the model is busy with other requests; try again shortly", retry_after_s=wait_s)

    def _take(self) -> tuple[str, _Client, _Task, bool] | None:
        """The next task by the rules; None where nothing may run now."""
        order = [(self._live, True), (self._bulk, False)]
        if self._live_turns >= BULK_TURN - 1:
            order.reverse()
        for queue, live in order:
            for name, entry in queue.items():
                if entry.waiting and not (live and entry.running):
                    task = entry.waiting.popleft()
                    entry.running += 1
                    queue.move_to_end(name)
                    self._live_turns = self._live_turns + 1 if live else 0
                    return name, entry, task, live
        return None

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (taken := self._take()) is None:
                    self._changed.wait()
                if self._closed:
                    return
                assert taken is not None
                name, entry, task, live = taken
                self._changed.notify_all()  # there is room for one more
            started = time.perf_counter()
            if task.future.set_running_or_notify_cancel():
                try:
                    result = task.work()
                except BaseException as error:
                    task.future.set_exception(error)
                else:
                    self._frame_s += 0.1 * (time.perf_counter() - started - self._frame_s)
                    task.future.set_result(result)
                    del result
            del task, taken
            with self._changed:
                entry.running -= 1
                queue = self._live if live else self._bulk
                if not entry.waiting and not entry.running and queue.get(name) is entry:
                    del queue[name]
                self._changed.notify_all()


class SharedModel(Model):
    """A model whose frames go through a `Scheduler`, as one of its clients. Made by `Scheduler.shared`."""

    def __init__(self, scheduler: Scheduler, client: str, live: bool, model: Model) -> None:
        super().__init__(model.card, model.engine, model._post_processing)
        self._owns_engine = False
        self._scheduler = scheduler
        self._client = client
        self._live = live

    def tuned(self, **options: Any) -> Model:
        """See `Model.tuned`. What comes takes its turns as this same client."""
        return SharedModel(self._scheduler, self._client, self._live, super().tuned(**options))

    def infer(self, frame: Frame | U8) -> Inference:
        """See `Model.infer`.

        Raises:
            EngineError: the engine failed, or the scheduler was closed meanwhile.
        """
        run = self._scheduler.model.infer
        future = self._scheduler._submit(lambda: run(frame), self._client, self._live, wait=not self._live)
        try:
            return future.result()
        except CancelledError:
            raise EngineError("the model was shut down, or a newer frame took this one's place") from None
