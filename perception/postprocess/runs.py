"""Run-length coding of class maps, for sending them: a road scene of 320x240 cells takes about 4 kB instead of 77.

The code is a sequence of runs in raster order, which go on over the ends of rows: one byte for the class, then the
length of the run as an unsigned LEB128 number (7 bits a byte, lowest first, bit 7 set where another byte follows).
A run of n cells never takes more than n + 1 bytes, so that the code has a bound that is known beforehand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numpy.typing import NDArray

from perception.common.jit import I64_1D, U8_ROWS_IN, inline_helper, kernel, row
from perception.types import U8

CLASS_IDS = 256


def encode_runs(labels: U8) -> tuple[U8, NDArray[np.int64]]:
    """Encode a class map as runs, and count the cells of each class, in one pass.

    Args:
        labels: uint8 ``[h, w]`` of class ids; rows may be padded.

    Returns:
        uint8 ``[n]``, the code, and int64 ``[256]``, the cells of each class id.
    """
    code = np.empty(2 * labels.size, np.uint8)
    counts = np.zeros(CLASS_IDS, np.int64)
    return code[: _encode(labels, code, counts)], counts


def decode_runs(code: bytes | U8, height: int, width: int) -> U8:
    """Decode runs to uint8 ``[height, width]``, the inverse of `encode_runs`.

    Raises:
        ValueError: the code is cut short, or is not of that many cells.
    """
    data = np.frombuffer(code, np.uint8) if isinstance(code, (bytes, bytearray, memoryview)) else code
    labels = np.empty(height * width, np.uint8)
    if not _decode(np.ascontiguousarray(data), labels):
        raise ValueError(f"these {len(data)} bytes are not the runs of {height}x{width} cells")
    return labels.reshape(height, width)


_U8_1D = types.Array(types.uint8, 1, "C")
_U8_1D_IN = types.Array(types.uint8, 1, "C", readonly=True)


@inline_helper
def _put(code, n, value, length, counts):  # type: ignore[no-untyped-def]
    """Write one run at ``n``; gives where the next one goes."""
    counts[value] += length
    code[n] = value
    n += 1
    while length > 127:
        code[n] = length & 127 | 128
        length >>= 7
        n += 1
    code[n] = length
    return n + 1


@kernel(types.int64(U8_ROWS_IN, _U8_1D, I64_1D))
def _encode(labels, code, counts):  # type: ignore[no-untyped-def]
    """Write the code, add to the counts; gives the code's length. ``code`` has room for 2 bytes a cell."""
    height, width = labels.shape
    n = 0
    length = 0
    current = np.uint8(0)
    for y in range(height):
        line = row(labels, y)
        for x in range(width):
            if line[x] == current and length > 0:
                length += 1
                continue
            if length > 0:
                n = _put(code, n, current, length, counts)
            current = line[x]
            length = 1
    if length > 0:
        n = _put(code, n, current, length, counts)
    return n


@kernel(types.boolean(_U8_1D_IN, _U8_1D))
def _decode(code, labels):  # type: ignore[no-untyped-def]
    """Fill ``labels``; False where the code does not fill it exactly."""
    i = 0
    done = 0
    while i < len(code):
        value = code[i]
        i += 1
        length: Any = np.int64(0)
        shift = 0
        while True:
            if i == len(code) or shift > 28:
                return False
            byte = np.int64(code[i])
            i += 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        if length == 0 or length > len(labels) - done:
            return False
        labels[done : done + length] = value
        done += length
    return done == len(labels)
