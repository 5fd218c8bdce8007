"""Limits on opening a source: the size of its frames, and cancellation while it opens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from perception.errors import SourceError


class TooLargeError(SourceError):
    """A frame has more pixels than are allowed."""


PLAUSIBLE_PIXELS = 64_000_000
"""Pixels that a frame of any file may have: twice those of 8K video."""

PIXELS_PER_BYTE = 2500
"""Of larger frames; the emptiest page of a fax has as many, a photo some ten."""


class Bounds:
    """Size limit and cancellation for one source, or for several that are opened one after the other.

    Args:
        max_pixels: most pixels of a frame; None: any.
        reason: why not more, for the message.

    Attributes:
        cancelled: set when nobody wants the source any more.
    """

    def __init__(self, max_pixels: int | None = None, reason: str = "are allowed here") -> None:
        self.max_pixels = max_pixels
        self.reason = reason
        self.cancelled = threading.Event()
        self._lock = threading.Lock()
        self._waking: list[Callable[[], object]] = []
        self._threads: list[threading.Thread] = []

    @classmethod
    def of_file(cls, size: int) -> Bounds:
        """Return the bounds of a file that nobody bounds: a few damaged bytes may claim frames of gigabytes.

        Args:
            size: of the file, in bytes.
        """
        return cls(max(PLAUSIBLE_PIXELS, PIXELS_PER_BYTE * size), "are plausible in so small a file; it is damaged")

    @property
    def codec_options(self) -> dict[str, str]:
        """FFmpeg decoder options that refuse far too large pictures before memory is allocated for them.

        Twice as much as may be, because FFmpeg counts pictures with the margins that it puts around them; its option
        takes no more than 31 bits, which is also its own limit.
        """
        if self.max_pixels is None:
            return {}
        return {"max_pixels": str(min(2 * self.max_pixels + (1 << 16), (1 << 31) - 1))}

    @property
    def busy(self) -> bool:
        """True while a thread that a source started still runs, also one that hangs in a system call."""
        with self._lock:
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            return bool(self._threads)

    def cancel(self) -> None:
        """Cancel opening, now or later; it soon ends with an error."""
        self.cancelled.set()
        with self._lock:
            waking = [*self._waking]
        for wake in waking:
            wake()

    @contextmanager
    def waking(self, wake: Callable[[], object]) -> Iterator[None]:
        """Call ``wake`` if opening is cancelled within the block, so that what waits there stops waiting."""
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
        """Check for cancellation; called between the steps of opening.

        Raises:
            SourceError: opening was cancelled.
        """
        if self.cancelled.is_set():
            raise SourceError("closed while it was being opened", where)

    def check_size(self, width: float, height: float, where: str) -> None:
        """Check the size of a frame before memory is allocated for it.

        Raises:
            TooLargeError: it has more than ``max_pixels`` pixels.
        """
        if self.max_pixels is not None and width * height > self.max_pixels:
            raise TooLargeError(
                f"{round(width)}x{round(height)} is too large: at most {self.max_pixels} pixels {self.reason}", where
            )
