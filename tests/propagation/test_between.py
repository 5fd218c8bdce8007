"""Boxes of the frames between two key frames."""

from __future__ import annotations

import numpy as np
import pytest

from perception.propagation.between import between, inside, pairs
from perception.types import F32, Detections

SIZE = (640, 480)


def some(rng: np.random.Generator, count: int) -> Detections:
    corner = rng.uniform(50, 300, (count, 2))
    boxes = np.hstack([corner, corner + rng.uniform(30, 90, (count, 2))]).astype(np.float32)
    scores = np.sort(rng.uniform(0.3, 1, count))[::-1].astype(np.float32)
    return Detections(boxes, scores, np.arange(count, dtype=np.int32))  # each of its own class: matches are plain


def at(found: Detections, shift: tuple[float, float]) -> F32:
    return (found.boxes + np.array([*shift, *shift], np.float32)).astype(np.float32)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("count", [1, 2, 5])
def test_steady_motion_with_an_error_that_grows_is_found_exactly(seed: int, count: int) -> None:
    """The motion says half of what there is; the second key frame tells the other half."""
    rng = np.random.default_rng(seed)
    first = some(rng, 8)
    velocity = rng.uniform(-3, 3, (8, 4)).astype(np.float32)
    moved = [first.boxes + 0.5 * velocity * i for i in range(1, count + 1)]
    second = Detections(
        (first.boxes + velocity * (count + 1)).astype(np.float32), (first.scores * 0.5).astype(np.float32),
        first.class_ids,
    )  # fmt: skip
    found = between(first, moved, second, np.zeros((8, 2), np.float32), SIZE)
    assert len(found) == count
    for i, one in enumerate(found, 1):
        order = np.argsort(one.class_ids)
        np.testing.assert_allclose(one.boxes[order], first.boxes + velocity * i, atol=1e-3)
        np.testing.assert_allclose(one.scores[order], first.scores * (1 - 0.5 * i / (count + 1)), rtol=1e-5)
        assert (np.diff(one.scores) <= 0).all()


def test_what_one_of_them_has_is_there_all_the_way() -> None:
    rng = np.random.default_rng(0)
    first, second = some(rng, 1), some(rng, 1)
    second = Detections(second.boxes, second.scores, second.class_ids + 1)  # something else
    moved = [at(first, (4.0 * i, 0)) for i in (1, 2, 3)]
    found = between(first, moved, second, np.array([[-2.0, 1.0]], np.float32), SIZE)
    for i, one in enumerate(found, 1):
        order = np.argsort(one.class_ids)
        np.testing.assert_allclose(one.boxes[order[0]], moved[i - 1][0])
        np.testing.assert_allclose(one.boxes[order[1]], at(second, (-2.0 * (4 - i), 4.0 - i))[0], rtol=1e-6)


def test_nothing_before_or_nothing_after() -> None:
    some_boxes, none = some(np.random.default_rng(1), 3), Detections.empty()
    nothing = np.zeros((0, 4), np.float32)
    still = np.zeros((3, 2), np.float32)
    (new,) = between(none, [nothing], some_boxes, still, SIZE)
    (gone,) = between(some_boxes, [some_boxes.boxes], none, np.zeros((0, 2), np.float32), SIZE)
    for one in (new, gone):
        np.testing.assert_array_equal(one.boxes, some_boxes.boxes)
    (neither,) = between(none, [nothing], none, np.zeros((0, 2), np.float32), SIZE)
    assert len(neither) == 0


@pytest.mark.parametrize("seed", range(20))
def test_pairs_are_those_of_a_plain_greedy_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    corners = [rng.uniform(0, 60, (n, 2)) for n in rng.integers(0, 15, 2)]
    a, b = (np.hstack([c, c + rng.uniform(1, 60, c.shape)]).astype(np.float32) for c in corners)
    ids, others = (rng.integers(0, 2, len(x)).astype(np.int32) for x in (a, b))
    taken: set[int] = set()
    wanted = []
    for i, box in enumerate(a):
        best, most = -1, 0.3
        for j, other in enumerate(b):
            w = min(box[2], other[2]) - max(box[0], other[0])
            h = min(box[3], other[3]) - max(box[1], other[1])
            shared = max(w, 0) * max(h, 0)
            union = (box[2] - box[0]) * (box[3] - box[1]) + (other[2] - other[0]) * (other[3] - other[1]) - shared
            if j not in taken and ids[i] == others[j] and shared / union >= most + 1e-7 * (best >= 0):
                best, most = j, shared / union
        if best >= 0:
            taken.add(best)
            wanted.append((i, best))
    own, matched = pairs(a, ids, b, others, 0.3)
    assert list(zip(own.tolist(), matched.tolist(), strict=True)) == wanted


def test_boxes_are_clipped_dropped_and_ordered() -> None:
    boxes = np.array([[-20, -20, -1, 30], [600, 400, 700, 500], [10, 10, 60, 60]], np.float32)
    found = inside(Detections(boxes, np.array([0.9, 0.3, 0.6], np.float32), np.arange(3, dtype=np.int32)), SIZE)
    np.testing.assert_array_equal(found.boxes, [[10, 10, 60, 60], [600, 400, 640, 480]])
    assert found.class_ids.tolist() == [2, 1]
