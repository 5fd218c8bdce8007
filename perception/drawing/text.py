"""Text as small pictures: box labels, status lines, rows of the legend. Rendered once, then cached."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from perception.drawing.canvas import Canvas, Color, Patch, Rectangle

FONT = cv2.FONT_HERSHEY_SIMPLEX
LEAST_SHARE = 0.005
"""A class with a smaller part of the frame is not in the legend."""
_DARK: Color = (24, 24, 24)
_OPACITY = 0.75


def text_height(width: int, height: int) -> int:
    """Pixels of a line of text, margins included, that suits a frame of that size."""
    return max(round(min(width, height) / 36), 12)


def text_color(background: Color) -> Color:
    """Black or white, whichever reads better on a background, by its luminance (ITU-R BT.709, gamma 2.2)."""
    b, g, r = ((c / 255) ** 2.2 for c in background)
    return (0, 0, 0) if 0.0722 * b + 0.7152 * g + 0.2126 * r > 0.18 else (255, 255, 255)


@lru_cache(maxsize=2048)
def text_width(text: str, line_height: int) -> int:
    """Width in pixels of a line of text, without margins."""
    scale, thickness = _style(line_height)
    return int(cv2.getTextSize(text, FONT, scale, thickness)[0][0])


def label_size(text: str, line_height: int, max_width: int) -> tuple[int, int]:
    """Width and height in pixels that a `label_patch` has at most; both are even."""
    width = min(text_width(text, line_height) + 2 * (line_height // 4), max_width)
    return max(width + 1 & ~1, 2), line_height + 1 & ~1


@lru_cache(maxsize=1024)
def label_patch(text: str, color: Color, line_height: int, max_width: int) -> Patch:
    """Draw a line of text on a background of ``color``; cut, with dots, if it is wider than ``max_width`` pixels."""
    margin = line_height // 4
    room = max_width - 2 * margin
    if text_width(text, line_height) > room:
        while text and text_width(text + "..", line_height) > room:
            text = text[:-1]
        text += ".."
    image = np.empty((line_height, max(text_width(text, line_height) + 2 * margin, 1), 3), np.uint8)
    image[:] = color
    _put(image, text, margin, text_color(color))
    return Patch(image)


@lru_cache(maxsize=2048)
def legend_row(name: str, color: Color, share: str, line_height: int, width: int) -> Patch:
    """Draw a legend row: a swatch, the name of a class and, at the right, its share of the frame."""
    image = np.empty((line_height, width, 3), np.uint8)
    image[:] = _DARK
    margin = line_height // 4
    image[margin : line_height - margin, margin : line_height - margin] = color
    _put(image, name, line_height, (255, 255, 255))
    if share:
        _put(image, share, width - margin - text_width(share, line_height), (200, 200, 200))
    return Patch(image)


def draw_legend(
    canvas: Canvas, names: list[str], colors: list[Color], shares: list[float], shown: list[bool], line_height: int
) -> Rectangle | None:
    """Draw one row for each class that is shown and covers enough of the frame, in order of class ids.

    The rows are as wide as the widest class name of the model, so that the legend keeps its width.

    Returns:
        Where it is; None where nothing was drawn.
    """
    width = _legend_width(tuple(names), line_height)
    if width > canvas.width:
        return None
    x = y = line_height // 4 * 2
    rows: list[Patch] = []
    for name, color, share, wanted in zip(names, colors, shares, shown, strict=True):
        if not wanted or share < LEAST_SHARE:
            continue
        row = legend_row(name, color, f"{max(round(share * 100), 1)}%", line_height, width)
        if y + (len(rows) + 1) * row.height > canvas.height:
            break
        rows.append(row)
    if not rows:
        return None
    whole = Patch.stack(rows, canvas.matrix, canvas.full_range)
    canvas.paste(whole, x, y, _OPACITY)  # one blend for all of them: a blend costs more to call than to do
    return x, y, x + whole.width, y + whole.height


@lru_cache(maxsize=64)
def _legend_width(names: tuple[str, ...], line_height: int) -> int:
    widest = max(text_width(name, line_height) for name in names)
    return line_height + widest + line_height // 2 + text_width("100%", line_height) + line_height // 4


def _style(line_height: int) -> tuple[float, int]:
    scale = line_height / 36  # capitals of this font are 22 pixels high at scale 1
    return scale, max(round(scale * 1.5), 1)


def _put(image: np.ndarray, text: str, x: int, color: Color) -> None:
    scale, thickness = _style(image.shape[0])
    baseline = round(image.shape[0] * 0.75)
    cv2.putText(image, text, (x, baseline), FONT, scale, color, thickness, cv2.LINE_AA)
