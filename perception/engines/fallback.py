"""An engine that falls back to another one when its device is lost."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from perception.engines.base import Engine
from perception.errors import EngineError
from perception.types import F32, U8, Frame

if TYPE_CHECKING:
    from perception.engines.base import FrameResult
    from perception.picture.letterbox import ResizeMode

_log = logging.getLogger("perception")


class FallbackEngine(Engine):
    """See `Engine`. Runs ``first`` until it fails, then the first of ``others`` that opens, and so on.

    Args:
        first: an open engine.
        others: open the engines to go on with, best first.
    """

    def __init__(self, first: Engine, others: list[Callable[[], Engine]]) -> None:
        self._others = list(others)
        self._lock = threading.Lock()
        self._closed = False
        self._take(first)

    def _take(self, engine: Engine) -> None:
        self._current = engine
        self.name, self.path, self.precision = engine.name, engine.path, engine.precision
        self.description, self.input_shape = engine.description, engine.input_shape
        self.streams, self.batch = engine.streams, engine.batch
        self.gives_masks = engine.gives_masks

    def _run(self, frames: U8) -> dict[str, F32]:
        current = self._current
        try:
            return current.infer(frames)
        except EngineError as error:
            return self._next(current, error).infer(frames)

    def infer_frames(self, frames: Sequence[Frame], resize: ResizeMode, buffer: U8) -> list[FrameResult]:
        """See `Engine.infer_frames`; each engine fits frames in its own way, and takes as many at once as it likes."""
        current = self._current
        try:
            return current.infer_frames(frames, resize, buffer)
        except EngineError as error:
            return self._next(current, error).infer_frames(frames, resize, buffer)

    def _next(self, failed: Engine, error: EngineError) -> Engine:
        """Return the engine after the one that failed; one thread opens it, the others wait for it."""
        with self._lock:
            if self._closed:
                raise self._closed_error()
            while self._current is failed and self._others:
                try:
                    engine = self._others.pop(0)()
                except EngineError as refusal:
                    _log.warning("%s", refusal)
                    continue
                _log.warning("%s; continuing with %s", error, engine.description)
                self._take(engine)
            if self._current is failed:
                raise error
        return self._current

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._current.close()
