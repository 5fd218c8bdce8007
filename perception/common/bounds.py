"""What a source is held to by whoever opens it: a size, and that it can be given up while it opens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from perception.errors import SourceError


class TooLargeError(SourceError):
    """A frame has more pixels than are taken."""


class Bounds:
    """Bounds of one source, or of several that are opened one after the other.

    Args:
        max_pixels: most pixels of a frame; None: any.

    Attributes:
        cancelled: set when nobody wants the source any more.
    """

    def __init__(self, max_pixels: int | None = None) -> None:
        self.max_pixels = max_pixels
        self.cancelled = threading.Event()
        self._lock = threading.Lock()
        self._waking: list[Callable[[], object]] = []
        self._threads: list[threading.Thread] = []

    @property
    def codec_options(self) -> dict[str, str]:
        """Options of FFmpeg's for decoders: what is far too large is refused before memory is taken for it.

        Twice as much as may be, because FFmpeg counts pictures with the margins that it puts around them.
        """
        return {} if self.max_pixels is None else {"max_pixels": str(2 * self.max_pixels + (1 << 16))}

    @property
    def busy(self) -> bool:
        """Whether a thread that a source started still runs, also one that was left behind in a system call."""
        with self._lock:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            return bool(self._threads)

    def cancel(self) -> None:
        """Give up a source that is being opened, now or later: that ends soon, with an error."""
        self.cancelled.set()
        with self._lock:
            waking = [*self._waking]
        for wake in waking:
            wake()

    @contextmanager
    def waking(self, wake: Callable[[], object]) -> Iterator[None]:
        """Call ``wake`` when the source is given up within the block, so that what waits there does so no longer."""
        with self._lock:
            self._waking.append(wake)
        try:
            if self.cancelled.is_set():
                wake()
            yield
        finally:
            with self._lock:
                self._waking.remove(wake)

    def start(self, target: Callable[[], object], name: str) -> threading.Thread:
        """Start a daemon thread, and count it in `busy` until it ends."""
        thread = threading.Thread(target=target, name=name, daemon=True)
        with self._lock:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            thread.start()  # under the lock: one that has not started yet looks like one that has ended
            self._threads.append(thread)
        return thread

    def check(self, where: str) -> None:
        """Between the steps of opening.

        Raises:
            SourceError: the source is given up.
        """
        if self.cancelled.is_set():
            raise SourceError("closed while it was being opened", where)

    def check_size(self, width: float, height: float, where: str) -> None:
        """Before memory is taken for a frame of that size.

        Raises:
            TooLargeError: it is too large.
        """
        if self.max_pixels is not None and width * height > self.max_pixels:
            raise TooLargeError(
                f"{round(width)}x{round(height)} is too large: at most {self.max_pixels} pixels are taken here", where
            )
