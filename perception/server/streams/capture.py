"""Reading a source in a thread of its own, at the pace at which its frames are to be seen."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction

from perception.errors import PerceptionError, SourceError
from perception.sources.base import Source
from perception.sources.thinner import Thinner
from perception.sources.uri import redact_text
from perception.types import Frame, SourceInfo

log = logging.getLogger("perception")

TIME_BASE = Fraction(1, 90_000)

MAX_LAG_S = 0.5
"""A file that is decoded too slowly for its pace goes on from here, rather than hurry after its clock for ever."""


class Clock:
    """Time of a stream over all its connections and loops: it begins at 0 with the first frame and never runs back.

    Args:
        now: seconds, of any beginning.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self._began: float | None = None
        self._index = 0
        self._last = 0.0
        self._offset = 0.0
        self._new = True

    def restart(self) -> None:
        """The next frame is the first one of another connection, whose own time begins anywhere."""
        self._new = True

    def stamp(self, frame: Frame) -> Frame:
        """The frame with the stream's own index, time and time stamp."""
        now = self.now()
        if self._began is None:
            self._began = now
        if self._new:
            self._offset = max(now - self._began, self._last) - frame.time
            self._new = False
        # A network camera may set its clock; one that jumps is followed by beginning anew.
        moved = frame.time + self._offset
        if moved < self._last - 1.0 or moved > self._last + 60.0:
            self._offset += max(now - self._began, self._last) - moved
        self._last = max(frame.time + self._offset, self._last + 1e-4) if self._index else 0.0
        index, self._index = self._index, self._index + 1
        return frame.at(index=index, time=self._last, pts=round(self._last / TIME_BASE), time_base=TIME_BASE)


class Capture:
    """One connection to a source: opened, read and closed by a daemon thread.

    Live sources are taken as fast as they come. Others are played: each frame is given at its time, and at the end, if
    ``loop`` says so, they begin again.

    Args:
        connect: opens the source.
        deliver: is given each frame, in the thread; must not wait.
        changed: called in the thread when the source is open and when it has ended.
        clock: the stream's.
        loop: play a source that is not live again and again.
        name: of the thread, and for messages.

    Attributes:
        info: what is known of the source, or None until it is open.
        error: what ended it, or None.
        ended: whether the thread is done with the source.
    """

    def __init__(
        self,
        connect: Callable[[], Source],
        deliver: Callable[[Frame], None],
        changed: Callable[[], None],
        clock: Clock,
        *,
        loop: bool = False,
        name: str = "",
    ) -> None:
        self.info: SourceInfo | None = None
        self.error: PerceptionError | None = None
        self.ended = False
        self._connect = connect
        self._deliver = deliver
        self._changed = changed
        self._clock = clock
        self._loop = loop
        self._name = name
        self._stopping = threading.Event()
        self._source: Source | None = None
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name=f"perception-capture {name}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """True while the thread runs."""
        return self._thread.is_alive()

    @property
    def dropped(self) -> int:
        """Frames that the source itself gave up, because the thread did not get to take them."""
        source = self._source
        return self._lost + (0 if source is None else source.dropped)

    @property
    def received(self) -> int:
        """Frames that came, where the source counts also those that it leaves out; else 0."""
        source = self._source
        return 0 if source is None else source.received

    @property
    def thinner(self) -> Thinner | None:
        """What frames can be asked of that are further apart, if the source can do that."""
        source = self._source
        return None if source is None else source.thinner

    def stop(self) -> None:
        """Give no further frame, and make a read in progress end soon. Waits for that, but not for long."""
        self._stopping.set()
        source = self._source
        if source is not None:
            source.close()

    def _run(self) -> None:
        try:
            self._play_all()
        except PerceptionError as error:
            self.error = error
        except Exception as error:  # whoever watches must learn of whatever ended this thread
            log.debug("capture", exc_info=True)
            self.error = SourceError(redact_text(f"reading failed: {type(error).__name__}: {error}"), self._name)
        finally:
            self._let_go()
            self.ended = True
            self._changed()

    def _play_all(self) -> None:
        while not self._stopping.is_set():
            with self._connect() as source:
                self._source = source
                if self._stopping.is_set():
                    return
                self.info = source.info
                self._changed()
                self._clock.restart()
                given = 0
                for frame in source if source.info.live else self._paced(source):
                    if self._stopping.is_set():
                        return
                    self._deliver(self._clock.stamp(frame))
                    given += 1
            self._let_go()
            if source.info.live or not self._loop:
                return
            if not given:  # or it would be opened again and again at once
                raise SourceError("there is no frame in it", source.info.uri)

    def _let_go(self) -> None:
        """Keep of the source, which is closed, what it has lost; its decoder takes megabytes."""
        source, self._source = self._source, None
        if source is not None:
            self._lost += source.dropped

    def _paced(self, source: Source) -> Iterator[Frame]:
        """Frames at their time, the last one for as long as it is shown."""
        began: float | None = None
        first = previous = 0.0
        step = float(1 / source.info.fps) if source.info.fps else 1.0
        for frame in source:
            now = self._clock.now()
            if began is None:
                began, first = now, frame.time
            else:
                step = min(max(frame.time - previous, 0.0), 10.0)
            due = began + frame.time - first
            if now > due + MAX_LAG_S:
                began += now - due
            elif self._stopping.wait(max(0.0, due - now)):
                return
            previous = frame.time
            yield frame.at(arrived=self._clock.now())
        self._stopping.wait(step)
