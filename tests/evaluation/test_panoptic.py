"""Panoptic view and quality on drawn scenes whose segments are known exactly."""

from __future__ import annotations

import numpy as np
import pytest

from perception.evaluation.panoptic import Quality, panoptic_quality
from perception.postprocess.panoptic import Panoptic, Segment, panoptic
from perception.sources.synthetic import source as synthetic
from perception.types import Detections

ROAD, CAR, SKY = 0, 1, 2
THINGS = {CAR: [4, 5]}  # a car of the class map is what the detector calls 4 or 5


def detections(boxes: list[list[float]], scores: list[float], kinds: list[int]) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(kinds, np.int32)
    )


def scene(seed: int) -> tuple[np.ndarray, np.ndarray, Detections]:
    """Class map, exact segment of each thing pixel, and exact boxes; cars may overlap, the better score is in front."""
    rng = np.random.default_rng(seed)
    mask = np.full((90, 120), ROAD, np.uint8)
    mask[:30] = SKY
    owner = np.zeros(mask.shape, np.int64)
    scores = np.sort(rng.uniform(0.3, 1, 4).astype(np.float32))
    boxes = []
    for number, _ in enumerate(scores, 1):
        w, h = (int(v) for v in rng.integers(12, 40, 2))
        x, y = int(rng.integers(0, 120 - w)), int(rng.integers(0, 90 - h))
        mask[y : y + h, x : x + w] = CAR
        owner[y : y + h, x : x + w] = number
        boxes.append([x, y, x + w, y + h])
    order = np.argsort(-scores)
    found = detections([boxes[i] for i in order], scores[order].tolist(), [4 + i % 2 for i in order.tolist()])
    return mask, owner, found


def truth_of(mask: np.ndarray, owner: np.ndarray) -> Panoptic:
    ids = np.zeros(mask.shape, np.int32)
    segments: list[Segment] = []
    for class_id, number in sorted({*zip(mask.ravel().tolist(), owner.ravel().tolist(), strict=True)}):
        mine = (mask == class_id) & (owner == number)
        ids[mine] = len(segments) + 1
        segments.append(Segment(len(segments) + 1, class_id, None, int(mine.sum()), (0, 0, 0, 0)))
    return Panoptic(ids, segments)


@pytest.mark.parametrize("seed", range(8))
def test_exact_boxes_give_exact_instances(seed: int) -> None:
    mask, owner, found = scene(seed)
    view = panoptic(mask, found, THINGS)
    truth = truth_of(mask, owner)
    qualities = panoptic_quality(truth, view, 3)
    present = {int(c) for c in np.unique(mask)}
    for class_id in present:
        assert qualities[class_id].pq == pytest.approx(1.0), class_id
    for segment in view.segments:
        rows, columns = np.nonzero(view.ids == segment.id)
        assert segment.area == len(rows)
        assert segment.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert set(mask[view.ids == segment.id].tolist()) == {segment.class_id}
    assert sum(s.area for s in view.segments) == mask.size
    assert (view.ids > 0).all()


def brute_force(mask: np.ndarray, found: Detections) -> np.ndarray:
    """Index of the box that each thing pixel belongs to, -1 for none, pixel by pixel."""
    owner = np.full(mask.shape, -1)
    for y, x in np.argwhere(mask == CAR).tolist():
        best: tuple[float, float, int] | None = None
        for i, (x0, y0, x1, y1) in enumerate(found.boxes.tolist()):
            if found.class_ids[i] in THINGS[CAR] and x0 <= x + 0.5 < x1 and y0 <= y + 0.5 < y1:
                away = (x + 0.5 - (x0 + x1) / 2) ** 2 + (y + 0.5 - (y0 + y1) / 2) ** 2
                key = (-float(found.scores[i]), away, i)
                best = key if best is None or key < best else best
        owner[y, x] = -1 if best is None else best[2]
    return owner


