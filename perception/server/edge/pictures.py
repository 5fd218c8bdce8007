"""Processing of clients' pictures within a budget of pixels.

A picture is decoded, looked at, drawn and encoded again, and takes up to ten bytes a pixel meanwhile. So each must
get its share of the budget first, by the size in its header. Waiting requests hold the encoded bytes, and no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from perception.errors import PerceptionError
from perception.server.edge.budget import Budget, Hold
from perception.server.edge.decoding import LARGE, decode
from perception.server.edge.uploads import image_size
from perception.server.metrics import Metrics
from perception.server.settings import Limits
from perception.types import U8

T = TypeVar("T")

QUEUE_TIMEOUT_S = 30.0
"""Seconds that a picture waits for its turn; then it is refused, and the client is told when to try again."""

THREADS = 4
"""Number of threads that decode and encode; not those that load models, which would delay pictures."""

RESERVE = 0.25
"""Part of the budget that is left for pictures that are not large: of a camera, for example."""

LARGE_THREADS = 2
"""Large pictures take up to a second, and have threads of their own. Not of low priority: one that has to wait for a
core while it holds the interpreter would make all others wait."""


class NoRoom(PerceptionError):
    """The budget has no room for a picture now.

    Attributes:
        pixels: how much it takes.
    """

    def __init__(self, pixels: int) -> None:
        super().__init__("there is no room for this picture now")
        self.pixels = pixels


class Pictures:
    """The budget and the threads for the pictures of all requests.

    Args:
        limits: ``pixels_in_progress`` at once, and ``pixels`` of one; ``waiting`` pictures wait for room.
        metrics: asks how many pixels are in progress.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._budget = Budget(
            limits.pixels_in_progress, limits.share, 2 * limits.waiting, QUEUE_TIMEOUT_S, RESERVE, LARGE
        )
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="perception-pictures")
        self._patient = ThreadPoolExecutor(LARGE_THREADS, thread_name_prefix="perception-large")
        metrics.pixels(lambda: self._budget.in_progress, lambda: self._budget.peak, lambda: self._budget.waiting)

    def decode(self, data: bytes, client: str, hold: Hold | None) -> tuple[Hold, U8]:
        """Decode a picture within a function that `with_room` runs; return it with the room that it takes.

        Args:
            data: JPEG, PNG, WebP or BMP.
            client: whose turn it takes, see `perception.server.edge.places.client_of`.
            hold: as `with_room` gave it.

        Raises:
            NoRoom: not now, or not in this thread.
            SourceError: not a picture, or damaged.
            TooLarge: more pixels than are taken.
        """
        width, height = image_size(data, self._limits)
        pixels = width * height
        taken = hold
        if taken is None and pixels <= LARGE:
            taken = self._budget.try_take(pixels, client)
        if taken is None:
            raise NoRoom(pixels)
        try:
            return taken, decode(data, width, height)
        except BaseException:
            if hold is None:
                taken.leave()
            raise

    async def with_room(self, work: Callable[[Hold | None], T], client: str, undo: Callable[[T], Any]) -> T:
        """Run a function that decodes a picture in a thread, once there is room for it.

        Args:
            work: calls `decode` with what it is given, and lets what that raises pass. It is called twice where there
                is no room at first, or the picture is large: most find some at once, and take one way through a thread.
            client: whose turn it takes.
            undo: called with what ``work`` returns where nobody waits for that any more.

        Raises:
            Busy: too many pictures wait, or it took too long.
        """
        try:
            return await self._run(work, None, undo)
        except NoRoom as none:
            hold = await self._budget.take(none.pixels, client)
        return await self._run(work, hold, undo)

    async def _run(self, work: Callable[[Hold | None], T], hold: Hold | None, undo: Callable[[T], Any]) -> T:
        future = self._pool_for(hold).submit(work, hold)
        waited = asyncio.wrap_future(future)
        waited.add_done_callback(lambda done: done.cancelled() or done.exception())  # it is no news if nobody waits
        try:
            return await asyncio.shield(waited)
        except asyncio.CancelledError:
            if not future.cancel():
                future.add_done_callback(lambda done: done.exception() or undo(done.result()))
            elif hold is not None:
                hold.leave()
            raise
        except BaseException:
            if hold is not None:
                hold.leave()
            raise

    async def run(self, hold: Hold, work: Callable[..., T], *arguments: Any) -> T:
        """Run a function on a decoded picture in a thread; the picture keeps its room until it ends."""
        future: Future[T] = self._pool_for(hold).submit(work, *arguments)
        hold.until(future)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Stop the threads once their current work is finished."""
        for pool in (self._pool, self._patient):
            pool.shutdown(wait=False, cancel_futures=True)

    def _pool_for(self, hold: Hold | None) -> ThreadPoolExecutor:
        return self._patient if hold is not None and hold.cost > LARGE else self._pool
