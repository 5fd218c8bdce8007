"""Predictions drawn onto their frames: class colours, boxes or outlines with labels, a legend, the frame rate."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Literal, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.card import ModelCard
from perception.common.settings import nearest
from perception.drawing.canvas import Canvas, Color, drawable, make_canvas
from perception.drawing.labels import draw_labels, label_texts
from perception.drawing.readings import draw_readings, write_readings
from perception.drawing.text import draw_legend, label_patch, text_height
from perception.errors import UsageError
from perception.picture.buffer_pool import BufferPool
from perception.types import F32, Detections, Panoptic, Picture, Prediction

_STATUS: Color = (24, 24, 24)
_RIM: Color = (255, 255, 255)
_Labels: TypeAlias = tuple[NDArray[np.int32], list[tuple[str, Color]]]
"""Of boxes: top left corners, int32 ``[N, 2]``, and the words and colour of each label."""

SPECK = 6
"""Parts of a thing whose outline is shorter than this many line widths are not outlined."""


class Annotator:
    """Makes annotated pictures of predictions.

    Frames with YUV planes (of even size) are annotated in planes, which an encoder takes as they are; others in BGR.
    A picture is in memory of its own, which is used again once nothing refers to the picture or a view of it.

    Args:
        card: the model's card, for names and colours.
        opacity: of the class colours, 0 to 1.
        masks: draw the class map.
        boxes: draw detections.
        trails: draw the way that tracked boxes have come.
        rules: draw the lines and zones of rules, with what they have counted.
        labels: write class, score and track beside boxes, and whole-image classes. Labels of boxes do not cover one
            another: where they are many, those of the highest scores are written.
        legend: list the classes present, with their share of the frame.
        fps: write how many pictures are made a second.
        line_width: of boxes, in pixels; None: follows the frame's size.
        font_scale: size of text relative to what suits the frame; None: 1.
        classes: names of the classes to draw; None: all.
        view: things are shown by their boxes, or in the ``panoptic`` view by the outlines of their pixels; that wants a
            `perception.stages.panoptic.PanopticStage`.

    Raises:
        UsageError: opacity, line_width or font_scale is out of range, or a class name is not in the card.

    Example:
        >>> annotate = Annotator(model.card, opacity=0.4)
        >>> picture = annotate(prediction)
    """

    def __init__(
        self,
        card: ModelCard,
        *,
        opacity: float = 0.5,
        masks: bool = True,
        boxes: bool = True,
        trails: bool = True,
        rules: bool = True,
        labels: bool = True,
        legend: bool = True,
        fps: bool = False,
        line_width: int | None = None,
        font_scale: float | None = None,
        classes: Iterable[str] | None = None,
        view: Literal["boxes", "panoptic"] = "boxes",
    ) -> None:
        if not 0 <= opacity <= 1:
            raise UsageError(f"opacity must be from 0 to 1, not {opacity}")
        if line_width is not None and line_width < 1:
            raise UsageError(f"the line width must be at least 1 pixel, not {line_width}")
        if font_scale is not None and not 0 < font_scale <= 20:
            raise UsageError(f"the font scale must be above 0 and at most 20, not {font_scale}")
        self.card = card
        self.opacity = opacity
        self.masks, self.boxes, self.labels, self.legend = masks, boxes, labels, legend
        self.trails, self.rules = trails, rules
        self.line_width = line_width
        self.view = view
        self.font_scale = 1.0 if font_scale is None else font_scale
        self._pool = BufferPool()
        self._rate = _Rate() if fps else None
        wanted = None if classes is None else _known(list(classes), card)
        if card.segmentation is not None:
            task = card.segmentation
            self._names = task.names
            self._colors: list[Color] = [c.color[::-1] for c in task.classes]
            self._palette = np.array(self._colors, np.uint8)
            self._shown = [i not in task.ignored and (wanted is None or n in wanted) for i, n in enumerate(task.names)]
        if card.detection is not None:
            self._box_names = card.detection.names
            self._box_colors: list[Color] = [c.color[::-1] for c in card.detection.classes]
            self._box_shown = np.array([wanted is None or n in wanted for n in card.detection.names])

    def __call__(self, prediction: Prediction) -> Picture:
        """Draw one prediction onto its frame's picture.

        Raises:
            ValueError: the class map or the detections do not fit the frame or the card.
            UsageError: the panoptic view is wanted of a prediction without segments.
        """
        class_map = prediction.class_map if self.masks and self.card.segmentation is not None else None
        source = drawable(prediction.frame)
        canvas = make_canvas(source, self._pool, copy=class_map is None)
        line = max(round(text_height(canvas.width, canvas.height) * self.font_scale), 4)
        if class_map is not None:
            hidden = [i for i, shown in enumerate(self._shown) if not shown]
            class_map.overlay(source, self._palette, self.opacity, canvas.picture, hidden)
        if self.rules and prediction.readings:
            draw_readings(canvas, prediction.readings, self._line_width(canvas))
        if self.trails and prediction.trails and self.card.detection is not None:
            self._draw_trails(canvas, prediction)
        boxes: NDArray[np.int32] = np.empty((0, 4), np.int32)
        labels: list[tuple[str, Color]] = []
        if self.boxes and self.view == "panoptic":
            if prediction.panoptic is None:
                raise UsageError("the panoptic view needs a PanopticStage among the stages")
            boxes, labels = self._draw_things(canvas, prediction.panoptic)
        elif self.boxes and prediction.detections is not None and self.card.detection is not None:
            boxes, labels = self._draw_boxes(canvas, prediction.detections)
        taken = None
        if self.legend and class_map is not None:
            shares = class_map.shares[: len(self._names)].tolist()
            taken = draw_legend(canvas, self._names, self._colors, shares, self._shown, line)
        places = [] if taken is None else [taken]
        if self.rules and prediction.readings:
            places += write_readings(canvas, prediction.readings, line, 0 if taken is None else taken[3])
        if self.labels:
            draw_labels(canvas, boxes, labels, line, places)
        if self.labels and prediction.labels and self.card.classification is not None:
            names = self.card.classification.names
            lines = [f"{names[i]} {p:.0%}" for i, p in prediction.labels]
            for i, text in enumerate(reversed(lines)):
                patch = label_patch(text, _STATUS, line, canvas.width)
                canvas.paste(patch, 0, canvas.height - (i + 1) * patch.height)
        if self._rate is not None:
            rate = self._rate.tick()
            patch = label_patch(f"{rate:.1f} fps" if rate else "- fps", _STATUS, line, canvas.width)
            canvas.paste(patch, canvas.width - patch.width, 0)
        return canvas.picture

    def _draw_trails(self, canvas: Canvas, prediction: Prediction) -> None:
        """Draw the way of each tracked box in the colour of its class, under the boxes."""
        found = prediction.detections
        if found is None or found.track_ids is None:
            return
        width = self._line_width(canvas)
        for i in np.flatnonzero(self._box_shown[found.class_ids]).tolist():
            trail = prediction.trails.get(int(found.track_ids[i]))
            # of what stands still only the trembling of its box would be seen
            if trail is not None and len(trail) > 1 and np.ptp(trail, axis=0).max() > _side(found.boxes[i]) / 2:
                points = np.rint(np.clip(trail, -1e4, 1e5)).astype(np.int32).reshape(-1, 1, 2)
                canvas.path(points, width, self._box_colors[int(found.class_ids[i])])

    def _draw_boxes(self, canvas: Canvas, detections: Detections) -> _Labels:
        """Draw boxes, the best one last, over the others; return their labels, the best one first."""
        width = self._line_width(canvas)
        shown = np.flatnonzero(self._box_shown[detections.class_ids])
        class_ids = detections.class_ids[shown].tolist()
        boxes = np.rint(detections.boxes[shown]).astype(np.int32)
        for class_id, (x0, y0, x1, y1) in zip(reversed(class_ids), reversed(boxes.tolist()), strict=True):
            color = self._box_colors[class_id]
            x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
            canvas.fill(x0, y0, x1, y0 + width, color)
            canvas.fill(x0, y1 - width, x1, y1, color)
            canvas.fill(x0, y0, x0 + width, y1, color)
            canvas.fill(x1 - width, y0, x1, y1, color)
        texts = label_texts(detections, self._box_names, shown)
        return boxes, [*zip(texts, (self._box_colors[i] for i in class_ids), strict=True)]

    def _draw_things(self, canvas: Canvas, view: Panoptic) -> _Labels:
        """Outline each thing that has a score, the best one last; return their labels, the best one first."""
        width = self._line_width(canvas) + 1
        shown = [s for s in view.segments if s.score is not None and self._shown[s.class_id]]
        shown.sort(key=lambda s: s.score or 0.0)
        for segment in shown:
            x0, y0, x1, y1 = segment.box
            pixels = (view.ids[y0:y1, x0:x1] == segment.id).view(np.uint8)
            contours, _ = cv2.findContours(pixels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=(x0, y0))
            # of a speck nothing would be seen but its outline
            contours = [c for c in contours if len(c) > SPECK * width] or contours
            color = self._colors[segment.class_id]
            canvas.outline(contours, width + 2, _RIM)
            canvas.outline(contours, width, color)
        best = shown[::-1]
        labels = [(f"{self._names[s.class_id]} {s.score:.0%}", self._colors[s.class_id]) for s in best]
        return np.array([s.box for s in best], np.int32).reshape(-1, 4), labels

    def _line_width(self, canvas: Canvas) -> int:
        return self.line_width or max(round(min(canvas.width, canvas.height) / 360), 1)


def _side(box: F32) -> float:
    """The shorter side of a box."""
    return float((box[2:] - box[:2]).min())


class _Rate:
    """Calls a second, over the last second or so; the number changes twice a second, so that it can be read."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._value = 0.0
        self._changed = 0.0

    def tick(self) -> float:
        now = time.monotonic()
        self._times = [t for t in self._times if t > now - 1.0][-1000:] + [now]
        if now - self._changed >= 0.5 and len(self._times) > 1:
            self._value = (len(self._times) - 1) / (now - self._times[0])
            self._changed = now
        return self._value


def _known(classes: list[str], card: ModelCard) -> set[str]:
    tasks = [t for t in (card.segmentation, card.detection, card.classification) if t is not None]
    names = {name for task in tasks for name in task.names}
    for name in classes:
        if name not in names:
            raise UsageError(f"model {card.name} has no class {name!r}{nearest(name, sorted(names))}")
    return set(classes)
