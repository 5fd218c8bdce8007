"""From one thread that makes something of a stream's results to any number of viewers on the network.

A viewer who takes too long loses pieces; neither the thread nor the other viewers ever wait for anybody.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from typing import Generic, TypeVar, cast

from perception.errors import PerceptionError
from perception.server.options import Options
from perception.server.streams.stream import Stream
from perception.server.streams.subscription import Subscription
from perception.types import Prediction

log = logging.getLogger("perception")

Piece = TypeVar("Piece")


class Viewer(Generic[Piece]):
    """One viewer's pieces that were not taken yet. Used in the event loop only. ``leave`` when done.

    Args:
        broadcast: where they come from.
        limit: pieces that may wait; beyond it the oldest go.
    """

    def __init__(self, broadcast: Broadcast[Piece], limit: int = 1) -> None:
        self.missed = 0
        self._broadcast = broadcast
        self._limit = limit
        self._pieces: deque[Piece] = deque()
        self._changed = asyncio.Event()
        self._over = False

    @property
    def over(self) -> bool:
        """True once all was taken and nothing will come any more."""
        return self._over and not self._pieces

    def offer(self, piece: Piece) -> None:
        """A new piece."""
        if len(self._pieces) >= self._limit:
            self._pieces.popleft()
            self.missed += 1
        self._pieces.append(piece)
        self._changed.set()

    def end(self) -> None:
        """Nothing will come any more."""
        self._over = True
        self._changed.set()

    async def next(self, timeout: float) -> Piece | None:
        """The next piece; None where none comes in ``timeout`` seconds, or ever (``over``)."""
        if not self._pieces and not self._over:
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), timeout)
            except asyncio.TimeoutError:
                return None
        return self._pieces.popleft() if self._pieces else None

    def leave(self) -> None:
        """Give up the place; calling it twice is fine."""
        self.end()
        self._broadcast._remove(self)


class Broadcast(ABC, Generic[Piece]):
    """Sink of a stream's rendered predictions under one set of options, for all viewers who have it.

    It starts with its first viewer and ends with its last. All methods but ``make`` are for the event loop.
    """

    def __init__(self, stream: Stream, options: Options) -> None:
        self._stream = stream
        self._options = options
        self._subscription: Subscription = stream.subscribe(options)
        self._viewers: list[Viewer[Piece]] = []
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(
            target=self._run, name=f"perception-{type(self).__name__.lower()} {stream.id}", daemon=True
        )
        self._ended = False

    @classmethod
    def join(cls, stream: Stream, options: Options) -> Viewer[Piece]:
        """A place among the viewers.

        Raises:
            UsageError: the options do not fit the model.
            Busy: the stream is being drawn with too many different options already.
        """
        found = stream.broadcasts.get((cls, options))
        if found is None or found._ended:
            found = stream.broadcasts[cls, options] = cls(stream, options)
        return cast("Broadcast[Piece]", found)._add()

    @abstractmethod
    def make(self, prediction: Prediction) -> list[Piece]:
        """Make the pieces for viewers of a rendered prediction. Runs in the broadcast's thread."""

    def finish(self) -> None:
        """Give back what ``make`` took. Runs in the broadcast's thread, once it makes nothing more."""

    def new_viewer(self) -> Viewer[Piece]:
        """Make the queue of one viewer's pieces."""
        return Viewer(self)

    def __len__(self) -> int:
        return len(self._viewers)

    def __bool__(self) -> bool:
        return True

    def _add(self) -> Viewer[Piece]:
        viewer = self.new_viewer()
        self._viewers.append(viewer)
        if self._thread.ident is None:
            self._thread.start()
        return viewer

    def _remove(self, viewer: Viewer[Piece]) -> None:
        if viewer in self._viewers:
            self._viewers.remove(viewer)
        if not self._viewers:
            self._ended = True
            if self._stream.broadcasts.get((type(self), self._options)) is self:
                del self._stream.broadcasts[type(self), self._options]
            self._subscription.close()

    def _give(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            for viewer in self._viewers:
                viewer.offer(piece)

    def _end(self) -> None:
        self._ended = True
        for viewer in self._viewers:
            viewer.end()

    def _run(self) -> None:
        try:
            while not self._subscription.over:
                prediction = self._subscription.next(1.0)
                if prediction is not None:
                    self._tell(self._give, self.make(prediction))
                del prediction
        except PerceptionError as error:
            log.warning("stream %s: %s", self._stream.id, error)
        except Exception:
            log.exception("stream %s", self._stream.id)
        finally:
            self._subscription.close()
            self.finish()
            self._tell(self._end)

    def _tell(self, what: object, *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(what, *arguments)  # type: ignore[arg-type]
        except RuntimeError:  # the loop is closed, and its viewers with it
            self._subscription.close()
