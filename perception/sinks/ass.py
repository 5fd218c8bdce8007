"""Boxes and labels as drawings of Advanced SubStation Alpha (ASS), which players render over a video.

Coordinates are those of the upright frame: the script says its size, and players scale it to the picture shown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perception.card.tasks import DetectionTask
from perception.drawing.labels import label_texts
from perception.drawing.text import label_size, text_color, text_height
from perception.postprocess.label_places import place_labels
from perception.types import Detections

_HEAD = """[Script Info]
ScriptType: v4.00+
PlayResX: {width}
PlayResY: {height}
WrapStyle: 2
ScaledBorderAndShadow: yes

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Box,Arial,{text},&H00FFFFFF,&H00FFFFFF,&H00000000,&H00000000,0,0,0,0,100,100,0,0,1,0,0,7,0,0,0,1
Style: Label,Arial,{text},&H00FFFFFF,&H00FFFFFF,&H00000000,&H00000000,0,0,0,0,100,100,0,0,3,{margin},0,7,0,0,0,1

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
_BOXES, _LABELS = 0, 1


class AssDrawing:
    """Draws the boxes of frames of one size as lines of ASS, without their times.

    Args:
        task: names and colours of the classes.
        width, height: of the upright frames in pixels.

    Attributes:
        head: the script up to its first line.
    """

    def __init__(self, task: DetectionTask, width: int, height: int) -> None:
        self._names = task.names
        self._colors = [c.color for c in task.classes]  # RGB
        self._size = width, height
        self._line = text_height(width, height)
        self._margin = max(self._line // 8, 1)
        self._stroke = max(round(min(width, height) / 360), 1)
        text = max(self._line - 2 * self._margin, 6)
        self.head = _HEAD.format(width=width, height=height, text=text, margin=self._margin)

    def lines(self, detections: Detections) -> list[str]:
        """Return the lines for a frame: ``LAYER,STYLE,,0,0,0,,TEXT``, what lies above others last.

        There is one for all boxes of a class, and one for each label. Labels do not cover one another: where they are
        many, those of the highest scores are written.
        """
        return [*self._boxes(detections), *self._labels(detections)]

    def _boxes(self, detections: Detections) -> list[str]:
        paths: dict[int, list[str]] = {}
        stroke = self._stroke
        for class_id, box in zip(detections.class_ids.tolist(), detections.boxes.tolist(), strict=True):
            x0, y0, x1, y1 = map(round, box)
            x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
            path = f"m {x0} {y0} l {x1} {y0} {x1} {y1} {x0} {y1}"
            if x1 - x0 > 2 * stroke and y1 - y0 > 2 * stroke:  # the hole, in the other direction
                a, b, c, d = x0 + stroke, y0 + stroke, x1 - stroke, y1 - stroke
                path += f" m {a} {b} l {a} {d} {c} {d} {c} {b}"
            paths.setdefault(class_id, []).append(path)
        return [
            f"{_BOXES},Box,,0,0,0,,{{\\pos(0,0)\\1c{_color(self._colors[class_id])}\\p1}}{' '.join(drawn)}"
            for class_id, drawn in sorted(paths.items())
        ]

    def _labels(self, detections: Detections) -> list[str]:
        if not len(detections):
            return []
        texts = label_texts(detections, self._names, np.arange(len(detections)))
        boxes = np.rint(detections.boxes).astype(np.int32)
        sizes = np.array([label_size(text, self._line, self._size[0]) for text in texts], np.int32)
        places = place_labels(boxes[:, :2], sizes, *self._size, taken=(), ends=boxes[:, 2:])
        lines = []
        for text, class_id, (x, y) in zip(texts, detections.class_ids.tolist(), places.tolist(), strict=True):
            if x >= 0:
                color = self._colors[class_id]
                ink = text_color((color[2], color[1], color[0]))
                look = f"\\pos({x + self._margin},{y + self._margin})\\1c{_color(ink)}\\3c{_color(color)}"
                lines.append(f"{_LABELS},Label,,0,0,0,,{{{look}}}{_plain(text)}")
        return lines


def _color(rgb: Sequence[int]) -> str:
    red, green, blue = rgb[:3]
    return f"&H{blue:02X}{green:02X}{red:02X}&"


def _plain(text: str) -> str:
    """Return text without what would be a command in it."""
    return text.replace("\\", "/").replace("{", "(").replace("}", ")")
