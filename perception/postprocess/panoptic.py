"""Panoptic view: a class map and boxes of things become segments, each a thing of its own or the stuff of a class.

As Kirillov et al., "Panoptic Segmentation" (2019), define it: every pixel has one segment at most, and segments do not
overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.types import U8, Detections

THICKNESS = 2  # of contours, in pixels


@dataclass(frozen=True, slots=True)
class Segment:
    """Attributes:
    id: number in the map, from 1.
    class_id: of the class map.
    score: of the box that it is from; None of stuff, and of things that no box was found around.
    area: pixels.
    box: xyxy of its pixels, edges of pixels.
    """

    id: int
    class_id: int
    score: float | None
    area: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Panoptic:
    """Attributes:
    ids: int32 ``[H, W]``: the segment of each pixel, 0 for none.
    segments: those of at least one pixel.
    """

    ids: NDArray[np.int32]
    segments: list[Segment]


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
    height, width = mask.shape
    ids = np.zeros((height, width), np.int32)
    best = np.full((height, width), -np.inf, np.float32)
    distance = np.full((height, width), np.inf, np.float32)
    found: list[tuple[int, float | None]] = []  # class and score by id - 1
    for box, score, kind in zip(detections.boxes, detections.scores, detections.class_ids, strict=True):
        classes = [c for c, kinds in things.items() if int(kind) in kinds]
        if not classes:
            continue
        # pixels whose centres are inside
        x0, y0 = (int(np.ceil(max(v, 0) - 0.5)) for v in box[:2])
        x1, y1 = (int(np.ceil(v - 0.5)) for v in box[2:])
        window = np.s_[y0 : max(y1, y0), x0 : max(x1, x0)]
        y, x = np.ogrid[window]
        away = ((x + 0.5 - (box[0] + box[2]) / 2) ** 2 + (y + 0.5 - (box[1] + box[3]) / 2) ** 2)[
            : best[window].shape[0], : best[window].shape[1]
        ]
        for class_id in classes:
            mine = mask[window] == class_id
            mine &= (score > best[window]) | ((score == best[window]) & (away < distance[window]))
            if not mine.any():
                continue
            found.append((class_id, float(score)))
            ids[window][mine] = len(found)
            best[window][mine] = score
            distance[window][mine] = away[mine]
    for class_id in np.unique(mask[ids == 0]).tolist():
        if class_id not in ignored:
            found.append((class_id, None))
            ids[(ids == 0) & (mask == class_id)] = len(found)
    return _described(ids, found, min_area)


def _described(ids: NDArray[np.int32], found: Sequence[tuple[int, float | None]], min_area: int) -> Panoptic:
    """Number the segments that have pixels left, and measure them."""
    segments: list[Segment] = []
    table = np.zeros(len(found) + 1, np.int32)
    areas = np.bincount(ids.ravel(), minlength=len(found) + 1)
    for number, (class_id, score) in enumerate(found, 1):
        if areas[number] < max(min_area, 1):
            continue
        rows, columns = (np.flatnonzero((ids == number).any(axis)) for axis in (1, 0))
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        table[number] = len(segments) + 1
        segments.append(Segment(len(segments) + 1, class_id, score, int(areas[number]), box))
    return Panoptic(table[ids], segments)


def draw_contours(image: U8, view: Panoptic, colors_bgr: Sequence[tuple[int, int, int]]) -> None:
    """Draw the outline of every thing that has a score onto ``image``, uint8 ``[H, W, 3]`` BGR, in place.

    Args:
        image: of the size of the map.
        view: what to draw.
        colors_bgr: by class id of the class map.
    """
    for segment in view.segments:
        if segment.score is None:
            continue
        x0, y0, x1, y1 = segment.box
        part = (view.ids[y0:y1, x0:x1] == segment.id).astype(np.uint8)
        contours, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(x0, y0))
        cv2.drawContours(image, contours, -1, (255, 255, 255), THICKNESS + 2)
        cv2.drawContours(image, contours, -1, colors_bgr[segment.class_id], THICKNESS)
