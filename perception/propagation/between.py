"""Boxes of the frames between two that the network has seen, by what it says of both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perception.types import F32, Detections

SAME = 0.3
"""Boxes of the same class with such an IoU, once they are where the motion takes them, are the same thing's."""


def between(
    first: Detections, moved: Sequence[F32], second: Detections, origins: F32, size: tuple[int, int]
) -> list[Detections]:
    """Interpolate boxes and scores.

    A box of the first key frame goes with the motion of the picture, and in equal steps comes to lie where the second
    key frame has it. One that only one of them has is there all the way: a network rather misses a thing in a frame
    than that it sees one where none is.

    Args:
        first: of a key frame.
        moved: for each frame between, at least one, the boxes of ``first`` where the motion takes them, float32
            ``[N, 4]`` xyxy.
        second: of the next key frame.
        origins: from where each of its boxes comes in one frame, float32 ``[M, 2]``, x and y in pixels relative to it.
        size: ``(width, height)`` of the frames; boxes that have left them are dropped.

    Returns:
        detections of each frame between, highest score first.
    """
    count = len(moved) + 1
    there = 2 * moved[-1] - (moved[-2] if count > 2 else first.boxes)  # where they would be by the second key frame
    own, other = pairs(there, first.class_ids, second.boxes, second.class_ids, SAME)
    error = second.boxes[other] - there[own]
    gone, new = np.delete(np.arange(len(first)), own), np.delete(np.arange(len(second)), other)
    ids = np.concatenate([first.class_ids[own], first.class_ids[gone], second.class_ids[new]])
    found = []
    for number, boxes in enumerate(moved, 1):
        part = np.float32(number / count)
        back = np.tile((count - number) * origins[new], 2)
        scores = (1 - part) * first.scores[own] + part * second.scores[other]
        everything = Detections(
            np.concatenate([boxes[own] + part * error, boxes[gone], second.boxes[new] + back]).astype(np.float32),
            np.concatenate([scores, first.scores[gone], second.scores[new]]).astype(np.float32),
            ids,
        )
        found.append(inside(everything, size))
    return found


def pairs(
    boxes: F32, ids: NDArray[np.int32], others: F32, other_ids: NDArray[np.int32], least: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Match boxes of the same class that overlap, each at most once, greedily in the order of ``boxes``.

    Args:
        boxes, others: float32 ``[N, 4]`` and ``[M, 4]`` xyxy.
        ids, other_ids: of their classes.
        least: IoU of those that match.

    Returns:
        indices of both, int ``[K]``.
    """
    overlaps = _iou(boxes, others) * (ids[:, None] == other_ids)
    own, matched = [], []
    for i in range(len(boxes)) if len(others) else ():
        j = int(overlaps[i].argmax())
        if overlaps[i, j] >= least:
            overlaps[:, j] = 0
            own.append(i)
            matched.append(j)
    return np.array(own, np.intp), np.array(matched, np.intp)


def inside(found: Detections, size: tuple[int, int]) -> Detections:
    """Clip boxes to frames of ``(width, height)``, drop those that have left them, and order by score."""
    clipped = np.clip(found.boxes, 0, np.array([*size, *size], np.float32)).astype(np.float32)
    kept = np.flatnonzero(((clipped[:, 2:] - clipped[:, :2]) > 1).all(axis=1))
    kept = kept[np.argsort(-found.scores[kept], kind="stable")]
    return Detections(clipped[kept], found.scores[kept], found.class_ids[kept])


def _iou(a: F32, b: F32) -> F32:
    """float32 ``[N, M]``; 0 of boxes without area, which motion can make."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1) for boxes in (a, b)]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1] - shared, 1e-9), np.float32)
