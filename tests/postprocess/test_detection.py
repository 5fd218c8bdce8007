"""Suppression against torchvision, and soft-NMS against the paper's loop in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perception.picture.letterbox import Letterbox
from perception.postprocess import detection
from perception.postprocess.detection import VOTE_SHARE, decode, float32_below, nms
from perception.types import Detections
from tests.noise import random_boxes

IDENTITY = Letterbox.fit(1000, 1000, 1000, 1000)


def slow_nms(boxes: np.ndarray, scores: np.ndarray, ids: np.ndarray, threshold: float) -> list[int]:
    """torchvision's nms on each class alone, so without the offset trick of batched_nms; merged by score."""
    torch, torchvision = pytest.importorskip("torch"), pytest.importorskip("torchvision")
    kept: list[int] = []
    for c in np.unique(ids):
        where = np.flatnonzero(ids == c)
        found = torchvision.ops.nms(torch.from_numpy(boxes[where]), torch.from_numpy(scores[where]), threshold)
        kept += where[found.numpy()].tolist()
    return sorted(kept, key=lambda i: (-scores[i], i))


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.6, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_nms_keeps_what_torchvision_keeps(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    for n, classes in ((0, 1), (1, 1), (17, 2), (300, 1), (700, 5), (900, 80)):
        boxes, ids = random_boxes(n, rng, size=400), rng.integers(0, classes, n)
        scores = rng.random(n).astype(np.float32)
        kept = nms(boxes, scores, ids, threshold)
        assert kept.dtype == np.int64
        assert kept.tolist() == slow_nms(boxes, scores, ids, threshold)


@pytest.mark.parametrize("n", [100, 1000, 5000])
def test_nms_is_batched_nms(n: int) -> None:
    torch, torchvision = pytest.importorskip("torch"), pytest.importorskip("torchvision")
    rng = np.random.default_rng(n)
    boxes, scores, ids = random_boxes(n, rng), rng.random(n).astype(np.float32), rng.integers(0, 7, n)
    expected = torchvision.ops.batched_nms(*map(torch.from_numpy, (boxes, scores, ids)), 0.5)
    assert nms(boxes, scores, ids, 0.5).tolist() == expected.tolist()


@pytest.mark.parametrize("threshold", [0.5, 0.6, 1 / 3, 0.25, 0.2])
def test_boxes_exactly_on_the_threshold(threshold: float) -> None:
    # Integer boxes whose IoU, computed in float32, equals the rounded threshold for many pairs.
    rng = np.random.default_rng(5)
    corner = rng.integers(0, 4, (400, 2))
    boxes = np.concatenate([corner, corner + rng.integers(1, 7, (400, 2))], axis=1).astype(np.float32)
    scores, ids = rng.random(400).astype(np.float32), np.zeros(400, np.int64)
    assert nms(boxes, scores, None, threshold).tolist() == slow_nms(boxes, scores, ids, threshold)


def test_a_pair_on_the_threshold_is_kept() -> None:
    boxes = np.array([[0, 0, 2, 1], [0, 0, 1, 1]], np.float32)  # IoU 0.5
    scores = np.array([0.9, 0.8], np.float32)
    assert nms(boxes, scores, None, 0.5).tolist() == [0, 1]
    assert nms(boxes, scores, None, np.nextafter(0.5, 0)).tolist() == [0]


def test_equal_scores_and_equal_boxes_go_by_index() -> None:
    rng = np.random.default_rng(6)
    boxes = random_boxes(200, rng, size=200).repeat(2, axis=0)
    scores = rng.choice([0.0, -0.0, 0.25, 0.5], 400).astype(np.float32)
    ids = np.zeros(400, np.int64)
    assert nms(boxes, scores, ids, 0.4).tolist() == slow_nms(boxes, scores, ids, 0.4)


def test_scores_of_any_sign_and_size() -> None:
    rng = np.random.default_rng(7)
    boxes = random_boxes(300, rng, size=300)
    scores = (rng.normal(size=300) * 10.0 ** rng.integers(-30, 30, 300)).astype(np.float32)
    scores[:2] = np.inf, -np.inf
    assert nms(boxes, scores, None, 0.3).tolist() == slow_nms(boxes, scores, np.zeros(300, int), 0.3)


def test_class_ids_far_apart() -> None:
    rng = np.random.default_rng(8)
    boxes, scores = random_boxes(300, rng, size=200), rng.random(300).astype(np.float32)
    ids = rng.choice([-(2**60), -3, 0, 5, 2**61], 300)
    assert nms(boxes, scores, ids, 0.3).tolist() == slow_nms(boxes, scores, ids, 0.3)


def test_boxes_without_area_never_suppress() -> None:
    boxes = np.array([[5, 5, 5, 5], [5, 5, 5, 5], [0, 0, 10, 10]], np.float32)
    assert nms(boxes, np.array([3, 2, 1], np.float32), None, 0.5).tolist() == [0, 1, 2]


def test_float32_below_is_the_double_comparison() -> None:
    for threshold in (0.1, 0.3, 0.5, 0.6, 0.7, 1.0, 0.0):
        t = float32_below(threshold)
        near = np.float32(threshold)
        for x in (np.nextafter(near, np.float32(-1)), near, np.nextafter(near, np.float32(2))):
            assert (x > t) == (float(x) > threshold)


def paper_soft_nms(
    boxes: np.ndarray, scores: np.ndarray, method: str, threshold: float, sigma: float, floor: float
) -> list[tuple[int, float]]:
    """Figure 2 of the paper, without pixel offsets: take the best, lower the rest by their overlap with it."""
    left = {i: float(s) for i, s in enumerate(scores)}
    taken = []
    while left:
        best = max(left, key=lambda i: (left[i], -i))
        taken.append((best, left.pop(best)))
        for i in list(left):
            w = min(boxes[best, 2], boxes[i, 2]) - max(boxes[best, 0], boxes[i, 0])
            h = min(boxes[best, 3], boxes[i, 3]) - max(boxes[best, 1], boxes[i, 1])
            inter = float(max(w, 0)) * float(max(h, 0))
            area = [float(b[2] - b[0]) * float(b[3] - b[1]) for b in (boxes[best], boxes[i])]
            iou = inter / (area[0] + area[1] - inter)
            if method == "soft-gaussian":
                left[i] *= np.exp(-iou * iou / sigma)
            elif iou > threshold:
                left[i] *= 1 - iou
            if left[i] < floor:
                del left[i]
    return taken


@pytest.mark.parametrize("method", ["soft-linear", "soft-gaussian"])
@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_soft_nms_is_the_papers(seed: int, agnostic: bool, method: str) -> None:
    rng = np.random.default_rng(seed)
    n, classes, floor = 150, 3, 0.05
    boxes = np.clip(random_boxes(n, rng, size=300), 0, 1000)
    ids = rng.integers(0, classes, n)
    scores = np.zeros((n, classes), np.float32)
    scores[np.arange(n), ids] = rng.uniform(floor, 1, n).astype(np.float32)
    got = decode(
        *(boxes, scores, IDENTITY),
        score_threshold=floor,
        iou_threshold=0.3,
        max_detections=1000,
        method=method,  # type: ignore[arg-type]
        sigma=0.4,
        class_agnostic=agnostic,
    )
    expected: list[tuple[float, int]] = []
    for c in [None] if agnostic else range(classes):
        where = np.arange(n) if c is None else np.flatnonzero(ids == c)
        own = scores[where, ids[where]]
        found = paper_soft_nms(boxes[where], own, method, 0.3, 0.4, floor)
        expected += [(s, int(where[i])) for i, s in found]
    expected.sort(key=lambda e: -e[0])
    np.testing.assert_allclose(got.scores, [s for s, _ in expected], rtol=1e-5)
    np.testing.assert_array_equal(got.boxes, boxes[[i for _, i in expected]])
    np.testing.assert_array_equal(got.class_ids, ids[[i for _, i in expected]])
    assert (got.scores >= floor).all()


def test_decode_against_loops() -> None:
    rng = np.random.default_rng(11)
    box = Letterbox.fit(1280, 720, 640, 640, "letterbox")
    boxes = random_boxes(500, rng, size=640, side=200)
    scores = (rng.random((500, 6)) ** 4).astype(np.float32)
    thresholds = np.array([0.2, 0.3, 0.4, 0.5, 0.6, 0.7], np.float32)
    got = decode(boxes, scores, box, score_threshold=thresholds, iou_threshold=0.45, class_filter=[0, 2, 5])
    moved = box.to_frame(boxes)
    pairs = [(k, c) for k in range(500) for c in (0, 2, 5) if scores[k, c] >= thresholds[c]]
    pairs = [p for p in pairs if moved[p[0], 2] > moved[p[0], 0] and moved[p[0], 3] > moved[p[0], 1]]
    flat = np.array([moved[k] for k, _ in pairs])
    own, ids = np.array([scores[p] for p in pairs]), np.array([c for _, c in pairs])
    kept = slow_nms(flat, own, ids, 0.45)[:300]
    np.testing.assert_array_equal(got.boxes, flat[kept])
    np.testing.assert_array_equal(got.scores, own[kept])
    np.testing.assert_array_equal(got.class_ids, ids[kept])
    assert got.class_ids.dtype == np.int32


def test_decode_drops_boxes_that_are_none() -> None:
    boxes = np.array(
        [[0, 0, 10, 10], [np.nan, 0, 10, 10], [0, 0, np.inf, 10], [5, 5, 5, 9], [9, 9, 2, 2], [-50, -50, -5, -5]],
        np.float32,
    )
    got = decode(boxes, np.ones((6, 1), np.float32), IDENTITY)
    assert got.boxes.tolist() == [[0, 0, 10, 10]]
    assert len(decode(boxes, np.full((6, 1), np.nan, np.float32), IDENTITY)) == 0
    assert len(decode(np.zeros((0, 4), np.float32), np.zeros((0, 3), np.float32), IDENTITY)) == 0


def test_decode_clips_and_limits() -> None:
    boxes = np.array([[-10, -10, 2000, 2000], [100, 100, 110, 110], [300, 300, 310, 310]], np.float32)
    scores = np.array([[0.5], [0.9], [0.7]], np.float32)
    got = decode(boxes, scores, IDENTITY, max_detections=2)
    np.testing.assert_array_equal(got.scores, scores[[1, 2], 0])
    assert decode(boxes, scores, IDENTITY).boxes[2].tolist() == [0, 0, 1000, 1000]
    assert len(decode(boxes, scores, IDENTITY, max_detections=0)) == 0
    for method in ("soft-linear", "soft-gaussian"):
        assert len(decode(boxes, scores, IDENTITY, max_detections=2, method=method)) == 2  # type: ignore[arg-type]


def plain_iou(a: np.ndarray, b: np.ndarray) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(float(w), 0) * max(float(h), 0)
    return inter / (float(a[2] - a[0]) * float(a[3] - a[1]) + float(b[2] - b[0]) * float(b[3] - b[1]) - inter)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("vote_iou", [0.0, 0.1, 0.6, 0.8])
@pytest.mark.parametrize("seed", range(4))
def test_voted_boxes_are_weighted_means(seed: int, vote_iou: float, agnostic: bool) -> None:
    rng = np.random.default_rng(seed)
    centres = random_boxes(12, rng, size=400, side=150)
    boxes = (centres[rng.integers(0, 12, 200)] + rng.normal(0, 4, (200, 4))).clip(0, 999).astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    scores = (rng.random((200, 3)) ** 3).astype(np.float32)
    options = {"score_threshold": 0.2, "iou_threshold": 0.5, "class_agnostic": agnostic}
    plain = decode(boxes, scores, IDENTITY, **options)  # type: ignore[arg-type]
    voted = decode(boxes, scores, IDENTITY, vote_iou=vote_iou, **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(voted.scores, plain.scores)
    np.testing.assert_array_equal(voted.class_ids, plain.class_ids)
    several = 0
    for box, class_id, mean in zip(plain.boxes, plain.class_ids, voted.boxes, strict=True):
        own = scores[:, class_id]
        least = VOTE_SHARE * own[(boxes == box).all(1)].max()
        voters = [k for k in range(200) if own[k] >= least and plain_iou(box, boxes[k]) >= vote_iou]
        weights = own[voters].astype(np.float64) ** 3
        expected = (boxes[voters].astype(np.float64) * weights[:, None]).sum(0) / weights.sum()
        np.testing.assert_allclose(mean, expected, rtol=1e-5)
        several += len(voters) > 1
    assert several > 5


def crowd(seed: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes around a few objects, as a network gives them, with scores from 0 to 1, many of them low, some equal."""
    rng = np.random.default_rng(seed)
    objects = random_boxes(8, rng, size=500, side=200)
    boxes = (objects[rng.integers(0, 8, 250)] + rng.normal(0, 8, (250, 4))).astype(np.float32)
    scores = (rng.random((250, classes)) ** 3).astype(np.float32)
    return boxes, np.where(rng.random(scores.shape) < 0.3, scores.round(2), scores).astype(np.float32)


KINDS: list[dict[str, Any]] = [
    {"method": "nms", "vote_iou": 0.75}, {"method": "nms", "vote_iou": 0.3}, {"method": "nms", "vote_iou": 0.0},
    {"method": "nms"}, {"method": "soft-linear"}, {"method": "soft-gaussian"},
]  # fmt: skip


def is_filtered(high: Detections, low: Detections, keep: np.ndarray) -> None:
    """To the last bit, in the same order."""
    np.testing.assert_array_equal(high.scores, low.scores[keep])
    np.testing.assert_array_equal(high.class_ids, low.class_ids[keep])
    np.testing.assert_array_equal(high.boxes, low.boxes[keep])


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("classes", [1, 4])
def test_a_threshold_only_filters(classes: int, agnostic: bool, kind: dict[str, Any]) -> None:
    for seed in range(12):
        boxes, scores = crowd(seed, classes)
        limit = 1000 if seed % 3 else 15
        options = {"iou_threshold": 0.5, "max_detections": limit, "class_agnostic": agnostic, **kind}
        low = decode(boxes, scores, IDENTITY, score_threshold=0.0, **options)
        for threshold in (0.001, 0.02, 0.05, 0.1, 0.25, 0.5, 0.8, 1.0, *low.scores[::23]):
            high = decode(boxes, scores, IDENTITY, score_threshold=threshold, **options)
            is_filtered(high, low, low.scores >= np.float32(threshold))


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("agnostic", [False, True])
def test_thresholds_of_classes_only_filter(agnostic: bool, kind: dict[str, Any]) -> None:
    fewer = 0
    for seed in range(20):
        boxes, scores = crowd(seed, 4)
        options = {"iou_threshold": 0.5, "max_detections": 1000, "class_agnostic": agnostic, **kind}
        wanted = {"class_filter": [0, 1, 3]} if seed % 2 else {}
        low = decode(boxes, scores, IDENTITY, score_threshold=0.01, **options, **wanted)
        thresholds = np.random.default_rng(seed).uniform(0.01, 0.9, 4).astype(np.float32)
        thresholds[seed % 4] = 0.01
        high = decode(boxes, scores, IDENTITY, score_threshold=thresholds, **options, **wanted)
        is_filtered(high, low, low.scores >= thresholds[low.class_ids])
        few = decode(boxes, scores, IDENTITY, score_threshold=thresholds, **{**options, "max_detections": 6}, **wanted)
        is_filtered(few, high, np.arange(len(high)) < 6)
        fewer += len(few) < len(high) < len(low)
    assert fewer > 10


def test_a_threshold_only_filters_where_candidates_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "MAX_CANDIDATES", 100)
    for seed in range(12):
        boxes, scores = crowd(seed, 3)
        options = {"iou_threshold": 0.5, "max_detections": 1000, "vote_iou": 0.4}
        low = decode(boxes, scores, IDENTITY, score_threshold=0.0, **options)  # type: ignore[arg-type]
        for threshold in (0.02, 0.1, 0.3, 0.7):
            high = decode(boxes, scores, IDENTITY, score_threshold=threshold, **options)  # type: ignore[arg-type]
            is_filtered(high, low, low.scores >= np.float32(threshold))


def test_voting_at_the_edges() -> None:
    one = np.array([[10, 10, 50, 50]], np.float32)
    assert decode(one, np.array([[0.9]], np.float32), IDENTITY, vote_iou=0.5).boxes.tolist() == one.tolist()
    none = decode(one, np.array([[0.1]], np.float32), IDENTITY, vote_iou=0.5)
    assert none.boxes.shape == (0, 4) and none.boxes.dtype == np.float32
    zero = decode(one, np.zeros((1, 1), np.float32), IDENTITY, vote_iou=0.5, score_threshold=0)
    assert zero.boxes.tolist() == one.tolist()  # no weight at all
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="vote_iou"):
            decode(one, np.ones((1, 1), np.float32), IDENTITY, vote_iou=wrong)


def test_class_agnostic() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9]], np.float32)
    scores = np.array([[0.9, 0.0], [0.0, 0.8]], np.float32)
    assert len(decode(boxes, scores, IDENTITY)) == 2
    assert decode(boxes, scores, IDENTITY, class_agnostic=True).class_ids.tolist() == [0]


def test_too_many_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "MAX_CANDIDATES", 50)
    rng = np.random.default_rng(12)
    boxes, scores = random_boxes(200, rng), rng.random((200, 1)).astype(np.float32)
    got = decode(boxes, scores, IDENTITY, score_threshold=0.0, iou_threshold=1.0)
    np.testing.assert_array_equal(got.scores, np.sort(scores[:, 0])[::-1][:50])


def test_refuses_what_makes_no_sense() -> None:
    boxes, scores = np.zeros((2, 4), np.float32), np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="boxes"):
        decode(boxes[:1], scores, IDENTITY)
    with pytest.raises(ValueError, match="method"):
        decode(boxes, scores, IDENTITY, method="hard")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="class_filter"):
        decode(boxes, scores, IDENTITY, class_filter=[3])
    with pytest.raises(ValueError, match="score_threshold"):
        decode(boxes, scores, IDENTITY, score_threshold=[0.1, 0.2])
    with pytest.raises(ValueError, match="sigma"):
        decode(boxes, scores, IDENTITY, method="soft-gaussian", sigma=0)
    with pytest.raises(ValueError, match="expected"):
        nms(boxes, scores[:, 0], np.zeros(3, int))
