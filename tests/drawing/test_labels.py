"""Labels of boxes: none covers another, none lies outside, the most important ones are written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perception.drawing.annotator import Annotator
from perception.drawing.canvas import BgrCanvas, Patch
from perception.drawing.labels import draw_labels
from perception.drawing.text import label_patch, label_size
from perception.postprocess.label_places import MOST_LABELS, place_labels
from perception.types import Detections, Frame, Prediction
from tests.drawing.test_annotator import make_card, quarters

Rect = tuple[int, int, int, int]


def meet(a: Rect, b: Rect) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def first(corner: tuple[int, int], size: tuple[int, int], width: int, height: int) -> Rect:
    """The place that a label has where it is alone: above its box, or else inside it."""
    x = max(min(corner[0], width - size[0]), 0)
    y = corner[1] - size[1] if corner[1] >= size[1] else corner[1]
    y = max(min(y, height - size[1]), 0)
    return x, y, x + size[0], y + size[1]


@pytest.mark.parametrize("seed", range(20))
def test_labels_never_meet_and_the_first_come_first(seed: int) -> None:
    random = np.random.default_rng(seed)
    n, width, height = int(random.integers(0, 301)), int(random.integers(60, 1400)), int(random.integers(30, 900))
    corners = random.integers(-40, [width + 40, height + 40], (n, 2)).astype(np.int32)
    sizes = random.integers([8, 8], [min(160, width), 30], (n, 2)).astype(np.int32)
    most = int(random.integers(1, 60))
    places = place_labels(corners, sizes, width, height, most)
    assert places.shape == (n, 2) and places.dtype == np.int32
    rects: list[Rect | None] = [
        None if x < 0 else (x, y, x + w, y + h) for (x, y), (w, h) in zip(places.tolist(), sizes.tolist(), strict=True)
    ]
    kept = [rect for rect in rects if rect is not None]
    assert len(kept) <= most
    for i, rect in enumerate(kept):
        assert rect[0] >= 0 and rect[2] <= width and rect[1] >= 0 and rect[3] <= height
        assert not any(meet(rect, other) for other in kept[:i])
    for i, rect in enumerate(rects):  # one gives way only to those before it
        before = [other for other in rects[:i] if other is not None]
        alone = first(tuple(corners[i].tolist()), tuple(sizes[i].tolist()), width, height)
        if len(before) < most and not any(meet(alone, other) for other in before):
            assert rect == alone
        elif rect is None and len(before) < most:
            inside = max(min(int(corners[i, 1]), height - int(sizes[i, 1])), 0)
            below = (alone[0], inside, alone[2], inside + int(sizes[i, 1]))
            assert any(meet(below, other) for other in before)


@pytest.mark.parametrize("seed", range(5))
def test_no_label_lies_where_something_else_is(seed: int) -> None:
    random = np.random.default_rng(seed)
    corners = random.integers(0, [620, 460], (100, 2)).astype(np.int32)
    sizes = random.integers([8, 8], [100, 30], (100, 2)).astype(np.int32)
    taken = [(10, 10, 200, 150), (500, 0, 640, 40)]
    places = place_labels(corners, sizes, 640, 480, 100, taken)
    kept = [(x, y, x + w, y + h) for (x, y), (w, h) in zip(places.tolist(), sizes.tolist(), strict=True) if x >= 0]
    assert len(kept) > 20
    assert not any(meet(rect, other) for rect in kept for other in taken)


@pytest.mark.parametrize("seed", range(10))
def test_a_box_that_shows_beside_the_legend_keeps_its_label(seed: int) -> None:
    random = np.random.default_rng(seed)
    legend = (5, 5, 5 + int(random.integers(60, 200)), 5 + int(random.integers(20, 300)))
    for _ in range(200):
        x0, y0 = random.integers(-10, [legend[2] + 50, legend[3] + 50]).tolist()
        x1, y1 = x0 + int(random.integers(10, 400)), y0 + int(random.integers(10, 300))
        w, h = random.integers([20, 12], [120, 24]).tolist()
        box, size = np.array([[x0, y0, x1, y1]], np.int32), np.array([[w, h]], np.int32)
        ((x, y),) = place_labels(box[:, :2], size, 640, 480, taken=[legend], ends=box[:, 2:]).tolist()
        label = (x, y, x + w, y + h)
        alone = first((x0, y0), (w, h), 640, 480)
        if not meet(alone, legend):
            assert label == alone
        if x < 0:  # nothing of it but a corner, or less than a line, is beside the legend
            assert x1 <= legend[2] and y1 < legend[3] + h
            continue
        assert not meet(label, legend) and x >= 0 and y >= 0 and x + w <= 640 and y + h <= 480
        assert meet((x - 1, y - 1, x + w + 1, y + h + 1), (x0, y0, x1, y1))  # it is at its own box


def test_a_label_beside_the_legend_covers_no_other() -> None:
    box = np.array([[20, 30, 500, 400]] * 6, np.int32)
    legend = (5, 5, 150, 200)
    places = place_labels(box[:, :2], np.full((6, 2), (90, 16), np.int32), 640, 480, taken=[legend], ends=box[:, 2:])
    assert places.tolist() == [[150, 14], [150, 30], [20, 400], [20, 384], [-1, -1], [-1, -1]]


def test_labels_give_way_to_the_legend() -> None:
    image = np.zeros((240, 320, 3), np.uint8)
    card = make_card()
    class_map = quarters(320, 240)
    legend = Annotator(card, masks=True)(Prediction(Frame(image), class_map=class_map))
    boxes = np.array([[12, 30, 300, 200], [200, 120, 300, 230]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.8], np.float32), np.array([1, 2], np.int32))
    both = Annotator(card, masks=True)(Prediction(Frame(image), found, class_map))
    assert (both[14:28, 14:60] == legend[14:28, 14:60]).all()  # type: ignore[index]


def test_the_second_place_is_inside_the_box() -> None:
    corners = np.array([[50, 40], [60, 45], [55, 41], [300, 40]], np.int32)
    places = place_labels(corners, np.full((4, 2), (80, 16), np.int32), 640, 480)
    assert places.tolist() == [[50, 24], [60, 45], [-1, -1], [300, 24]]


@pytest.mark.parametrize("line", [12, 13, 20, 31])
@pytest.mark.parametrize("width", [40, 101, 640])
def test_a_label_is_no_larger_than_its_size_says(line: int, width: int) -> None:
    for text in ("a 5%", "#12 traffic light 99%", "x" * 80, ""):
        patch = label_patch(text, (0, 0, 255), line, width)
        size = label_size(text, line, width)
        assert patch.width <= size[0] and patch.height == size[1]
        assert len(text) > 40 or patch.width == size[0] or size[0] >= width


class Recording(BgrCanvas):
    """A canvas that notes where patches are pasted."""

    def __init__(self, *size: int) -> None:
        super().__init__(np.zeros((*size, 3), np.uint8))
        self.pasted: list[Rect] = []

    def paste(self, patch: Patch, x: int, y: int, opacity: float = 1.0) -> None:
        self.pasted.append((x, y, x + patch.width, y + patch.height))
        super().paste(patch, x, y, opacity)


def test_many_labels_are_capped_and_spread() -> None:
    canvas = Recording(720, 1280)
    random = np.random.default_rng(5)
    corners = random.integers(0, [1200, 700], (300, 2)).astype(np.int32)
    boxes = np.hstack([corners, corners + 50])
    draw_labels(canvas, boxes, [(f"car {i}%", (0, 0, 200)) for i in range(300)], 20)
    assert 20 < len(canvas.pasted) <= MOST_LABELS
    assert not any(meet(a, b) for i, a in enumerate(canvas.pasted) for b in canvas.pasted[:i])
    draw_labels(canvas, boxes[:0], [], 20)


@pytest.mark.parametrize("tracks", [None, "numbered"])
def test_a_crowd_at_one_place_has_the_label_of_the_best(tracks: Any) -> None:
    """160 boxes of one score less each at nearly the same place, as at a low confidence."""
    n = 160
    boxes = np.tile(np.array([[60, 100, 200, 220]], np.float32), (n, 1)) + np.arange(n, dtype=np.float32)[:, None] / 100
    scores = np.linspace(0.9, 0.1, n, dtype=np.float32)
    found = Detections(boxes, scores, np.zeros(n, np.int32), None if tracks is None else np.arange(n))
    image = np.zeros((240, 320, 3), np.uint8)
    annotate = Annotator(make_card(segmentation=None, classification=None))
    crowd = annotate(Prediction(Frame(image), found))
    best = Detections(boxes[:1], scores[:1], found.class_ids[:1], None if tracks is None else found.track_ids[:1])
    alone = annotate(Prediction(Frame(image), best))
    above = slice(80, 99)
    assert alone[above].any() and (crowd[above] == alone[above]).all()  # type: ignore[index]
