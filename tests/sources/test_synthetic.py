"""The drawn street: equal seeds, equal frames; truth that fits the picture; memory that stays."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from perception.errors import SourceError, UsageError
from perception.sources import open_source
from perception.sources.synthetic.source import BICYCLIST, CAR, CLASSES, PEDESTRIAN, SyntheticSource
from tests.server.waiting import wait_for


def street(**options):
    return SyntheticSource(**options)


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_a_seed_is_a_street(seed):
    one, two, other = street(seed=seed), street(seed=seed), street(seed=seed + 1)
    for index in (0, 5, 299, 100_000):
        np.testing.assert_array_equal(one.image(index), two.image(index))
        for a, b in zip(one.truth(index)[0].boxes, two.truth(index)[0].boxes, strict=True):
            np.testing.assert_array_equal(a, b)
    assert (one.image(0) != other.image(0)).mean() > 0.2


def test_frames_and_clock():
    with open_source("synthetic:?size=96x64&fps=30000/1001&frames=20&seed=3") as source:
        assert source.info.frame_count == 20
        assert source.info.exact_count
        frames = list(source)
    assert [f.index for f in frames] == [f.pts for f in frames] == list(range(20))
    assert frames[7].time == pytest.approx(7 * 1001 / 30000)
    assert frames[0].time_base == Fraction(1001, 30000)
    assert frames[0].image.shape == (64, 96, 3)
    assert frames[0].image is not frames[1].image


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"start": 1.0}, range(25, 50)),
        ({"start": 0.03, "duration": 0.2}, range(1, 6)),
        ({"every": 20}, [0, 20, 40]),
        ({"max_frames": 2, "start": 0.4}, [10, 11]),
    ],
)
def test_parts(options, expected):
    with open_source("synthetic:?size=32x32&fps=25&frames=50", **options) as source:
        assert [f.pts for f in source] == list(expected)
    with pytest.raises(SourceError, match="ends before second 9"):
        open_source("synthetic:?size=32x32&fps=25&frames=50", start=9)


def test_no_end():
    with open_source("synthetic:?size=16x16&frames=0") as source:
        assert source.info.frame_count is None
        assert [next(source).index for _ in range(1000)][-1] == 999


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_truth_fits_the_picture(seed):
    source = street(seed=seed)
    empty = source._background
    for index in (0, 40, 111, 222):
        image = source.image(index)
        detections, mask = source.truth(index)
        assert mask.shape == image.shape[:2]
        assert set(np.unique(mask)) <= set(range(len(CLASSES)))
        movers = np.isin(mask, (CAR, PEDESTRIAN, BICYCLIST))
        changed = (image != empty).any(axis=2)
        post = changed & ~movers
        assert set(np.unique(mask[post])) <= {2}  # all else that is drawn anew is the near lamp post
        assert changed[movers].mean() > 0.97  # a pixel may have the background's colour by chance
        boxes = detections.boxes.astype(int)
        assert np.array_equal(boxes, detections.boxes)
        for (x0, y0, x1, y1), class_id in zip(boxes, detections.class_ids, strict=True):
            assert 0 <= x0 < x1 <= 640
            assert 0 <= y0 < y1 <= 360
            inside = mask[y0:y1, x0:x1] == class_id
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()
        # Every pixel of a class lies in a box of that class, but for objects almost hidden or out of view.
        for class_id in (CAR, PEDESTRIAN, BICYCLIST):
            covered = np.zeros(mask.shape, bool)
            for x0, y0, x1, y1 in boxes[detections.class_ids == class_id]:
                covered[y0:y1, x0:x1] = True
            assert ((mask == class_id) & ~covered).sum() < 400


def test_boxes_agree_with_connected_components_where_nothing_overlaps():
    source = street(seed=1)
    agreed = 0
    for index in range(0, 300, 15):
        detections, mask = source.truth(index)
        for class_id in (CAR, PEDESTRIAN):
            binary = (mask == class_id).astype(np.uint8)
            _, _, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=8)
            found = {(x, y, x + w, y + h) for x, y, w, h, area in stats[1:].tolist() if area > 50}
            for box in detections.boxes[detections.class_ids == class_id]:
                agreed += tuple(int(v) for v in box) in found
    assert agreed > 60


def test_all_classes_appear():
    seen = set()
    for seed in range(3):
        source = street(seed=seed)
        for index in range(0, 300, 30):
            seen |= set(np.unique(source.truth(index)[1]).tolist())
    assert seen == set(range(len(CLASSES)))


def test_tracks_follow_objects():
    source = street(seed=0)
    before = None
    for index in range(60):
        detections, _ = source.truth(index)
        assert len(set(detections.track_ids.tolist())) == len(detections)
        now = dict(zip(detections.track_ids.tolist(), detections.boxes, strict=True))
        if before is not None:
            for track, box in now.items():
                inner = box[0] > 40 and box[2] < 600
                if track in before and inner:
                    # Boxes are of what shows, so they may shrink behind others; but nobody leaps.
                    assert min(abs(box[0] - before[track][0]), abs(box[2] - before[track][2])) < 25
        before = now
    assert before


def test_things_move():
    source = street()
    assert (source.image(0) != source.image(15)).any(axis=2).mean() > 0.01


@pytest.mark.parametrize("size", ["1x1", "1x40", "40x1", "3x5", "33x17", "641x359", "3840x2160"])
def test_any_size(size):
    with open_source(f"synthetic:?size={size}&frames=2") as source:
        frames = list(source)
        assert f"{frames[0].image.shape[1]}x{frames[0].image.shape[0]}" == size
        detections, mask = source.truth(1)
    assert mask.shape == frames[1].image.shape[:2]
    assert len(detections.boxes) == len(detections.scores)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("sise=3x3", "did you mean 'size'"),
        ("size=3", "write size like"),
        ("size=0x5", "1x1 to 8192x8192"),
        ("fps=0", "fps must"),
        ("fps=1/0", "write size like"),
        ("fps=1e9999999999", "write size like"),  # a number that no memory holds
        ("frames=-1", "at least 0"),
        ("live=2", "0 or 1"),
        ("hello", "unknown parameter"),
    ],
)
def test_bad_parameters(query, reason):
    with pytest.raises(UsageError, match=reason):
        open_source(f"synthetic:?{query}")


def test_live_drops_what_nobody_takes():
    with open_source("synthetic:?size=32x32&fps=200&live=1&frames=60") as source:
        assert source.info.live
        taken = [next(source)]
        wait_for(lambda: source.dropped > 10)
        taken.extend(source)
        assert len(taken) + source.dropped == 60


def test_memory_is_flat():
    import gc

    import psutil

    process = psutil.Process()
    with open_source("synthetic:?size=160x90&frames=6000") as source:
        for _ in range(500):
            next(source)
        gc.collect()
        before = process.memory_info().rss
        assert sum(1 for _ in source) == 5500
    assert process.memory_info().rss - before < 5e6
