"""The labels of boxes, written so that none covers another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perception.drawing.canvas import Canvas, Color, Rectangle
from perception.drawing.text import label_patch, label_size
from perception.postprocess.label_places import place_labels
from perception.types import Detections


def label_texts(detections: Detections, names: Sequence[str], shown: NDArray[np.int64]) -> list[str]:
    """Return the words of the labels of boxes: ``car 91%``, ``#7 car 91%`` of one that is tracked.

    Args:
        detections: with the boxes.
        names: of the classes.
        shown: which of the boxes, int64 ``[M]``.
    """
    class_ids, scores = detections.class_ids[shown].tolist(), detections.scores[shown].tolist()
    texts = [f"{names[class_id]} {score:.0%}" for class_id, score in zip(class_ids, scores, strict=True)]
    if detections.track_ids is None:
        return texts
    tracks = detections.track_ids[shown].tolist()
    return [f"#{track} {text}" if track >= 0 else text for track, text in zip(tracks, texts, strict=True)]


def draw_labels(
    canvas: Canvas,
    boxes: NDArray[np.int32],
    labels: Sequence[tuple[str, Color]],
    line: int,
    taken: Sequence[Rectangle] = (),
) -> None:
    """Write the labels of boxes, as many as can be read; see `place_labels`.

    Args:
        canvas: drawn upon.
        boxes: x0, y0, x1, y1 of each box, int32 ``[N, 4]``, the most important one first.
        labels: words and colour of the label of each box.
        line: height of a line of text, in pixels.
        taken: where no label may lie.
    """
    if not labels:
        return
    sizes = np.array([label_size(text, line, canvas.width) for text, _ in labels], np.int32)
    places = place_labels(boxes[:, :2], sizes, canvas.width, canvas.height, taken=taken, ends=boxes[:, 2:])
    for (text, color), (x, y) in zip(labels, places.tolist(), strict=True):
        if x >= 0:
            canvas.paste(label_patch(text, color, line, canvas.width), x, y)
