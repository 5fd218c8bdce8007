"""Pictures side by side, each with a line of text above it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from perception.types import U8

CAPTION = 22  # pixels above each picture
MARGIN = 4


def side_by_side(tiles: Sequence[tuple[str, U8]], columns: int = 3) -> U8:
    """Titled pictures in rows, uint8 ``[H, W, 3]`` BGR.

    Args:
        tiles: title and picture, uint8 ``[h, w, 3]`` BGR; smaller ones are put into the middle of their place.
        columns: pictures in a row.
    """
    height, width = (max(image.shape[axis] for _, image in tiles) for axis in (0, 1))
    rows = -(-len(tiles) // columns)
    columns = min(columns, len(tiles))
    cell_h, cell_w = height + CAPTION, width + MARGIN
    whole = np.zeros((rows * cell_h, columns * cell_w - MARGIN, 3), np.uint8)
    for number, (title, image) in enumerate(tiles):
        top, left = number // columns * cell_h, number % columns * cell_w
        h, w = image.shape[:2]
        y, x = top + CAPTION + (height - h) // 2, left + (width - w) // 2
        whole[y : y + h, x : x + w] = image
        place = (left + 4, top + CAPTION - 7)
        cv2.putText(whole, title, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return whole
