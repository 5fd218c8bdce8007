"""An engine that falls back to another one when its device is lost, and returns when it works again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from perception.engines.base import Engine
from perception.errors import EngineError
from perception.types import F32, U8, Frame

if TYPE_CHECKING:
    from perception.engines.base import FrameResult
    from perception.picture.letterbox import ResizeMode

RETRY_S = 30.0
"""Seconds until a lost device is tried for the first time; twice as long before each further attempt."""
MOST_RETRY_S = 600.0
"""Seconds between two attempts at most; a device that has worked for so long begins anew."""

_log = logging.getLogger("perception")


class FallbackEngine(Engine):
    """See `Engine`. Runs ``first`` until it fails, then the first of ``others`` that opens, and so on.

    A device that was lost gives back its memory, and is opened again now and then; once that succeeds, it goes on.

    Args:
        first: an open engine.
        reopen: opens it again.
        others: open the engines to go on with, best first.
    """

    def __init__(self, first: Engine, reopen: Callable[[], Engine], others: Sequence[Callable[[], Engine]]) -> None:
        self._first = first
        self._reopen = reopen
        self._others = list(others)
        self._spare: Engine | None = None  # open, for the next time
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._taken = time.monotonic()
        self._wait_s = RETRY_S
        self._take(first)

    def _take(self, engine: Engine) -> None:
        self._current = engine
        self.name, self.path, self.precision = engine.name, engine.path, engine.precision
        self.description, self.input_shape = engine.description, engine.input_shape
        self.streams, self.batch = engine.streams, engine.batch

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
            if self._ended.is_set():
                raise self._closed_error()
            while self._current is failed and (self._spare is not None or self._others):
                try:
                    engine = self._spare or self._others.pop(0)()
                except EngineError as refusal:
                    _log.warning("%s", refusal)
                    continue
                self._spare = None
                _log.warning("%s; continuing with %s", error, engine.description)
                self._take(engine)
                if failed is self._first:
                    threading.Thread(target=self._return, args=(failed,), name="perception-gpu", daemon=True).start()
            if self._current is failed:
                raise error
        return self._current

    def _return(self, lost: Engine) -> None:
        """Close a lost engine, and open it again as soon as that is possible."""
        if time.monotonic() - self._taken > MOST_RETRY_S:
            self._wait_s = RETRY_S
        with suppress(Exception):
            lost.close()
        while not self._ended.wait(self._wait_s):
            self._wait_s = min(2 * self._wait_s, MOST_RETRY_S)
            try:
                engine = self._reopen()
            except Exception as refusal:  # a lost GPU fails in many ways
                _log.debug("%s: not back: %s", lost.name, refusal)
                continue
            with self._lock:
                if self._ended.is_set():
                    engine.close()
                    return
                _log.warning("%s: %s works again", engine.path.name, engine.description)
                self._spare, self._first, self._taken = self._current, engine, time.monotonic()
                self._take(engine)
            return

    def close(self) -> None:
        with self._lock:
            self._ended.set()
            engines = [self._current] if self._spare is None else [self._current, self._spare]
            self._spare = None
        for engine in engines:
            engine.close()
