"""A reader thread that keeps only the newest frame, for sources that do not wait.

What is dropped is decided by whether the last frame was taken, never by a guessed frame rate.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from perception.common.bounds import Bounds
from perception.errors import PerceptionError, SourceError
from perception.sources.base import JOIN_TIMEOUT, Selection, Source, log
from perception.sources.uri import redact_text
from perception.types import Frame

Item = TypeVar("Item")


class LatestReader:
    """Runs ``produce`` in a daemon thread and hands out its newest frame.

    ``produce`` is called in the thread, which alone touches the device or connection behind it; it must stop soon
    after ``stopping`` is set and clean up when its generator is closed.

    Args:
        produce: a function that gives the frames; None for one that came and is not wanted.
        where: what to name in errors.
        bounds: told of the thread.

    Attributes:
        came: frames so far, those included that are not wanted.
        dropped: frames that were replaced by a newer one before anybody took them.
        stopping: set when the thread should end.
    """

    def __init__(
        self,
        produce: Callable[[threading.Event], Iterator[Frame | None]],
        where: str,
        bounds: Bounds | None = None,
    ) -> None:
        self.dropped = 0
        self.stopping = threading.Event()
        self._where = where
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self.came = 0
        self._error: PerceptionError | None = None
        self._ended = False
        # What makes the frames mostly has this reader: that one referred back to it would keep both, and a decoder with
        # its pictures, until Python looks for circles, which may be after gigabytes.
        self._thread = (bounds or Bounds()).start(lambda: self._run(produce), f"read {where}")

    def _run(self, produce: Callable[[threading.Event], Iterator[Frame | None]]) -> None:
        error: PerceptionError | None = None
        try:
            frames = produce(self.stopping)
            for frame in frames:
                with self._changed:
                    if self.stopping.is_set():
                        break
                    self.came += 1
                    if frame is not None:
                        if self._newest is not None:
                            self.dropped += 1
                        self._newest = frame
                    self._changed.notify_all()
            close = getattr(frames, "close", None)
            if close is not None:
                close()
        except PerceptionError as failure:
            error = failure
        except Exception as failure:  # the consumer must learn of whatever ended this thread
            reason = redact_text(f"{type(failure).__name__}: {failure}", self._where)
            error = SourceError(f"reading failed: {reason}", self._where)
            error.__cause__ = failure
        with self._changed:
            self._error = error
            self._ended = True
            if self.stopping.is_set():
                self._newest = None
            self._changed.notify_all()

    def passed(self) -> None:
        """One came that is not wanted, of which ``produce`` makes nothing. Called in the thread."""
        with self._changed:
            self.came += 1
            self._changed.notify_all()

    def take(self, timeout: float | None = None) -> Frame | None:
        """Return the newest frame that was not taken yet, waiting for one if need be; None at the end.

        Raises:
            SourceError: the thread failed (after its last frame was taken), or in ``timeout`` seconds no frame came at
                all, wanted or not.
        """
        with self._changed:
            ready = False
            while not ready:
                before = self.came
                ready = self._changed.wait_for(
                    lambda: self._newest is not None or self._ended or self.stopping.is_set(), timeout
                )
                if self.came == before:
                    break
            if self.stopping.is_set():
                return None
            frame, self._newest = self._newest, None
            if frame is not None:
                return frame
            if self._error is not None:
                raise self._error
            if not ready:
                raise SourceError(f"no frame arrived within {timeout:g} s; is it still connected?", self._where)
            return None

    @property
    def alive(self) -> bool:
        """True while the thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Tell the thread to end and wake who waits in ``take``."""
        self.stopping.set()
        with self._changed:
            self._changed.notify_all()

    def join(self) -> bool:
        """Wait a moment for the thread to end; whether it did."""
        self._thread.join(JOIN_TIMEOUT)
        return not self._thread.is_alive()


class LiveSource(Source):
    """A source whose frames come by themselves: cameras and streams. A subclass sets ``info`` and these attributes.

    Attributes:
        _select: which frames.
        _timeout: seconds to wait for a frame.
        _reader: where they come from.
    """

    _select: Selection
    _timeout: float
    _reader: LatestReader

    @property
    def dropped(self) -> int:
        return self._reader.dropped

    @property
    def received(self) -> int:
        return self._reader.came

    def _read(self) -> Iterator[Frame]:
        given = 0
        while given != self._select.max_frames:
            frame = self._reader.take(self._timeout)
            if frame is None:
                return
            given += 1
            yield frame

    def _interrupt(self) -> None:
        self._reader.stop()

    def _release(self) -> None:
        if not self._reader.join():
            log.warning("%s: did not finish in time; abandoned", self.info.uri)


def selected(items: Iterator[tuple[float, Item]], selection: Selection) -> Iterator[tuple[int, float, Item] | None]:
    """Yield the items that ``selection`` wants of those that come one after the other.

    Args:
        items: seconds since the first one, and the thing.
        selection: its ``max_frames`` is left to who takes the frames.

    Yields:
        the number of the thing, counting those that ``every`` leaves out but not those before ``start``; its time; it.
        None for each thing that is left out: who waits long for one that is wanted learns that others come.
    """
    index = 0
    for seconds, item in items:
        if seconds >= selection.end:
            return
        if seconds < selection.start:
            yield None
            continue
        yield None if index % selection.every else (index, seconds, item)
        index += 1
