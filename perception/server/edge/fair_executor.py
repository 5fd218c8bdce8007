"""The event loop's threads (``asyncio.to_thread``), of which one client gets no more than its share.

What routes do there usually takes milliseconds. But who asks for a model that is being loaded, or closes a camera that
does not answer, waits in such a thread; a few dozen requests like that would make every other client wait, too.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

from perception.server.edge.places import share_of

CLIENT: ContextVar[str] = ContextVar("perception_client", default="")
"""The client whose request is being answered; empty where it is nobody's."""


class FairExecutor(ThreadPoolExecutor):
    """Pool of threads that clients take in turns; for ``loop.set_default_executor``.

    Args:
        threads: number of threads.
        share: part of them, in 0..1, that one client may have.
    """

    def __init__(self, threads: int, share: float) -> None:
        super().__init__(threads, thread_name_prefix="perception-routes")
        self._threads_at_once = threads
        self._most = share_of(threads, share)
        self._fair = threading.Lock()
        self._running: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[tuple[Future[Any], Callable[[], Any]]]] = OrderedDict()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        """Have a function called, when it is the turn of the client whose request this is."""
        future: Future[Any] = Future()
        with self._fair:
            turns = self._waiting.setdefault(CLIENT.get(), deque())
            turns.append((future, lambda: function(*arguments, **options)))
        self._serve()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop the threads once all calls, also those that wait, are done or cancelled."""
        with self._fair:
            waiting, self._waiting = self._waiting, OrderedDict()
        for future, _ in (turn for turns in waiting.values() for turn in turns):
            future.cancel()
        super().shutdown(wait, cancel_futures=cancel_futures)

    def _serve(self) -> None:
        """Start what may start."""
        while (turn := self._next()) is not None:
            client, future, call = turn
            try:
                super().submit(self._call, client, future, call)
            except RuntimeError:  # it was shut down
                future.cancel()
                self._leave(client)

    def _next(self) -> tuple[str, Future[Any], Callable[[], Any]] | None:
        with self._fair:
            if self._running.total() >= self._threads_at_once:
                return None
            for client, turns in self._waiting.items():
                if client and self._running[client] >= self._most:
                    continue
                future, call = turns.popleft()
                self._running[client] += 1
                self._waiting.move_to_end(client)
                if not turns:
                    del self._waiting[client]
                return client, future, call
        return None

    def _call(self, client: str, future: Future[Any], call: Callable[[], Any]) -> None:
        try:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = call()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
        finally:
            self._leave(client)
            self._serve()

    def _leave(self, client: str) -> None:
        with self._fair:
            self._running[client] -= 1
            if not self._running[client]:
                del self._running[client]
