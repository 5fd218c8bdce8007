"""Panoptic view: a class map and boxes of things become segments, each a thing of its own or the stuff of a class.

As Kirillov et al., "Panoptic Segmentation" (2019), define it: every pixel has one segment at most, and segments do not
overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numba.core import types

from perception.common.jit import F32_1D_IN, I32_1D, I64_1D, U8_ROWS_IN, kernel
from perception.types import U8, Detections, Panoptic, Segment

CLASS_IDS = 256


def panoptic(
    mask: U8,
    detections: Detections,
    things: Mapping[int, Sequence[int]],
    ignored: Sequence[int] = (),
    min_area: int = 1,
) -> Panoptic:
    """Split the things of a class map along boxes.

    A pixel of a thing class belongs to the box around it; of several, to the one with the best score, and of equal
    ones, to the one whose centre is nearest. Pixels of things in no box are together one segment without a score.

    Args:
        mask: uint8 ``[H, W]`` class ids.
        detections: boxes in pixels of the mask.
        things: by class id of the mask, the detections' class ids that show it; other classes are stuff.
        ignored: class ids of the mask that are no segment.
        min_area: segments of fewer pixels are left out.
    """
    claims = [
        (number, class_id)
        for number, kind in enumerate(detections.class_ids.tolist())
        for class_id, kinds in things.items()
        if kind in kinds
    ]
    rows = [number for number, _ in claims]
    boxes = detections.boxes[rows].astype(np.float64).reshape(-1, 4)
    scores = np.ascontiguousarray(detections.scores[rows], np.float32)
    classes = [class_id for _, class_id in claims]
    height, width = mask.shape
    # pixels whose centres are inside
    windows = np.clip(np.ceil(boxes - 0.5), 0, [width, height, width, height]).astype(np.int64)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    ids = np.zeros(mask.shape, np.int32)
    _claim(mask, windows, centres, scores, np.array(classes, np.int64), ids)

    found: list[tuple[int, float | None]] = list(zip(classes, scores.tolist(), strict=True))
    rest = np.zeros(CLASS_IDS, np.int32)
    left = [class_id for class_id in range(CLASS_IDS) if class_id not in ignored]
    rest[left] = np.arange(len(found) + 1, len(found) + 1 + len(left), dtype=np.int32)
    found += [(class_id, None) for class_id in left]
    measures = np.zeros((len(found) + 1, 5), np.int64)
    measures[:, 1:3] = max(height, width)
    _fill_and_measure(mask, rest, ids, measures)

    segments: list[Segment] = []
    table = np.zeros(len(found) + 1, np.int32)
    for number in np.flatnonzero(measures[:, 0] >= max(min_area, 1)).tolist():
        if number == 0:
            continue
        class_id, score = found[number - 1]
        area, x0, y0, x1, y1 = measures[number].tolist()
        table[number] = len(segments) + 1
        segments.append(Segment(len(segments) + 1, class_id, score, area, (x0, y0, x1, y1)))
    _renumber(table, ids)
    return Panoptic(ids, segments, frozenset(things))


_I32_2D = types.Array(types.int32, 2, "C")
_I64_2D = types.Array(types.int64, 2, "C")
_F64_2D = types.Array(types.float64, 2, "C")


@kernel(types.void(U8_ROWS_IN, _I64_2D, _F64_2D, F32_1D_IN, I64_1D, _I32_2D))
def _claim(mask, windows, centres, scores, classes, ids):  # type: ignore[no-untyped-def]
    """Put the number of its box, from 1, into each pixel that has one."""
    for i in range(len(windows)):
        for y in range(windows[i, 1], windows[i, 3]):
            for x in range(windows[i, 0], windows[i, 2]):
                if mask[y, x] != classes[i]:
                    continue
                other = ids[y, x] - 1
                if other >= 0:
                    if scores[other] > scores[i]:
                        continue
                    if scores[other] == scores[i]:
                        mine = (x + 0.5 - centres[i, 0]) ** 2 + (y + 0.5 - centres[i, 1]) ** 2
                        its = (x + 0.5 - centres[other, 0]) ** 2 + (y + 0.5 - centres[other, 1]) ** 2
                        if its <= mine:
                            continue
                ids[y, x] = i + 1


@kernel(types.void(U8_ROWS_IN, I32_1D, _I32_2D, _I64_2D))
def _fill_and_measure(mask, rest, ids, measures):  # type: ignore[no-untyped-def]
    """Number the pixels of no box by ``rest`` of their class; area, x0, y0, x1 and y1 of each number."""
    height, width = mask.shape
    for y in range(height):
        for x in range(width):
            number = ids[y, x]
            if number == 0:
                number = rest[mask[y, x]]
                ids[y, x] = number
            m = measures[number]
            m[0] += 1
            m[1] = min(m[1], x)
            m[2] = min(m[2], y)
            m[3] = max(m[3], x + 1)
            m[4] = max(m[4], y + 1)


@kernel(types.void(I32_1D, _I32_2D))
def _renumber(table, ids):  # type: ignore[no-untyped-def]
    height, width = ids.shape
    for y in range(height):
        for x in range(width):
            ids[y, x] = table[ids[y, x]]
