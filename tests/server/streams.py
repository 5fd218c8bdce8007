"""Streams to test with, and what they are watched by."""

import itertools
import math
import queue
from contextlib import closing

import numpy as np

from perception import open_source
from perception.server.streams.stream import Stream
from perception.server.streams.timeouts import Timeouts
from perception.sources.base import Source
from perception.types import Frame, SourceInfo

QUICK = Timeouts(stall=0.5, silence=1.5, opening=6.0, first_pause=0.05, longest_pause=0.2, age=5.0)
"""Pauses cut short; results may be old, since the tests' machine may be slow."""

CALM = Timeouts(stall=5.0, silence=1e6, opening=1e12, first_pause=0.05, longest_pause=0.2, age=math.inf)
"""For a clock that the test advances: however busy the machine is, nothing stalls by itself."""


class Scripted(Source):
    """A live source whose frames come when the test says so: 25 a second by their own clock, gray or ``pictures``.

    Without a ``clock`` they are never too old to be shown.
    """

    def __init__(self, uri="scripted", pictures=(), clock=lambda: 1e9):
        super().__init__()
        self._now = clock
        self._pictures = pictures or [np.full((48, 64, 3), 128, np.uint8)]
        height, width = self._pictures[0].shape[:2]
        self.info = SourceInfo(uri=uri, kind="camera", width=width, height=height, fps=None, time_base=None, live=True)
        self._queue = queue.Queue()
        self._count = itertools.count()

    def put(self, count=1):
        """Give so many frames; returns when all have been taken."""
        for _ in range(count):
            index = next(self._count)
            picture = self._pictures[min(index, len(self._pictures) - 1)]
            self._queue.put(Frame(picture, index=index, time=index / 25, arrived=self._now()))
        self._queue.join()

    def _read(self):
        while (frame := self._queue.get()) is not None:
            yield frame
            self._queue.task_done()  # what was given before is done with when the next one is asked for

    def _interrupt(self):
        self._queue.put(None)


def stream_of(uri, scheduler, **options):
    options = {"timeouts": QUICK} | options
    connect = options.pop("connect", lambda: open_source(uri, timeout=min(options["timeouts"].silence, 60)))
    return closing(Stream("s", "test", connect, scheduler, **options))


def slow(clock):
    """Options of a stream that only the test's clock makes impatient."""
    return {"timeouts": CALM, "clock": clock}


def collect(stream, count, options=None, timeout=30.0):
    """The next ``count`` results of a stream."""
    taken = []
    with stream.subscribe(options) as viewer:
        while len(taken) < count:
            prediction = viewer.next(timeout)
            assert prediction is not None, stream.status()
            taken.append(prediction)
    return taken
