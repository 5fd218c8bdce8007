"""Logits and boxes carried along a motion: against slow NumPy, and motions whose result is known."""

from __future__ import annotations

import numpy as np
import pytest

from perception.picture.letterbox import Letterbox
from perception.propagation.motion import GROWTH, Motion
from perception.types import Detections

WIDTH, HEIGHT = 640, 360
SCALE = 0.5
ROWS, COLUMNS = 180, 320
BOX = Letterbox.fit(WIDTH, HEIGHT, 320, 192)
CLASSES, H, W = 3, 96, 160


def still() -> np.ndarray:
    return np.zeros((ROWS, COLUMNS, 2), np.float32)


def boxes(*rows: tuple[float, float, float, float]) -> Detections:
    count = len(rows)
    scores = np.linspace(0.9, 0.5, count, dtype=np.float32)
    return Detections(np.array(rows, np.float32).reshape(-1, 4), scores, np.arange(count))


def test_what_stands_still_stays_to_the_bit() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (CLASSES, H, W)).astype(np.float32)
    motion = Motion(still(), SCALE, 1)
    assert np.array_equal(motion.logits(logits, BOX), logits)
    found = boxes((10, 20, 110, 80), (300, 100, 330, 200))
    moved = motion.detections(found, (WIDTH, HEIGHT))
    assert np.allclose(moved.boxes, found.boxes, atol=1e-3)
    assert np.array_equal(moved.scores, found.scores) and np.array_equal(moved.class_ids, found.class_ids)


@pytest.mark.parametrize("seed", range(4))
def test_logits_come_bilinearly_from_where_the_flow_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (CLASSES, H, W)).astype(np.float32)
    flow = rng.normal(0, 6, (ROWS, COLUMNS, 2)).astype(np.float32)
    flow[:2] += 400  # from outside
    warped = Motion(flow, SCALE, 2).logits(logits, BOX)
    left, top, right, bottom = BOX.logits_window(H, W)
    across, down = WIDTH * SCALE / (right - left), HEIGHT * SCALE / (bottom - top)
    for _ in range(300):
        x, y = int(rng.integers(W)), int(rng.integers(H))
        column = int(np.clip(np.trunc(across * (x + 0.5 - left)), 0, COLUMNS - 1))
        row = int(np.clip(np.trunc(down * (y + 0.5 - top)), 0, ROWS - 1))
        u, v = flow[row, column].astype(np.float64)
        sx, sy = np.clip(x + u / across, 0, W - 1), np.clip(y + v / down, 0, H - 1)
        x0, y0 = min(int(sx), W - 2), min(int(sy), H - 2)
        fx, fy = sx - x0, sy - y0
        p = logits.astype(np.float64)
        above = p[:, y0, x0] * (1 - fx) + p[:, y0, x0 + 1] * fx
        below = p[:, y0 + 1, x0] * (1 - fx) + p[:, y0 + 1, x0 + 1] * fx
        assert warped[:, y, x] == pytest.approx(above * (1 - fy) + below * fy, abs=2e-4)


@pytest.mark.parametrize("shift", [(12.0, 0.0), (-7.5, 4.0), (0.0, -20.0)])
def test_boxes_go_with_a_shift(shift: tuple[float, float]) -> None:
    flow = still()
    flow[...] = -np.array(shift, np.float32) * SCALE
    found = boxes((100, 100, 200, 160), (300, 200, 310, 212), (400, 90, 520, 300))
    moved = Motion(flow, SCALE, 1).detections(found, (WIDTH, HEIGHT))
    assert np.allclose(moved.boxes, found.boxes + np.array(shift * 2, np.float32), atol=0.05)


