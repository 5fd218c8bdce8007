"""Logits averaged in time: against slow NumPy, closed forms of the average, and scenes whose truth is drawn."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from perception.picture.letterbox import Letterbox
from perception.postprocess.class_maps import LogitsClassMap
from perception.postprocess.smoothing import DIFFERENT, NOISE, USUAL_S, LogitsSmoother, average_along
from perception.types import Planes

SIZE = (640, 360)
BOX = Letterbox.fit(*SIZE, 320, 192)
CLASSES, ROWS, COLUMNS = 4, 96, 160


def world(seed: int, width: int = 1000, height: int = 600) -> np.ndarray:
    """uint8 ``[height, width, 3]``: a picture with corners of all sizes."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width), np.float32)
    for cells in (12, 40, 120):
        coarse = rng.random((cells * 9 // 16, cells)).astype(np.float32)
        picture += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.cvtColor(np.clip(picture * 80, 0, 255).astype(np.uint8), cv2.COLOR_GRAY2BGR)


def view(of: np.ndarray, x: int = 100, y: int = 100) -> np.ndarray:
    return np.ascontiguousarray(of[y : y + SIZE[1], x : x + SIZE[0]])


def field(seed: int) -> np.ndarray:
    """float32 ``[C, h, w]``: smooth logits."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 3, (CLASSES, 6, 10)).astype(np.float32)
    return np.stack([cv2.resize(c, (COLUMNS, ROWS), interpolation=cv2.INTER_CUBIC) for c in coarse])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("plane", [(ROWS, COLUMNS), (60, 100), (31, 41)])
def test_the_kernel_is_a_weighted_mean_from_where_the_flow_says(seed: int, plane: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    h, w = plane
    now, last = (rng.integers(100, 112, plane).astype(np.uint8) for _ in range(2))
    flow = rng.normal(0, 2, (h, w, 2)).astype(np.float32)
    flow[0, :3] = (-90, -90), (400, 3), (3, 400)  # from outside
    logits, past = field(seed), field(seed + 50)
    had = rng.uniform(0, 4, (ROWS, COLUMNS)).astype(np.float32)
    out, weight = np.empty_like(logits), np.empty_like(had)
    flat = (CLASSES, ROWS * COLUMNS)
    across, x0, down, y0 = (
        w / (COLUMNS - 9),
        -4 * w / (COLUMNS - 9),
        h / ROWS,
        0.0,
    )  # a rim without a picture at the sides
    same = average_along(
        logits.reshape(flat), past.reshape(flat), had, now, last, flow, across, x0, down, y0, 0.7,
        out.reshape(flat), weight,
    )  # fmt: skip

    y, x = np.indices((h, w), np.float64)
    fx, fy = x + flow[..., 0], y + flow[..., 1]
    was = bilinear(last.astype(np.float64), fx, fy)
    trust = np.clip((DIFFERENT - np.abs(was - now)) / (DIFFERENT - NOISE), 0, 1)
    trust *= (fx > -0.5) & (fy > -0.5) & (fx < w - 0.5) & (fy < h - 0.5)
    y, x = np.indices((ROWS, COLUMNS), np.float64)
    rows = np.clip(np.trunc(down * (y + 0.5) + y0), 0, h - 1).astype(int)
    columns = np.clip(np.trunc(across * (x + 0.5) + x0), 0, w - 1).astype(int)
    trust = trust[rows, columns]
    fx = np.clip(x + flow[rows, columns, 0] / across, 0, COLUMNS - 1)
    fy = np.clip(y + flow[rows, columns, 1] / down, 0, ROWS - 1)
    before = 0.7 * trust * had[np.floor(fy + 0.5).astype(int), np.floor(fx + 0.5).astype(int)]
    for c in range(CLASSES):
        mean = (logits[c] + before * bilinear(past[c].astype(np.float64), fx, fy)) / (1 + before)
        np.testing.assert_allclose(out[c], mean, atol=2e-3)
    np.testing.assert_allclose(weight, 1 + before, atol=1e-3)
    assert same == pytest.approx(trust.mean(), abs=1e-4)


def bilinear(plane: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    h, w = plane.shape
    x, y = np.clip(x, 0, w - 1), np.clip(y, 0, h - 1)
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    x1, y1 = np.minimum(x0 + 1, w - 1), np.minimum(y0 + 1, h - 1)
    a, b = x - x0, y - y0
    upper = plane[y0, x0] * (1 - a) + plane[y0, x1] * a
    return upper * (1 - b) + (plane[y1, x0] * (1 - a) + plane[y1, x1] * a) * b


@pytest.mark.parametrize("fps", [5.0, 15.0, 30.0, 29.97])
def test_time_is_in_seconds_whatever_the_frame_rate(fps: float) -> None:
    """After a step in what the network says, what is left of the past is that of the time constant."""
    smoother, picture = LogitsSmoother(0.4), view(world(1))
    before, after = field(1), field(2)
    frames = round(4 * fps)
    for frame in range(frames):
        smoother.update(before, BOX, picture, frame / fps)
    for frame in range(frames, frames + round(fps)):
        found = smoother.update(after, BOX, picture, frame / fps)
        left = math.exp(-(frame + 1 - frames) / fps / 0.4)
        np.testing.assert_allclose(found, left * before + (1 - left) * after, atol=0.01)


def test_noise_goes_down_as_that_of_a_mean_does() -> None:
    rng = np.random.default_rng(3)
    smoother, picture, clean = LogitsSmoother(0.2), view(world(3)), field(3)
    decay = math.exp(-1 / 30 / 0.2)
    total, squares = 0.0, 0.0
    for frame in range(60):
        found = smoother.update(clean + rng.normal(size=clean.shape).astype(np.float32), BOX, picture, frame / 30)
        weights = decay ** np.arange(frame + 1)
        total, squares = weights.sum(), (weights**2).sum()
        assert (found - clean).std() == pytest.approx(math.sqrt(squares) / total, rel=0.05)


@pytest.mark.parametrize("planes", [False, True])
@pytest.mark.parametrize(("dx", "dy"), [(7, 0), (-5, 3), (0, -6)])
def test_the_past_comes_along_with_the_picture(planes: bool, dx: int, dy: int) -> None:
    rng, ground = np.random.default_rng(4), world(4)
    large = np.stack([cv2.resize(c, (1000, 600)) for c in field(4)])
    smoother, errors, plain = LogitsSmoother(0.15), [], []
    for frame in range(25):
        x, y = 170 + dx * frame, 160 + dy * frame
        seen = large[:, y : y + SIZE[1], x : x + SIZE[0]]
        clean = np.stack([cv2.resize(c, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA) for c in seen])
        image = view(ground, x, y)
        picture = Planes.from_i420(cv2.cvtColor(image, cv2.COLOR_BGR2YUV_I420)) if planes else image
        noisy = clean + rng.normal(size=clean.shape).astype(np.float32)
        found = smoother.update(noisy, BOX, picture, frame / 30)
        inner = np.s_[:, 8:-8, 8:-8]
        errors.append((found - clean)[inner].std())
        plain.append((noisy - clean)[inner].std())
    assert np.mean(errors[10:]) < 0.5 * np.mean(plain[10:])


def test_what_was_covered_begins_anew() -> None:
    """A patch of another class crosses a ground of one: no ghost stays behind it, and none goes before it."""
    ground, thing = view(world(5)), view(world(6))[:120, :120] // 2 + 120
    smoother = LogitsSmoother(0.5)
    for frame in range(40):
        picture = ground.copy()
        x = 40 + 10 * frame
        picture[120:240, x : x + 120] = thing[:, : SIZE[0] - x]
        truth = np.zeros((ROWS, COLUMNS), np.float32)
        truth[32:64, x // 4 : (x + 120) // 4] = 1
        found = smoother.update(np.stack([0.5 - truth, truth - 0.5]).astype(np.float32), BOX, picture, frame / 30)
        wrong = (found.argmax(0) != truth).sum()
        assert wrong < 0.1 * truth.sum(), frame


@pytest.mark.parametrize("kind", ["cut", "back", "pause", "other size", "other classes", "first", "still clock"])
def test_there_is_no_past_after_a_break(kind: str) -> None:
    smoother, picture, logits = LogitsSmoother(0.2), view(world(7)), field(8)
    if kind != "first":
        for frame in range(5):
            smoother.update(field(7), BOX, picture, frame / 30)
        smoother.update(field(7), BOX, picture, 5 / 30)
    time = {"back": 0.0, "pause": 3.0, "still clock": 5 / 30}.get(kind, 6 / 30)
    if kind == "cut":
        picture = 255 - view(world(9))
    if kind == "other size":
        logits = np.ascontiguousarray(logits[:, :48, :80])
    if kind == "other classes":
        logits = np.ascontiguousarray(logits[:3])
    assert smoother.update(logits, BOX, picture, time) is logits
    after = smoother.update(logits + 1, BOX, picture, time + 1 / 30)
    decay = math.exp(-1 / 30 / 0.2)
    np.testing.assert_allclose(after, logits + 1 / (1 + decay), atol=1e-3)  # both count as one frame


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_does_not_stay(value: float) -> None:
    smoother, picture = LogitsSmoother(0.2), view(world(10))
    bad = field(10)
    bad[1, 40, 60] = value
    smoother.update(field(10), BOX, picture, 0.0)
    assert smoother.update(bad, BOX, picture, 1 / 30) is bad
    clean = field(11)
    assert smoother.update(clean, BOX, picture, 2 / 30) is clean
    assert np.isfinite(smoother.update(clean, BOX, picture, 3 / 30)).all()


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
@pytest.mark.parametrize("frame", [(640, 360), (90, 160), (33, 17), (1, 1)])
@pytest.mark.parametrize("logits", [(2, 1, 1), (3, 20, 30), (2, 200, 360), (1, 30, 3), (2, 3, 700)])
def test_all_sizes(mode: str, frame: tuple[int, int], logits: tuple[int, int, int]) -> None:
    box = Letterbox.fit(*frame, 64, 48, mode)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    smoother = LogitsSmoother()
    image = rng.integers(0, 256, (frame[1], frame[0], 3)).astype(np.uint8)
    given = [rng.normal(size=logits).astype(np.float32) for _ in range(3)]
    kept = [one.copy() for one in given]
    found = [smoother.update(one, box, image, index / 30) for index, one in enumerate(given)]
    decay = math.exp(-1 / 30 / USUAL_S)
    expected = (given[0] * decay**2 + given[1] * decay + given[2]) / (1 + decay + decay**2)
    np.testing.assert_allclose(found[2], expected, atol=0.02)
    for one, same in zip(given, kept, strict=True):
        np.testing.assert_array_equal(one, same)  # never written to


@pytest.mark.parametrize("floor", [None, 0.5])
def test_masks_are_those_of_the_averaged_logits_to_the_pixel(floor: float | None) -> None:
    smoother, picture = LogitsSmoother(0.3), view(world(12))
    frames = [field(seed) for seed in (12, 13, 14)]
    for index, logits in enumerate(frames):
        found = smoother.update(logits, BOX, picture, index / 30)
    class_map = LogitsClassMap(frames[-1], BOX, (2,), floor).of(found)
    large = np.stack([cv2.resize(c, SIZE, interpolation=cv2.INTER_LINEAR) for c in found])
    expected = large.argmax(0)
    if floor is not None:
        expected[large.max(0) < floor] = CLASSES
    assert (class_map.mask != expected).mean() < 2e-4  # rounding of ties
    assert class_map.unknown == (None if floor is None else CLASSES)
    assert set(class_map.ignored) == ({2} if floor is None else {2, CLASSES})
    assert class_map.letterbox == BOX and class_map.classes == CLASSES


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_a_time_constant_that_is_none(seconds: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        LogitsSmoother(seconds)
