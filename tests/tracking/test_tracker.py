"""The tracker: identities stay, whatever the frame rate; only what lasts comes out; memory stays as it is."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.linalg import expm

from perception.card import TrackingSettings
from perception.tracking import motion
from perception.tracking.tracker import Tracker
from perception.types import Detections
from tests.tracking.scenes import Thing, detections, follow, identities, straight

RATES = [5.0, 12.5, 15.0, 30.0, 60.0]
SETTINGS = TrackingSettings()


def clock(rate: float, seconds: float, begin: float = 0.0, jitter: float = 0.0, seed: int = 0) -> np.ndarray:
    times = begin + np.arange(round(rate * seconds)) / rate
    return times + np.random.default_rng(seed).uniform(0, jitter / rate, len(times)) if jitter else times


def lanes(count: int, speed: float = 90.0) -> list[Thing]:
    """Things side by side that go in alternate directions."""
    return [
        Thing(straight(100.0 if i % 2 else 900.0, 100.0 + 150 * i, speed if i % 2 else -speed, 0)) for i in range(count)
    ]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("seed", range(3))
def test_one_identity_each_at_any_rate(rate: float, seed: int) -> None:
    things = lanes(6)
    times = clock(rate, 4, begin=1e5 * seed, jitter=0.4, seed=seed)
    things = [Thing(lambda t, p=thing.place: p(t - 1e5 * seed)) for thing in things]  # type: ignore[misc]
    known = follow(Tracker(), things, times, seed, jitter=0.02)
    for seen in known.values():
        assert len(identities(seen)) == 1
        assert len(seen) >= len(times) - 1
    assert sorted(identities(seen)[0] for seen in known.values()) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("rate", RATES)
def test_found_again_within_memory_and_not_after(rate: float) -> None:
    short = Thing(straight(100, 100, 60, 0), hidden=(1.6, 1.6 + 0.7 * SETTINGS.memory_s))
    long = Thing(straight(100, 400, 60, 0), hidden=(1.6, 2.1 + SETTINGS.memory_s))
    known = follow(Tracker(), [short, long], clock(rate, 6))
    assert len(identities(known[0])) == 1
    assert len(identities(known[1])) == 2


@pytest.mark.parametrize("rate", [12.5, 30.0])
def test_two_that_cross_keep_their_identities(rate: float) -> None:
    # one walks behind the other and is not seen meanwhile
    front = Thing(straight(100, 300, 150, 0), size=(60, 130))
    behind = Thing(straight(700, 310, -150, 0), size=(56, 120), hidden=(1.85, 2.15))
    known = follow(Tracker(), [front, behind], clock(rate, 4), jitter=0.01)
    assert [len(identities(seen)) for seen in known.values()] == [1, 1]
    assert identities(known[0]) != identities(known[1])


@pytest.mark.parametrize("rate", [5.0, 30.0])
def test_only_what_lasts_comes_out(rate: float) -> None:
    weak = (SETTINGS.start_score + SETTINGS.sure_score) / 2
    blink = Thing(straight(200, 200, 0, 0), begin=1.0, end=1.0 + 0.5 / rate, score=weak)
    faint = Thing(straight(500, 200, 0, 0), score=SETTINGS.start_score - 0.05)
    lasting = Thing(straight(800, 200, 0, 0), score=weak)
    sure = Thing(straight(1100, 200, 0, 0), score=SETTINGS.sure_score + 0.05)
    times = clock(rate, 3)
    known = follow(Tracker(), [blink, faint, lasting, sure], times)
    assert known[0] == [] and known[1] == []
    first = known[2][0][0]
    assert SETTINGS.confirm_s <= first + 1e-9 < SETTINGS.confirm_s + 2 / rate
    assert len(known[3]) == len(times)


@pytest.mark.parametrize("rate", RATES)
def test_boxes_of_low_score_keep_a_track_and_begin_none(rate: float) -> None:
    low = (SETTINGS.low_score + SETTINGS.start_score) / 2
    tracker = Tracker()
    ids = []
    for time in clock(rate, 6).tolist():
        score = 0.9 if time < 2 else low
        box = [100 + 40 * time, 100, 160 + 40 * time, 220]
        other = [600.0, 100, 660, 220]
        tracked = tracker.update(detections([box, other], [score, low], [0, 0]), time)
        assert tracked.track_ids is not None and len(tracked) == 1
        ids += tracked.track_ids.tolist()
    assert set(ids) == {1}


def test_class_and_score_are_steady_along_a_track() -> None:
    rng = np.random.default_rng(0)
    tracker = Tracker(classes=3)
    for frame in range(150):
        car = rng.random() < 0.7
        score = 0.9 if frame % 2 else 0.5
        found = detections([[100 + 3 * frame, 100, 220 + 3 * frame, 180]], [score], [1 if car else 2])
        tracked = tracker.update(found, frame / 30)
        if frame > 15:
            assert tracked.class_ids.tolist() == [1]
            assert 0.6 < tracked.scores[0] < 0.8
            assert tracked.track_ids is not None and tracked.track_ids.tolist() == [1]


def test_the_class_changes_where_the_votes_do() -> None:
    tracker = Tracker(classes=2)
    classes = []
    for frame in range(300):
        found = detections([[100, 100, 200, 180]], [0.9], [0 if frame < 100 else 1])
        classes.append(tracker.update(found, frame / 30).class_ids.tolist())
    assert classes[99] == [0] and classes[-1] == [1]


def test_a_second_class_on_the_same_thing_begins_no_track() -> None:
    tracker = Tracker(classes=2)
    for frame in range(60):
        x = 100 + 2 * frame
        found = detections([[x, 100, x + 100, 180], [x + 2, 101, x + 99, 181]], [0.9, 0.8], [0, 1])
        assert len(tracker.update(found, frame / 30)) == 1
    # while a rider on a bicycle are two
    tracker = Tracker(classes=2)
    for frame in range(60):
        x = 100 + 2 * frame
        found = detections([[x, 100, x + 50, 200], [x - 20, 140, x + 70, 220]], [0.9, 0.8], [0, 1])
        tracked = tracker.update(found, frame / 30)
        assert sorted(tracked.class_ids.tolist()) == [0, 1]
        assert tracked.track_ids is not None and sorted(tracked.track_ids.tolist()) == [1, 2]


def test_a_clock_that_stands_still_goes_back_or_is_none_loses_nobody() -> None:
    tracker = Tracker()
    times = [i / 30 for i in range(30)]
    times[10] = times[9]
    times[15] = -1e6
    times[16] = 5e9
    times[20] = float("nan")
    for frame, time in enumerate(times):
        found = detections([[100 + 2 * frame, 100, 160 + 2 * frame, 220]], [0.9], [0])
        tracked = tracker.update(found, time)
        assert np.isfinite(tracked.boxes).all()
        if frame != 16:  # a leap of centuries forgets everybody, which is right
            assert len(tracked) == 1


def test_bad_boxes_begin_nothing_and_break_nothing() -> None:
    tracker = Tracker()
    good = [100.0, 100, 160, 220]
    bad = [[50.0, 50, 50, 90], [50, 50, 40, 20], [float("nan"), 0, 50, 50], [0, 0, float("inf"), 50]]
    for frame in range(20):
        tracked = tracker.update(detections([good, *bad], [0.9, 0.8, 0.8, 0.8, 0.8], [0] * 5), frame / 30)
        assert tracked.track_ids is not None and tracked.track_ids.tolist() == [1]
        assert np.allclose(tracked.boxes, good, atol=0.5)
    assert len(tracker.update(Detections.empty(), 1.0)) == 0
    with pytest.raises(ValueError, match=r"0\.\.0"):
        tracker.update(detections([good], [0.9], [1]), 1.1)


def test_boxes_stay_in_the_frame_and_trails_lead_to_them() -> None:
    tracker = Tracker()
    for frame in range(90):
        x = 600 + 3 * frame
        found = detections([[x - 40, 280, min(x + 40, 800), 400]], [0.9], [0])
        tracked = tracker.update(found, frame / 30, (800, 400))
        assert (tracked.boxes >= 0).all() and (tracked.boxes <= [800, 400, 800, 400]).all()
        if len(tracked) and frame > 2:
            trail = tracker.trails[1]
            assert trail.dtype == np.float32 and trail.shape[1] == 2 and len(trail) <= 16
            assert (np.diff(trail[:, 0]) > 0).all()
            assert abs(trail[-1, 0] - tracked.boxes[0, [0, 2]].mean()) < 1 or tracked.boxes[0, 2] == 800
    tracker.update(Detections.empty(), 3.1)
    assert tracker.trails == {}


def test_boxes_go_beyond_the_frame_only_where_the_detector_says_so() -> None:
    tracker = Tracker()
    for frame in range(30):
        found = detections([[-30, 50, 60, 500], [700, 50, 790, 390]], [0.9, 0.8], [0, 0])
        tracked = tracker.update(found, frame / 30, (800, 400))
    assert np.allclose(tracked.boxes, found.boxes, atol=0.5)


def test_memory_is_flat_and_identities_are_never_given_again() -> None:
    rng = np.random.default_rng(0)
    tracker = Tracker()
    seen: set[int] = set()
    greatest = 0

    def churn(first: int, count: int) -> None:
        nonlocal greatest
        for frame in range(first, first + count):
            corners = rng.uniform(0, 1800, (12, 2))
            boxes = np.concatenate([corners, corners + rng.uniform(20, 90, (12, 2))], axis=1)
            tracked = tracker.update(detections(boxes.tolist(), [0.95] * 12, [0] * 12), frame / 30)
            assert tracked.track_ids is not None
            new = [i for i in tracked.track_ids.tolist() if i > greatest]
            assert not seen & set(new)
            greatest = max([greatest, *new])

    churn(0, 600)
    tracemalloc.start()
    churn(600, 300)
    before = tracemalloc.get_traced_memory()[0]
    churn(900, 3000)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert greatest > 10_000
    assert after - before < 50_000


def test_more_things_than_there_is_room_for() -> None:
    grid = np.stack(np.meshgrid(np.arange(80), np.arange(60)), axis=-1).reshape(-1, 2) * 20.0
    boxes = np.concatenate([grid, grid + 10], axis=1)
    tracker = Tracker()
    for frame in range(3):
        tracked = tracker.update(detections(boxes.tolist(), [0.9] * len(boxes), [0] * len(boxes)), frame / 30)
        assert tracked.track_ids is not None and len(set(tracked.track_ids.tolist())) == 4096


def test_the_filter_is_that_of_its_equations() -> None:
    """Against a Kalman filter in matrices, whose noise is integrated by a matrix exponential (Van Loan, 1978)."""
    rng = np.random.default_rng(4)
    settings = TrackingSettings(sure_score=0, overlap=0, memory_s=60)
    tracker = Tracker(settings)
    state, variance = np.zeros((4, 2)), np.zeros((4, 2, 2))
    time, last = 0.0, 0.0
    for frame in range(60):
        time += float(rng.uniform(0.01, 0.09))
        w, h = 60 + 5 * np.sin(time), 120 + 9 * np.cos(2 * time)
        seen = np.array([300 + 80 * time + rng.normal(0, 2), 200 - 30 * time + rng.normal(0, 2), w, h])
        box = np.concatenate([seen[:2] - seen[2:] / 2, seen[:2] + seen[2:] / 2]).astype(np.float32)
        seen = np.concatenate([(box[:2] + box[2:]) / 2, box[2:] - box[:2]]).astype(np.float64)
        if frame == 0:
            state[:, 0] = seen
            for a in range(4):
                speed = motion.START_SPEED if a < 2 else motion.START_SIZE_SPEED
                variance[a] = np.diag([(0.5 if a < 2 else 2) * (settings.jitter * seen[2 + a % 2]) ** 2,
                                       speed**2 * seen[2] * seen[3]])  # fmt: skip
        else:
            sides = state[2:, 0].copy()
            for a in range(4):
                fade, push = (motion.FADE_S, motion.PUSH) if a < 2 else (motion.SIZE_FADE_S, motion.SIZE_PUSH)
                flow = np.array([[0, 1], [0, -1 / fade]])
                noise = np.diag([0, push**2 * sides[0] * sides[1]])
                block = expm(np.block([[-flow, noise], [np.zeros((2, 2)), flow.T]]) * (time - last))
                move = block[2:, 2:].T
                state[a] = move @ state[a]
                variance[a] = move @ variance[a] @ move.T + move @ block[:2, 2:]
            for a in range(4):
                known = (0.5 if a < 2 else 2) * (settings.jitter * state[2 + a % 2, 0]) ** 2
                gain = variance[a][:, 0] / (variance[a][0, 0] + known)
                state[a] = state[a] + gain * (seen[a] - state[a, 0])
                variance[a] = variance[a] - np.outer(gain, variance[a][0])
        last = time
        tracked = tracker.update(detections([box.tolist()], [0.9], [0]), time)
        expected = np.concatenate([state[:2, 0] - state[2:, 0] / 2, state[:2, 0] + state[2:, 0] / 2])
        np.testing.assert_allclose(tracked.boxes[0], expected, atol=2e-3)


def test_empty_frames_between_change_nothing() -> None:
    """What is guessed for a track depends on the time that passed and not on how many frames were looked at."""
    results = []
    for between in (0, 1, 5):
        tracker = Tracker()
        for frame in range(20):
            tracker.update(detections([[100 + 3 * frame, 100, 160 + 3 * frame, 220]], [0.9], [0]), frame / 30)
        for k in range(between):
            tracker.update(Detections.empty(), 19 / 30 + 0.09 * (k + 1) / (between + 1))
        tracked = tracker.update(detections([[165, 103, 226, 222]], [0.9], [0]), 19 / 30 + 0.09)
        assert tracked.track_ids is not None and tracked.track_ids.tolist() == [1]
        results.append(tracked.boxes[0])
    np.testing.assert_allclose(results[1], results[0], atol=1e-3)
    np.testing.assert_allclose(results[2], results[0], atol=1e-3)
