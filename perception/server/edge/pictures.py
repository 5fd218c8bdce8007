"""Clients' pictures on their way through the server: never more pixels at once than the operator allows.

A picture is decoded, looked at, drawn and encoded again, and takes up to ten bytes a pixel meanwhile. So each has to
find room first, by the size in its header. Requests that wait for that hold the bytes that were sent, and no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from perception.errors import PerceptionError
from perception.server.edge.budget import Budget, Hold
from perception.server.edge.decoding import decode
from perception.server.edge.uploads import image_size
from perception.server.metrics import Metrics
from perception.server.settings import Limits
from perception.types import U8

T = TypeVar("T")

PATIENCE_S = 30.0
"""A picture that has found no room by then is refused; the client is told when to try again."""

THREADS = 4
"""Threads that decode and encode: not those that load models, behind which the pictures of others would wait."""


class NoRoom(PerceptionError):
    """There is no room for a picture now.

    Attributes:
        pixels: how much it takes.
    """

    def __init__(self, pixels: int) -> None:
        super().__init__("there is no room for this picture now")
        self.pixels = pixels


class Pictures:
    """Room for the pictures of all requests.

    Args:
        limits: ``pixels_in_progress`` at once, and ``pixels`` of one; ``waiting`` pictures wait for room.
        metrics: asks how many pixels are in progress.
    """

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._budget = Budget(limits.pixels_in_progress, limits.share, 2 * limits.waiting, PATIENCE_S)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="perception-pictures")
        metrics.pixels(lambda: self._budget.in_progress, lambda: self._budget.peak, lambda: self._budget.waiting)

    def decode(self, data: bytes, client: str, hold: Hold | None) -> tuple[Hold, U8]:
        """For a function that is given to `with_room`: the picture, and the room that it takes until that is left.

        Args:
            data: JPEG, PNG, WebP or BMP.
            client: whose turn it takes, see `perception.server.edge.places.client_of`.
            hold: as `with_room` gave it.

        Raises:
            NoRoom: not now.
            SourceError: not a picture, or damaged.
            TooLarge: more pixels than are taken.
        """
        width, height = image_size(data, self._limits)
        taken = hold or self._budget.try_take(width * height, client)
        if taken is None:
            raise NoRoom(width * height)
        try:
            return taken, decode(data)
        except BaseException:
            if hold is None:
                taken.leave()
            raise

    async def with_room(self, work: Callable[[Hold | None], T], client: str, undo: Callable[[T], Any]) -> T:
        """Run in a thread what decodes a picture, once there is room for it.

        Args:
            work: calls `decode` with what it is given, and lets what that raises pass. It is called twice where there
                is no room at first: most pictures find some at once, and take but one way through a thread.
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
        future = self._pool.submit(work, hold)
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
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
        """Run in a thread what goes on with a picture, which keeps its room until that has ended."""
        future: Future[T] = self._pool.submit(work, *arguments)
        hold.until(future)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Let the threads end; what they work on is finished."""
        self._pool.shutdown(wait=False, cancel_futures=True)