@pytest.mark.parametrize("seed", range(4))
def test_pixels_go_to_the_best_box_then_the_nearest(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    mask = rng.choice(np.array([ROAD, CAR], np.uint8), (40, 50), p=[0.3, 0.7])
    corners = rng.uniform(-5, 45, (6, 2))
    boxes = np.concatenate((corners, corners + rng.uniform(4, 25, (6, 2))), 1).round(1)
    scores = rng.choice([0.9, 0.5], 6)  # many are equal
    found = detections(boxes.tolist(), scores.tolist(), rng.choice([4, 5, 9], 6).tolist())
    view = panoptic(mask, found, THINGS)
    owner = brute_force(mask, found)
    pairs = {*zip(view.ids[mask == CAR].tolist(), owner[mask == CAR].tolist(), strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    unsplit = [s for s in view.segments if s.class_id == CAR and s.score is None]
    assert len(unsplit) == (1 if (owner[mask == CAR] == -1).any() else 0)


def test_ignored_classes_and_small_segments_are_none() -> None:
    mask, _, found = scene(1)
    view = panoptic(mask, found, THINGS, ignored=[SKY], min_area=10)
    assert SKY not in {s.class_id for s in view.segments}
    assert (view.ids[mask == SKY] == 0).all()
    assert min(s.area for s in view.segments) >= 10
    assert [s.id for s in view.segments] == list(range(1, len(view.segments) + 1))


def test_masks_of_any_layout_and_size() -> None:
    mask, _, found = scene(2)
    padded = np.zeros((90, 200), np.uint8)[:, :120]
    padded[:] = mask
    padded.flags.writeable = False
    view = panoptic(mask, found, THINGS)
    assert np.array_equal(panoptic(padded, found, THINGS).ids, view.ids)
    assert view.things == {CAR}
    empty = panoptic(np.zeros((0, 5), np.uint8), Detections.empty(), THINGS)
    assert empty.ids.shape == (0, 5) and empty.segments == []
    one = panoptic(np.full((1, 1), 255, np.uint8), Detections.empty(), THINGS)
    assert [(s.class_id, s.area, s.box) for s in one.segments] == [(255, 1, (0, 0, 1, 1))]


def whole(pairs: list[tuple[Panoptic, Panoptic]], classes: int) -> list[Quality]:
    """The quality of several pictures."""
    each = [panoptic_quality(*pair, classes) for pair in pairs]
    return [sum(of_class, Quality()) for of_class in zip(*each, strict=True)]


@pytest.mark.parametrize("seed", range(3))
def test_quality_on_the_drawn_street(seed: int) -> None:
    """Boxes a pixel off cost its things little and its stuff nothing; without boxes there are no things."""
    source = synthetic.SyntheticSource((320, 180), seed=seed)
    things = {c: [c] for c in (synthetic.CAR, synthetic.PEDESTRIAN, synthetic.BICYCLIST)}
    pairs, blind = [], []
    for index in range(0, 200, 40):
        detections, mask = source.truth(index)
        truth = panoptic(mask, detections, things)
        shift = np.random.default_rng(seed).uniform(-1, 1, detections.boxes.shape).astype(np.float32)
        moved = Detections(detections.boxes + shift, detections.scores, detections.class_ids)
        pairs.append((truth, panoptic(mask, moved, things)))
        blind.append((truth, panoptic(mask, Detections.empty(), things)))
    for class_id, quality in enumerate(whole(pairs, 11)):
        if class_id not in things:
            assert quality.pq == pytest.approx(1) or np.isnan(quality.pq), class_id
        elif quality.matched + quality.false_negatives:
            assert quality.sq > 0.8 and quality.matched > quality.false_negatives, class_id
    assert whole(blind, 11)[synthetic.CAR].pq < 0.2


def test_quality_by_hand() -> None:
    truth_ids, found_ids = np.zeros((10, 10), np.int32), np.zeros((10, 10), np.int32)
    truth_ids[:4], truth_ids[4:6], truth_ids[6:8] = 1, 2, 3  # rows 8 and 9 are void
    found_ids[:3], found_ids[3:5], found_ids[8:] = 1, 2, 3
    truth = Panoptic(truth_ids, [Segment(i, 0, None, a, (0, 0, 0, 0)) for i, a in ((1, 40), (2, 20), (3, 20))])
    found = Panoptic(found_ids, [Segment(i, 0, 0.5, a, (0, 0, 0, 0)) for i, a in ((1, 30), (2, 20), (3, 20))])
    (quality,) = panoptic_quality(truth, found, 1)
    # 1 and 1 overlap by 30 of 40; 2 and 2 by 10 of 30, which is no match; the third guess is in void
    assert (quality.matched, quality.false_positives, quality.false_negatives) == (1, 1, 2)
    assert quality.sq == pytest.approx(0.75)
    assert quality.rq == pytest.approx(1 / (1 + 0.5 + 1))
    assert quality.pq == pytest.approx(0.75 / 2.5)
    assert np.isnan(Quality().pq)


def test_predictions_that_reach_into_void_are_measured_without_it() -> None:
    truth_ids, found_ids = np.zeros((4, 10), np.int32), np.ones((4, 10), np.int32)
    truth_ids[:3] = 1
    truth = Panoptic(truth_ids, [Segment(1, 0, None, 30, (0, 0, 0, 0))])
    found = Panoptic(found_ids, [Segment(1, 0, 0.5, 40, (0, 0, 0, 0))])
    (quality,) = panoptic_quality(truth, found, 1)
    assert quality.pq == pytest.approx(1.0)


def noisy_view(rng: np.random.Generator, classes: int) -> Panoptic:
    """Random blocks of segments, some pixels without any."""
    ids = np.kron(rng.integers(0, 9, (6, 8)), np.ones((5, 5), int)).astype(np.int32)
    there = [i for i in range(1, 9) if (ids == i).any()]
    table = np.zeros(9, np.int32)
    table[there] = np.arange(1, len(there) + 1)
    ids = table[ids]
    boxes = (0, 0, 0, 0)
    return Panoptic(
        ids,
        [Segment(i, int(rng.integers(classes)), None, int((ids == i).sum()), boxes) for i in range(1, len(there) + 1)],
    )


def shaken(view: Panoptic, rng: np.random.Generator, classes: int) -> Panoptic:
    """The same with pixels moved between segments, and some classes changed."""
    ids = view.ids.copy()
    noise = rng.random(ids.shape) < 0.2
    ids[noise] = rng.integers(0, len(view.segments) + 1, int(noise.sum()))
    segments = [
        Segment(s.id, int(rng.integers(classes)) if rng.random() < 0.2 else s.class_id, 0.5, area, s.box)
        for s in view.segments
        if (area := int((ids == s.id).sum()))
    ]
    return Panoptic(ids, segments)


def by_definition(truth: Panoptic, found: Panoptic, classes: int, crowd: set[int]) -> list[tuple[int, float, int, int]]:
    """Matches, overlap, wrong and missed segments of each class, mask by mask."""
    rows = [[0, 0.0, 0, 0] for _ in range(classes)]
    void = truth.ids == 0
    matched: set[int] = set()
    for real in truth.segments:
        if real.id in crowd:
            continue
        hit = None
        for guess in found.segments:
            a, b = truth.ids == real.id, (found.ids == guess.id) & ~void
            if guess.class_id == real.class_id and (a & b).sum() / (a | b).sum() > 0.5:
                hit = guess.id
                rows[real.class_id][0] += 1
                rows[real.class_id][1] += (a & b).sum() / (a | b).sum()
        if hit is None:
            rows[real.class_id][3] += 1
        else:
            matched.add(hit)
    for guess in found.segments:
        forgiven = void.copy()
        for real in truth.segments:
            if real.id in crowd and real.class_id == guess.class_id:
                forgiven |= truth.ids == real.id
        mask = found.ids == guess.id
        if guess.id not in matched and (mask & forgiven).sum() <= 0.5 * mask.sum():
            rows[guess.class_id][2] += 1
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("seed", range(12))
def test_quality_is_that_of_the_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = noisy_view(rng, 3)
    found = shaken(truth, rng, 3)
    crowd = {s.id for s in truth.segments if rng.random() < 0.3}
    qualities = panoptic_quality(truth, found, 3, crowd)
    for quality, expected in zip(qualities, by_definition(truth, found, 3, crowd), strict=True):
        assert (quality.matched, quality.false_positives, quality.false_negatives) == (
            expected[0], expected[2], expected[3],
        )  # fmt: skip
        assert quality.overlap == pytest.approx(expected[1])
    assert sum(q.matched for q in qualities) > 0
