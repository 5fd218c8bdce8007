"""From one thread that makes something of a stream's results to any number of viewers on the network.

A viewer who takes too long loses pieces; neither the thread nor the other viewers ever wait for anybody.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from typing import Any, ClassVar, Generic, TypeVar, cast

from perception.card import ModelCard
from perception.errors import PerceptionError
from perception.server.options import Options
from perception.server.streams.stream import Stream
from perception.server.streams.subscription import Subscription
from perception.server.viewers.feeding import feed
from perception.sinks.base import Sink
from perception.types import Frame, SourceInfo

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


class ViewerSink(Sink, Generic[Piece]):
    """Sink of a stream's rendered predictions whose output are pieces for viewers on the network.

    Args:
        give: takes the pieces of a frame, in the thread that writes.
    """

    wants_picture = True
    viewer: ClassVar[type[Viewer[Any]]] = Viewer
    """Queue of one viewer's pieces."""

    interval_s: ClassVar[float] = 0.0
    """Seconds between two results that it is given, at least."""

    def __init__(self, give: Callable[[list[Piece]], None]) -> None:
        self._give = give

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        """Prepare for the frames of a stream; ``info.fps`` is its measured rate, where it has one."""

    def close(self) -> None:
        """Give back what the pieces were made with."""

    def abort(self) -> None:
        """As ``close``: nothing is kept."""
        self.close()

    def greet(self) -> None:
        """A viewer has come, to whom the next piece should be of use. Called in the event loop."""


class Broadcast(Generic[Piece]):
    """Drives one sink with a stream's predictions under one set of options, for all viewers who have these.

    It starts with its first viewer and ends with its last. All methods are for the event loop.
    """

    def __init__(self, stream: Stream, options: Options, sink: type[ViewerSink[Piece]]) -> None:
        self._stream = stream
        self._key = sink, options
        self._subscription: Subscription = stream.subscribe(options, sink.interval_s)
        self._viewers: list[Viewer[Piece]] = []
        self._loop = asyncio.get_running_loop()
        self._sink = sink(lambda pieces: self._tell(self._offer, pieces))
        self._thread = threading.Thread(target=self._run, name=f"perception-{self._sink.name} {stream.id}", daemon=True)
        self._ended = False

    @classmethod
    def join(cls, stream: Stream, options: Options, sink: type[ViewerSink[Piece]]) -> Viewer[Piece]:
        """A place among the viewers of what a kind of sink makes.

        Raises:
            UsageError: the options do not fit the model.
            Busy: the stream is being drawn with too many different options already.
        """
        found = stream.broadcasts.get((sink, options))
        if found is None or found._ended:
            found = stream.broadcasts[sink, options] = cls(stream, options, sink)
        return cast("Broadcast[Piece]", found)._add()

    def __len__(self) -> int:
        return len(self._viewers)

    def __bool__(self) -> bool:
        return True

    def _add(self) -> Viewer[Piece]:
        viewer: Viewer[Piece] = self._sink.viewer(self)
        self._sink.greet()
        self._viewers.append(viewer)
        if self._thread.ident is None:
            self._thread.start()
        return viewer

    def _remove(self, viewer: Viewer[Piece]) -> None:
        if viewer in self._viewers:
            self._viewers.remove(viewer)
        if not self._viewers:
            self._ended = True
            if self._stream.broadcasts.get(self._key) is self:
                del self._stream.broadcasts[self._key]
            self._subscription.close()

    def _offer(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            for viewer in self._viewers:
                viewer.offer(piece)

    def _end(self) -> None:
        self._ended = True
        for viewer in self._viewers:
            viewer.end()
        # It refers to this broadcast, which so would stay, with the pictures that were drawn last, until Python looks
        # for circles; in a process with many objects that is after many megabytes.
        del self._sink

    def _run(self) -> None:
        try:
            card = self._stream.model.card
            feed(self._sink, self._subscription, card, self._info, self._sink.interval_s)
        except PerceptionError as error:
            log.warning("stream %s: %s", self._stream.id, error)
        except Exception:
            log.exception("stream %s", self._stream.id)
        finally:
            self._subscription.close()
            self._tell(self._end)

    def _info(self, frame: Frame) -> SourceInfo:
        fps = self._stream.fps
        rate = Fraction(fps).limit_denominator(1000) if fps > 1 else None
        return SourceInfo(self._stream.name, "stream", frame.width, frame.height, fps=rate, live=True)

    def _tell(self, what: object, *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(what, *arguments)  # type: ignore[arg-type]
        except RuntimeError:  # the loop is closed, and its viewers with it
            self._subscription.close()
