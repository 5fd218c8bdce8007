"""Pictures for notebooks: small PNGs, and boxes and classes drawn by their ids where nobody gave a card with names."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.common.palette import class_colors
from perception.picture.planes import F32, U8

LONGEST = 1280
"""Pixels of the longer side of a picture in a notebook; larger ones are made smaller."""


def to_png(image: U8, longest: int = LONGEST) -> bytes:
    """Encode uint8 ``[H, W, 3]`` BGR as PNG, made smaller where a side is longer than ``longest``."""
    scale = longest / max(image.shape[:2])
    if scale < 1:
        height, width = (max(round(side * scale), 1) for side in image.shape[:2])
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    encoded, data = cv2.imencode(".png", image)
    assert encoded
    return data.tobytes()


def sketch_classes(image: U8, mask: U8, ignored: tuple[int, ...] = ()) -> U8:
    """Blend a colour for each class id over uint8 ``[H, W, 3]`` BGR; ``mask`` is ``[H, W]``. Gives a new picture."""
    colors = np.array(class_colors(256), np.uint8)[:, ::-1]
    shown = ~np.isin(mask, ignored)
    blended = image.copy()
    blended[shown] = (image[shown].astype(np.uint16) + colors[mask[shown]] + 1) // 2
    return blended


def sketch_boxes(
    image: U8, boxes: F32, scores: F32, class_ids: NDArray[np.int32], track_ids: NDArray[np.int64] | None = None
) -> None:
    """Draw boxes, each with its class id, its score and its track, into uint8 ``[H, W, 3]`` BGR.

    Args:
        image: is written into.
        boxes: ``[N, 4]`` xyxy in its pixels, the best one first; those that are not finite are left out.
        scores: ``[N]``.
        class_ids: ``[N]``.
        track_ids: ``[N]``, or None.
    """
    line = max(round(max(image.shape[:2]) / 500), 1)
    colors = class_colors(int(class_ids.max(initial=0)) + 1)
    limit = 2.0 * max(image.shape[:2])
    for i in reversed(np.flatnonzero(np.isfinite(boxes).all(axis=1)).tolist()):
        x0, y0, x1, y1 = np.rint(np.clip(boxes[i], -limit, limit)).astype(int).tolist()
        color = colors[int(class_ids[i])][::-1]
        cv2.rectangle(image, (x0, y0), (x1 - 1, y1 - 1), color, line)
        text = f"{int(class_ids[i])}  {scores[i]:.0%}"
        text = text if track_ids is None or track_ids[i] < 0 else f"{text}  #{int(track_ids[i])}"
        size, (width, height) = line * 0.4, cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, line * 0.4, line)[0]
        x, y = max(x0, 0), max(y0, height + 4)
        cv2.rectangle(image, (x, y - height - 4), (x + width + 4, y), color, -1)
        cv2.putText(image, text, (x + 2, y - 2), cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), line, cv2.LINE_AA)


def sketch_alone(
    boxes: F32, scores: F32, class_ids: NDArray[np.int32], track_ids: NDArray[np.int64] | None = None
) -> U8 | None:
    """Draw boxes without their frame, on white, as large as they reach. None where there is nothing to draw."""
    finite = boxes[np.isfinite(boxes).all(axis=1)]
    if not len(finite) or finite.max() <= 0:
        return None
    right, bottom = max(float(finite[:, 2].max()), 1.0), max(float(finite[:, 3].max()), 1.0)
    scale = min(640 / max(right, bottom), 1.0)
    image = np.full((max(math.ceil(bottom * scale), 16) + 8, max(math.ceil(right * scale), 16) + 8, 3), 255, np.uint8)
    sketch_boxes(image, boxes * np.float32(scale), scores, class_ids, track_ids)
    return image
