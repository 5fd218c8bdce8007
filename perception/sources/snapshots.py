"""An address that gives one picture a request, as many cameras offer it: read again and again, live."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import av
import av.error

from perception.common.bounds import Bounds
from perception.errors import SourceError
from perception.sources.base import Selection
from perception.sources.container import StillPictureError, explain, video_stream
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
        bounds: what it is held to.

    Raises:
        SourceError: the first request fails, or its picture is too large.
    """

    def __init__(
        self,
        uri: str,
        selection: Selection,
        options: dict[str, str],
        *,
        timeout: float,
        fps: float | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        super().__init__()
        self._bounds = bounds = bounds or Bounds()
        self._uri = uri
        self._where = redact(uri)
        self._select = selection
        self._options = options | bounds.codec_options
        self._request_timeout = timeout
        self._interval = 1 / (fps or _USUAL_FPS)
        self._timeout = 2 * timeout + self._interval + 1
        self._present = Presenter(self._where, bounds)
        self._first_size = 0, 0
        self._opened = threading.Event()
        self._reader = LatestReader(self._produce, self._where, bounds)
        with bounds.waking(self._opened.set):
            opened = self._opened.wait(2 * timeout + 1)
        if bounds.cancelled.is_set() or not opened:
            self._interrupt()
            bounds.check(self._where)
            raise SourceError(f"no answer in {timeout:g} s", self._where)
        if not any(self._first_size):
            self._reader.take()  # raises what ended the thread
        self.info = SourceInfo(
            uri=self._where,
            kind="stream",
            width=self._first_size[0],
            height=self._first_size[1],
            fps=Fraction(1 / self._interval).limit_denominator(1001),
            time_base=_TIME_BASE,
            live=True,
            start=selection.start,
            duration=selection.duration,
            every=selection.every,
        )

    def _ask(self) -> Shown:
        """Request one picture.

        Raises:
            SourceError: there is none, or one that is too large.
        """
        self._bounds.check(self._where)
        latest = time.monotonic() + self._timeout
        try:
            with av.open(self._uri, "r", options=self._options, timeout=self._request_timeout) as container:
                stream = video_stream(container, self._uri)
                self._bounds.check_size(stream.codec_context.width, stream.codec_context.height, self._where)
                if self._bounds.codec_options:
                    stream.codec_context.options = self._bounds.codec_options
                for packet in container.demux(stream):
                    for frame in packet.decode():
                        return self._present(frame, stream.sample_aspect_ratio or Fraction(1))
                    if time.monotonic() > latest:
                        break
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise SourceError(explain(error, self._uri, self._request_timeout), self._where) from None
        raise StillPictureError("a picture that cannot be decoded", self._where)

    def _asked(self, stopping: threading.Event) -> Iterator[tuple[float, tuple[float, Shown]]]:
        """Pictures, with the seconds since the first one and the time at which they came."""
        first = self._ask()
        began = came = due = time.monotonic()
        self._first_size = _size(first)
        self._opened.set()
        shown: Shown | None = first
        del first
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
                if time.monotonic() - came > self._request_timeout + self._interval:
                    raise

    def _produce(self, stopping: threading.Event) -> Iterator[Frame | None]:
        """Yield pictures; runs in the reader thread."""
        try:
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
        finally:
            self._opened.set()


def _size(shown: Shown) -> tuple[int, int]:
    frame = Frame(shown[1], planes=shown[0])
    return frame.width, frame.height
