"""The lines and zones of rules, and what they have counted, in the picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perception.drawing.canvas import Canvas, Color, Rectangle
from perception.drawing.text import label_patch, label_size
from perception.types import Reading

REST: Color = (255, 200, 0)
"""BGR of a rule where nothing happens: a blue that streets do not have."""
ACTIVE: Color = (0, 200, 255)
SHADOW: Color = (24, 24, 24)


def draw_readings(canvas: Canvas, readings: Sequence[Reading], width: int) -> None:
    """Draw lines, each with a tick on the side that is ahead, and the outlines of zones; under the boxes.

    Args:
        canvas: drawn upon.
        readings: of the rules.
        width: of a line, in pixels.
    """
    for reading in readings:
        if not len(reading.points):
            continue
        points = _pixels(canvas, reading)
        color = ACTIVE if reading.active else REST
        if reading.kind == "line":
            canvas.path(points, width + 2, SHADOW)
            canvas.path(points, width + 1, color)
            canvas.path(_tick(points, 6 * (width + 1)), width + 1, color)
        else:
            canvas.outline([points], width + 2, SHADOW)
            canvas.outline([points], width, color)


def write_readings(canvas: Canvas, readings: Sequence[Reading], line: int, below: int) -> list[Rectangle]:
    """Write what each rule says beside it; those without a place one below the other at the left.

    Args:
        canvas: drawn upon.
        readings: of the rules.
        line: height of a line of text, in pixels.
        below: rows at the top left that are taken.

    Returns:
        where they are written.
    """
    taken: list[Rectangle] = []
    y = below + line // 2
    for reading in readings:
        width, height = label_size(reading.text, line, canvas.width)
        if len(reading.points):
            middle = _pixels(canvas, reading).reshape(-1, 2).mean(axis=0)
            left, top = int(middle[0]) - width // 2, int(middle[1]) - height // 2
            if reading.kind == "line":
                top += height
        else:
            left, top = line // 2, y
            y += height
        left = max(min(left, canvas.width - width), 0)
        top = max(min(top, canvas.height - height), 0)
        patch = label_patch(reading.text, ACTIVE if reading.active else REST, line, canvas.width)
        canvas.paste(patch, left, top)
        taken.append((left, top, left + patch.width, top + patch.height))
    return taken


def _pixels(canvas: Canvas, reading: Reading) -> NDArray[np.int32]:
    """A reading's points in pixels, as OpenCV has them."""
    scaled = reading.points * np.array([canvas.width - 1, canvas.height - 1], np.float32)
    return np.rint(scaled).astype(np.int32).reshape(-1, 1, 2)


def _tick(points: NDArray[np.int32], length: int) -> NDArray[np.int32]:
    """A short line from the middle of a line to the side that is ahead: the left, on the way along it."""
    start, end = points.reshape(2, 2).astype(np.float64)
    way = end - start
    left = np.array([way[1], -way[0]]) / max(np.hypot(*way), 1.0)
    middle = (start + end) / 2
    return np.rint(np.stack([middle, middle + length * left])).astype(np.int32).reshape(-1, 1, 2)
