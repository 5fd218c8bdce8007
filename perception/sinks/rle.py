"""COCO's run-length encoding of masks: column by column, counts as a printable string.

The format is that of Lin et al., "Microsoft COCO: Common Objects in Context", 2014, as its API writes it: the counts
alternate between 0 and 1, starting with 0; each count from the fourth on is written as its difference to the count
two before; each number is written in groups of 5 bits, lowest first, bit 5 telling that another group follows and
bit 4 of the last group being the sign, and 48 is added to each group to make it a printable character.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from perception.types import U8


class RLE(TypedDict):
    """A compressed mask: ``size`` is ``[H, W]``, ``counts`` COCO's string."""

    size: list[int]
    counts: str


def encode_classes(mask: U8) -> dict[int, RLE]:
    """Encode the binary mask of each class that is present in a class mask.

    All classes are found in one pass over the runs, however many there are.

    Args:
        mask: uint8 ``[H, W]`` of class ids.

    Returns:
        For each class id that occurs, in ascending order, the RLE of ``mask == class id``.
    """
    height, width = mask.shape
    flat = np.ascontiguousarray(mask.T).reshape(-1)
    if flat.size == 0:
        return {}
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate(([0], starts))
    ends = np.concatenate((starts[1:], [flat.size]))
    values = flat[starts]
    found = {}
    for class_id in np.unique(values):
        of_class = values == class_id
        found[int(class_id)] = _from_runs(starts[of_class], ends[of_class], flat.size, height, width)
    return found


def _from_runs(starts: NDArray[np.int64], ends: NDArray[np.int64], total: int, height: int, width: int) -> RLE:
    """From the runs of ones ``[starts, ends)`` in the column-major mask."""
    edges = np.empty(2 * len(starts) + 2, np.int64)
    edges[0] = 0
    edges[1:-1:2] = starts
    edges[2:-1:2] = ends
    edges[-1] = total
    counts = np.diff(edges)
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    return RLE(size=[height, width], counts=_to_string(counts))


def _to_string(counts: NDArray[np.int64]) -> str:
    """COCO's string of the counts, all of them at once: groups ``[count, group]``, then those in use, row by row."""
    numbers = counts.copy()
    numbers[3:] -= counts[1:-2]
    # A number x needs the least g with -2**(5g-1) <= x < 2**(5g-1).
    magnitude = np.where(numbers < 0, ~numbers, numbers)
    longest = int(magnitude.max()).bit_length() // 5 + 1
    groups = np.ones(len(numbers), np.int64)
    for g in range(1, longest):
        groups += magnitude >= 1 << (5 * g - 1)
    place = np.arange(longest)
    characters = (numbers[:, None] >> (5 * place)) & 31
    characters |= np.where(place < groups[:, None] - 1, 32, 0)
    used = place < groups[:, None]
    return (characters[used] + 48).astype(np.uint8).tobytes().decode("ascii")
