"""Decoding and inference in the background: frames of a source in, predictions in frame order out."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from perception.types import Frame, Prediction

if TYPE_CHECKING:
    from perception.model import Model
    from perception.propagation.key_frames import KeyFrames, Step
    from perception.sources.base import Source

KEY_FRAMES_BEHIND = 64
"""Frames after which what propagation loses counts; machines with more than 15 streams of the engine need more."""


def _key_frames(max_loss: float | None, behind: int, at_once: bool) -> KeyFrames | None:
    if max_loss is None:
        return None
    from perception.propagation.key_frames import KeyFrames  # compiles its kernels, which others need not wait for

    return KeyFrames(max_loss, behind, at_once)


class Workers:
    """The decoder and the threads that run the model: an iterator of predictions in frame order.

    With ``max_loss`` the model sees only some of the frames, see `perception.propagation.key_frames`.

    ``stop()`` ends reading, and what is in flight still comes out; ``fail(error)`` throws that away and makes the
    iteration raise; ``close()`` ends the threads.
    """

    def __init__(self, source: Source, model: Model, workers: int | None = None, max_loss: float | None = None) -> None:
        self._source = source
        self._model = model
        live = source.info.live
        count = workers or (1 if live else model.engine.streams + 1)
        # How many frames the decoder may take from the source: each worker that waits for one adds to it.
        self._wanted = threading.Semaphore(0 if live else count)
        self._frames: queue.SimpleQueue[tuple[int, Frame, float, Step | None] | None] = queue.SimpleQueue()
        self._window = 2 * count
        # The decoder is at most two windows ahead. As many frames as suit most machines, so that they all see the same.
        self.key_frames = _key_frames(max_loss, max(KEY_FRAMES_BEHIND, 2 * self._window), live)
        self._changed = threading.Condition()
        self._done: dict[int, tuple[Prediction, Step | None]] = {}
        self._read = 0
        self._next = 0
        self._ended = False
        self._error: BaseException | None = None
        self._source_error: BaseException | None = None
        self._decoder = threading.Thread(target=self._decode, name="perception-decode", daemon=True)
        self._workers = [
            threading.Thread(target=self._work, name=f"perception-infer-{i}", daemon=True) for i in range(count)
        ]
        for thread in (self._decoder, *self._workers):
            thread.start()

    def __iter__(self) -> Iterator[Prediction]:
        while (done := self._take()) is not None:
            prediction, step = done
            del done
            if self.key_frames is None or step is None:
                yield prediction
            else:
                yield from self.key_frames.results(prediction, step)
            del prediction
        if self.key_frames is not None:
            yield from self.key_frames.rest()
        if self._source_error is not None:
            raise self._source_error

    def _take(self) -> tuple[Prediction, Step | None] | None:
        """The next frame's prediction; None after the last."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._error or self._next in self._done or (self._ended and self._next == self._read)
            )
            if self._error is not None:
                raise self._error
            if self._next not in self._done:
                return None
            taken = self._done.pop(self._next)
            self._next += 1
            self._changed.notify_all()
        return taken

    @property
    def error(self) -> BaseException | None:
        """The first error that was given to ``fail``."""
        return self._error

    def stop(self) -> None:
        """Read no further frame; those already read still come out."""
        with self._changed:
            if not self._ended:
                self._ended = True
                for _ in self._workers:
                    self._frames.put(None)
            self._changed.notify_all()
        self._wanted.release()

    def fail(self, error: BaseException) -> None:
        """Give up: the iteration raises ``error`` (the first one given)."""
        with self._changed:
            self._error = self._error or error
        self.stop()

    def close(self) -> None:
        """End all threads."""
        self.fail(GeneratorExit())
        for worker in self._workers:
            worker.join()
        # A decoder may be blocked in a read that nothing can wake (a silent pipe); it is a daemon and ends with it.
        self._decoder.join(timeout=1.0)

    def _decode(self) -> None:
        try:
            frames = iter(self._source)
            while True:
                self._wanted.acquire()
                if self._ended:
                    break
                started = time.perf_counter()
                frame = next(frames, None)
                elapsed_ms = 1000 * (time.perf_counter() - started)
                step = None if frame is None or self.key_frames is None else self.key_frames.next(frame)
                with self._changed:
                    if frame is None or self._ended:
                        break
                    self._frames.put((self._read, frame, elapsed_ms, step))
                    self._read += 1
                del frame
        except BaseException as error:
            self._source_error = error
        finally:
            self.stop()

    def _work(self) -> None:
        try:
            while True:
                self._wanted.release()
                item = self._frames.get()
                if item is None:
                    return
                number, frame, decode_ms, step = item
                prediction = self._model.predict(frame) if step is None or step.seen else Prediction(frame)
                prediction = replace(prediction, timings={"decode": decode_ms, **prediction.timings})
                with self._changed:
                    # The frame that is due next never waits here, so this cannot lock up.
                    self._changed.wait_for(lambda n=number: n < self._next + self._window or self._error)  # type: ignore[misc]
                    if self._error is not None:
                        return
                    self._done[number] = prediction, step
                    self._changed.notify_all()
                # Buffers are reused once nobody refers to them: hold none while waiting for the next frame.
                del item, frame, prediction, step
        except BaseException as error:
            self.fail(error)
