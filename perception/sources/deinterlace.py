"""Deinterlacing with FFmpeg's BWDIF filter."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import av.error


class Deinterlacer:
    """Passes frames on as they are until one is flagged as interlaced, and through a filter from then on.

    The filter changes flagged frames only, so that a film keeps its progressive parts, and gives one picture a frame,
    one frame late.

    Args:
        time_base: seconds per unit of the frames' time stamps.
    """

    def __init__(self, time_base: Fraction) -> None:
        self._time_base = time_base
        self._graph: Any = None
        self._key: tuple[int, int, str] | None = None
        self._shapes: deque[Fraction] = deque()

    def push(self, frame: av.VideoFrame, shape: Fraction) -> Iterator[tuple[av.VideoFrame, Fraction]]:
        """Add ``frame``; yield the frames that are ready, each with the shape of its pixels as it was given."""
        if self._graph is None and not frame.interlaced_frame:
            yield frame, shape
            return
        key = (frame.width, frame.height, frame.format.name)
        if self._graph is not None and key != self._key:
            yield from self.flush()
        if self._graph is None:
            self._graph, self._key = self._make(frame), key
        self._shapes.append(shape)
        self._graph.vpush(frame)
        yield from self._pull(self._graph)

    def flush(self) -> Iterator[tuple[av.VideoFrame, Fraction]]:
        """Yield the frames that the filter still holds."""
        graph, self._graph = self._graph, None
        if graph is not None:
            graph.vpush(None)
            yield from self._pull(graph)
        self._shapes.clear()

    def _make(self, frame: av.VideoFrame) -> Any:
        graph = av.filter.Graph()
        graph.threads = 1
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=self._time_base
        )
        bwdif = graph.add("bwdif", "mode=send_frame:deint=interlaced")
        graph.link_nodes(source, bwdif, graph.add("buffersink")).configure()
        return graph

    def _pull(self, graph: Any) -> Iterator[tuple[av.VideoFrame, Fraction]]:
        while True:
            try:
                out = graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            out.pts = round((out.pts or 0) * (out.time_base or self._time_base) / self._time_base)
            out.time_base = self._time_base
            out.duration = 0  # the filter counts it in units of its own
            yield out, self._shapes.popleft() if self._shapes else Fraction(1)
