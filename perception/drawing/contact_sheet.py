"""Pictures in rows, as one picture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from perception.types import U8

GAP = 4
"""Black pixels between pictures."""


def contact_sheet(pictures: Sequence[U8], columns: int = 3, width: int = 480) -> U8:
    """Put pictures of one size in rows, on black.

    Args:
        pictures: uint8 ``[H, W, 3]`` BGR, at least one.
        columns: pictures in a row.
        width: of one picture in the sheet, in pixels.

    Returns:
        uint8 ``[H, W, 3]`` BGR.
    """
    height = max(1, round(pictures[0].shape[0] * width / pictures[0].shape[1]))
    rows = -(-len(pictures) // columns)
    sheet = np.zeros((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3), np.uint8)
    for i, picture in enumerate(pictures):
        top, left = (i // columns) * (height + GAP), (i % columns) * (width + GAP)
        place = sheet[top : top + height, left : left + width]
        place[:] = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return sheet
