"""What it costs to take a box for a track."""

from __future__ import annotations

import numpy as np

from perception.common.jit import helper
from perception.tracking.motion import VALUE, VAR

NEVER = 9.0
LIMIT = 5.0
"""Pairs that cost less may be matched."""
HEIGHT_POWER = 0.4
"""How much the overlap of heights counts beside that of areas: people side by side differ in it, since they stand at
different depths (Yang et al., "Hybrid-SORT", AAAI 2024)."""
SPREAD = 0.5
"""Boxes are made larger by so many standard deviations of the guess, so that a guess that is unsure may still match."""
LOST_COST, LOST_MOST_S = 0.2, 2.0
"""Cost per second that a track was not seen, and the seconds after which it does not rise any more."""
OTHER_CLASS_COST, OTHER_CLASS_OVERLAP = 0.3, 0.6
"""Cost of a box of another class than its track's, and the least overlap for that: a rider is not his bicycle."""


@helper
def overlap(ax0, ay0, ax1, ay1, bx0, by0, bx1, by1):  # type: ignore[no-untyped-def]
    """IoU of two boxes, times a power of that of their heights."""
    w = min(ax1, bx1) - max(ax0, bx0)
    h = min(ay1, by1) - max(ay0, by0)
    if not (w > 0 and h > 0):
        return 0.0
    inter = w * h
    iou = inter / ((ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - inter)
    return iou * (h / (max(ay1, by1) - min(ay0, by0))) ** HEIGHT_POWER


@helper
def costs_of(tracks, columns, boxes, class_ids, filters, unsure, unseen, track_classes, least):  # type: ignore[no-untyped-def]
    """Cost of each pair of a track and a box, float64 ``[len(tracks), len(columns)]``; `NEVER` below ``least`` overlap.

    Args:
        tracks, columns: rows of the tracks and of the boxes that are meant.
        boxes: xyxy of all boxes.
        filters: where all tracks are.
        unsure: make boxes larger by what the filter is unsure of.
        unseen: seconds that each track was not seen.
    """
    out = np.full((len(tracks), len(columns)), NEVER)
    for r in range(len(tracks)):
        t = tracks[r]
        f = filters[t]
        more_x = SPREAD * np.sqrt(f[0, VAR]) if unsure else 0.0
        more_y = SPREAD * np.sqrt(f[1, VAR]) if unsure else 0.0
        half_w = 0.5 * max(f[2, VALUE], 1.0) + more_x
        half_h = 0.5 * max(f[3, VALUE], 1.0) + more_y
        x0, x1 = f[0, VALUE] - half_w, f[0, VALUE] + half_w
        y0, y1 = f[1, VALUE] - half_h, f[1, VALUE] + half_h
        late = LOST_COST * min(unseen[t], LOST_MOST_S)
        for k in range(len(columns)):
            i = columns[k]
            bx0, by0, bx1, by1 = boxes[i, 0] - more_x, boxes[i, 1] - more_y, boxes[i, 2] + more_x, boxes[i, 3] + more_y
            if bx0 >= x1 or bx1 <= x0 or by0 >= y1 or by1 <= y0:
                continue
            iou = overlap(x0, y0, x1, y1, bx0, by0, bx1, by1)
            other = track_classes[t] != class_ids[i]
            if iou > 0 and iou >= (max(least, OTHER_CLASS_OVERLAP) if other else least):
                out[r, k] = 1.0 - iou + late + (OTHER_CLASS_COST if other else 0.0)
    return out
