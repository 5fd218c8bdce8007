"""An address that gives one picture a request, as many cameras offer it: read again and again, live."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import av
import av.error

from perception.errors import SourceError
from perception.sources.base import Selection
from perception.sources.decode import StillPictureError, explain
from perception.sources.latest import LatestReader, LiveSource, selected
from perception.sources.presentation import Presenter
from perception.sources.uri import redact
from perception.types import U8, Frame, Planes, SourceInfo

_TIME_BASE = Fraction(1, 90_000)
_USUAL_FPS = 1.0
"""Requests a second: each costs a cheap camera a connection and a picture."""

Shown = tuple[Planes | None, U8 | None]


class SnapshotSource(LiveSource):
    """Pictures of an address that is asked at a steady rate. Time runs from the first one, by this machine's clock.

    A request that fails is left out and counted in ``corrupt``, as long as one works within ``timeout``.

    Args:
        uri: ``http(s)://``.
        selection: which pictures.
        options: FFmpeg's, for each request.
        timeout: seconds to wait for an answer.
        fps: requests a second; slower where the camera is.

    Raises:
        SourceError: the first request fails.
    """

    def __init__(
        self, uri: str, selection: Selection, options: dict[str, str], *, timeout: float, fps: float | None = None
    ) -> None:
        super().__init__()
        self._uri = uri
        self._where = redact(uri)
        self._select = selection
        self._options = options
        self._timeout = timeout
        self._interval = 1 / (fps or _USUAL_FPS)
        self._patience = 2 * timeout + self._interval + 1
        self._present = Presenter(self._where)
        planes, image = first = self._ask()
        self._came = time.monotonic()
        probe = Frame(image, planes=planes)
        self.info = SourceInfo(
            uri=self._where,
            kind="stream",
            width=probe.width,
            height=probe.height,
            fps=Fraction(1 / self._interval).limit_denominator(1001),
            time_base=_TIME_BASE,
            live=True,
            start=selection.start,
            duration=selection.duration,
            every=selection.every,
        )
        self._first: Shown | None = first
        self._reader = LatestReader(self._produce, self._where)

    def _ask(self) -> Shown:
        """One picture.

        Raises:
            SourceError: there is none.
        """
        try:
            with av.open(self._uri, "r", options=self._options, timeout=self._timeout) as container:
                for frame in container.decode(video=0):
                    return self._present(frame, container.streams.video[0].sample_aspect_ratio or Fraction(1))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise SourceError(explain(error, self._uri, self._timeout), self._where) from None
        raise StillPictureError("a picture in which nothing can be decoded", self._where)

    def _asked(self, stopping: threading.Event) -> Iterator[tuple[float, tuple[float, Shown]]]:
        """Pictures, with the seconds since the first one and the time at which they came."""
        began = came = due = self._came
        shown, self._first = self._first, None
        while not stopping.is_set():
            if shown is not None:
                yield came - began, (came, shown)
            due = max(due + self._interval, time.monotonic())
            if stopping.wait(due - time.monotonic()):
                return
            try:
                shown = self._ask()
                came = time.monotonic()
            except SourceError:
                self.corrupt += 1
                shown = None
                if time.monotonic() - came > self._timeout + self._interval:
                    raise

    def _produce(self, stopping: threading.Event) -> Iterator[Frame | None]:
        """Runs in the reader thread."""
        for chosen in selected(self._asked(stopping), self._select):
            if chosen is None:
                yield None
                continue
            index, seconds, (came, (planes, image)) = chosen
            yield Frame(
                image,
                index=index,
                time=seconds,
                source=self._where,
                pts=round(seconds / _TIME_BASE),
                time_base=_TIME_BASE,
                planes=planes,
                arrived=came,
            )
