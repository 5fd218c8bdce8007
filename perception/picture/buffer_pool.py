"""A pool of memory for pictures, reused once nothing refers to it any more."""

from __future__ import annotations

import sys
import threading

import numpy as np

from perception.picture.planes import U8


class BufferPool:
    """Reuses arrays that nobody but the pool refers to any more. Safe to use from several threads.

    A fresh array costs a page fault for each 4 KiB when first written, more than drawing into it. Whoever holds an
    array, a view of it or an object that wraps its memory (an encoder that looks ahead) keeps it from being used again.

    Args:
        limit: arrays that are kept; when all are in use, further ones are made and left to their users.
    """

    def __init__(self, limit: int = 32) -> None:
        self._limit = limit
        self._arrays: list[U8] = []
        self._lock = threading.Lock()

    def get(self, shape: tuple[int, ...]) -> U8:
        """Return a uint8 array of that shape, contents undefined; free again when it and its views are gone."""
        with self._lock:
            spare = -1
            for i in range(len(self._arrays)):
                if _references(self._arrays, i) <= _UNUSED:
                    if self._arrays[i].shape == shape:
                        return self._arrays[i]
                    spare = i
            array = np.empty(shape, np.uint8)
            if spare >= 0:  # of another size, so of an earlier source
                self._arrays[spare] = array
            elif len(self._arrays) < self._limit:
                self._arrays.append(array)
            return array


def _references(arrays: list[U8], i: int) -> int:
    return sys.getrefcount(arrays[i])


_UNUSED = _references([np.empty(1, np.uint8)], 0)
"""The count of an array that only a list holds, measured as it is used: it differs between Python versions."""
