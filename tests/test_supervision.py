"""To supervision's types and back."""

from __future__ import annotations

import numpy as np
import pytest
import supervision

from perception.errors import UsageError
from perception.picture.letterbox import Letterbox
from perception.postprocess.class_maps import MaskClassMap
from perception.types import Detections


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("tracked", [False, True])
def test_boxes_go_there_and_back(seed: int, tracked: bool) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 12))
    corners = rng.uniform(0, 200, (n, 2, 2)).astype(np.float32)
    boxes = np.concatenate([corners.min(1), corners.max(1)], 1).reshape(n, 4)
    scores = -np.sort(-rng.uniform(0, 1, n).astype(np.float32))
    ids = rng.permutation(1000)[:n].astype(np.int64) + 2**40 if tracked else None
    made = Detections(boxes, scores, rng.integers(0, 3, n).astype(np.int32), ids)
    there = made.to_supervision(["car", "bus", "a very long name"])
    assert isinstance(there, supervision.Detections) and len(there) == n
    assert [["car", "bus", "a very long name"][i] for i in made.class_ids] == list(there.data["class_name"])
    # their own arithmetic on it, in any order
    back = Detections.from_supervision(there[rng.permutation(n)] if n else there)
    for name in ("boxes", "scores", "class_ids", "track_ids"):
        assert np.array_equal(getattr(back, name), getattr(made, name)) if getattr(made, name) is not None else True
        if getattr(made, name) is not None:
            assert getattr(back, name).dtype == getattr(made, name).dtype
    assert (back.track_ids is None) == (not tracked)
    if n:
        assert np.allclose(there.area, (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def test_what_supervision_leaves_open() -> None:
    there = supervision.Detections(xyxy=np.array([[0, 0, 2, 2], [1, 1, 3, 3]], float))
    back = Detections.from_supervision(there)
    assert back.scores.tolist() == [1, 1] and back.class_ids.tolist() == [0, 0] and back.track_ids is None
    assert len(Detections.from_supervision(supervision.Detections.empty())) == 0


@pytest.mark.parametrize("seed", range(10))
def test_class_maps_go_there_and_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 5, (24, 32)).astype(np.uint8)
    made = MaskClassMap(ids, 5, Letterbox.fit(32, 24, 32, 24), ignored=(4,))
    there = made.to_supervision(["a", "b", "c", "d", "e"])
    assert there.class_id.tolist() == [i for i in range(4) if (ids == i).any()]
    for box, mask, class_id in zip(there.xyxy, there.mask, there.class_id, strict=True):
        assert np.array_equal(mask, ids == class_id)
        left, top, right, bottom = box.astype(int)
        assert mask[top:bottom, left:right].sum() == mask.sum() and mask[top].any() and mask[:, right - 1].any()
    back = MaskClassMap.from_supervision(there, 5, (32, 24))
    assert np.array_equal(back.mask, np.where(ids == 4, 5, ids)) and 5 in back.ignored


def test_masks_that_cannot_be_a_class_map_are_told() -> None:
    with pytest.raises(UsageError, match="no masks"):
        MaskClassMap.from_supervision(supervision.Detections(xyxy=np.zeros((1, 4))), 3)
    wrong = supervision.Detections(
        xyxy=np.array([[0, 0, 2, 2]], float), mask=np.ones((1, 2, 2), bool), class_id=np.array([7])
    )
    with pytest.raises(UsageError, match="no class 7"):
        MaskClassMap.from_supervision(wrong, 3)