@pytest.mark.parametrize("factor", [0.9, 1.05, 1.15])
def test_what_comes_nearer_grows(factor: float) -> None:
    """A zoom about a point: every box grows by the same factor, and goes away from the point."""
    centre = np.array([320.0, 180.0])
    y, x = np.indices((ROWS, COLUMNS), np.float64)
    now = np.stack((x + 0.5, y + 0.5), axis=2) / SCALE
    flow = ((centre + (now - centre) / factor - now) * SCALE).astype(np.float32)
    found = boxes((280, 140, 360, 220), (380, 200, 460, 280), (150, 100, 260, 150))
    moved = Motion(flow, SCALE, 1).detections(found, (WIDTH, HEIGHT))
    expected = (found.boxes - np.tile(centre, 2)) * factor + np.tile(centre, 2)
    assert np.abs(moved.boxes - expected).max() < 2.5
    sides = moved.boxes[:, 2:] - moved.boxes[:, :2]
    assert np.allclose(sides / (found.boxes[:, 2:] - found.boxes[:, :2]), factor, atol=0.03)


def test_a_box_goes_with_what_is_in_it_and_not_with_what_is_behind() -> None:
    flow = still()
    flow[...] = (3, 0)  # the world goes to the left
    flow[70:110, 90:150] = (-4, 0)  # a thing to the right; its box was 4 px further left
    found = boxes((172, 140, 292, 220))
    moved = Motion(flow, SCALE, 1).detections(found, (WIDTH, HEIGHT))
    assert np.allclose(moved.boxes, [[180, 140, 300, 220]], atol=1.5)


def test_boxes_that_leave_the_picture_are_cut_and_dropped() -> None:
    flow = still()
    flow[...] = (30, 0)  # 60 px to the left
    found = boxes((10, 50, 50, 90), (40, 100, 140, 160), (580, 20, 640, 60))
    moved = Motion(flow, SCALE, 1).detections(found, (WIDTH, HEIGHT))
    assert moved.class_ids.tolist() == [1, 2]
    assert np.allclose(moved.boxes, [[0, 100, 80, 160], [520, 20, 580, 60]], atol=0.05)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_the_flow_boxes_stay_boxes_in_the_picture(seed: int) -> None:
    rng = np.random.default_rng(seed)
    flow = rng.normal(0, 50, (ROWS, COLUMNS, 2)).astype(np.float32)
    low = rng.uniform(-20, (WIDTH, HEIGHT), (40, 2))
    found = boxes(*np.concatenate((low, low + rng.uniform(0.1, 300, (40, 2))), axis=1).tolist())
    moved = Motion(flow, SCALE, 3).detections(found, (WIDTH, HEIGHT))
    assert np.isfinite(moved.boxes).all()
    assert (moved.boxes >= 0).all() and (moved.boxes <= (WIDTH, HEIGHT, WIDTH, HEIGHT)).all()
    sides, before = moved.boxes[:, 2:] - moved.boxes[:, :2], found.boxes[moved.class_ids]
    assert (sides > 1).all()
    assert (sides <= (before[:, 2:] - before[:, :2]) / (1 - GROWTH) + 1e-2).all()


@pytest.mark.parametrize("seed", range(5))
def test_what_boxes_show_has_come_from_the_median_of_the_flow_in_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    flow = rng.normal(0, 3, still().shape).astype(np.float32)
    boxes = np.array([[40, 30, 44 + 8 * seed, 50], [-50, -9, 30, 20]], np.float32)  # one reaches out of the frame
    found = Motion(flow, SCALE, 1).origins(boxes)
    for box, (x, y) in zip(boxes * SCALE, found, strict=True):
        rows = slice(max(int(np.floor(box[1])), 0), int(np.ceil(box[3])))
        part = flow[rows, max(int(np.floor(box[0])), 0) : int(np.ceil(box[2]))]
        np.testing.assert_allclose((x, y), np.median(part.reshape(-1, 2), axis=0) / SCALE, rtol=1e-5)


def test_no_boxes() -> None:
    assert len(Motion(still(), SCALE, 1).detections(Detections.empty(), (WIDTH, HEIGHT))) == 0
