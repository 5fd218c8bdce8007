"""Lines: the counts are those that were built, at any rate and size, whatever flickers, is lost, or swaps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perception.types import Detections, Frame, Prediction
from tests.rules.scenes import RATES, SIZES, Walk, blank, counted, frames, line_rule, place_of, run, walk_over_line

WAYS = ("forward", "backward")
LENGTH = 0.5


def scene(seed: int, rate: float, size: tuple[int, int], missing: float, fastest: float = 1.5) -> None:
    rng = np.random.default_rng(seed)
    place = place_of(rng, LENGTH)
    rest = 1.8 if missing else 0.8
    walks = [walk_over_line(rng, LENGTH, lane, fastest, round_it=not missing, rest=rest) for lane in range(4)]
    events, numbers = run({"lines": [line_rule(place, LENGTH)]}, frames(walks, place, rate, size, rng, missing=missing))
    assert numbers["line"]["crossed"] == counted(walks, WAYS), (seed, rate, size)
    assert len(events) == sum(sum(walk.counts.values()) for walk in walks)
    for number, walk in enumerate(walks, 1):
        own = [event.direction for event in events if event.track_id == number]
        assert {way: own.count(way) for way in WAYS if way in own} == walk.counts


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rate", RATES)
def test_counts_are_those_that_were_built(rate: float, size: tuple[int, int]) -> None:
    for seed in range(12):
        scene(seed, rate, size, missing=0.0)


@pytest.mark.parametrize("rate", RATES)
def test_lost_and_found_again_on_the_way_is_counted_once(rate: float) -> None:
    for seed in range(100, 112):
        scene(seed, rate, SIZES[0], missing=0.25, fastest=0.4)


@pytest.mark.slow
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("missing", [0.0, 0.25])
def test_many_seeds(rate: float, missing: float) -> None:
    for seed in range(1000, 1100):
        scene(seed, rate, SIZES[seed % 2], missing, fastest=0.4 if missing else 1.5)


@pytest.mark.parametrize("rate", RATES)
def test_two_that_swap_identities_change_no_count(rate: float) -> None:
    """At ten moments two that are apart change identities, as of a tracker that mistakes them."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        place = place_of(rng, LENGTH)
        walks = [walk_over_line(rng, LENGTH, lane, 0.12, acts=4) for lane in range(4)]
        for walk in walks:
            walk.class_id = 0
        predictions = frames(walks, place, rate, SIZES[0], rng)
        names = {i + 1: i + 1 for i in range(len(walks))}
        moments = set(rng.choice(np.arange(5, len(predictions) - 5), 10, replace=False).tolist())
        mixed = []
        for k, prediction in enumerate(predictions):
            found = prediction.detections
            assert found is not None and found.track_ids is not None
            if k in moments and len(found) > 1:
                one, other = apart(found, predictions[k - 1].detections)
                if one:
                    names[one], names[other] = names[other], names[one]
            mixed.append(renamed(prediction, names))
        events, numbers = run({"lines": [line_rule(place, LENGTH)]}, mixed)
        assert numbers["line"]["crossed"] == counted(walks, WAYS), (seed, rate)
        assert len(events) == sum(sum(walk.counts.values()) for walk in walks)


def apart(found: Detections, before: Detections | None) -> tuple[int, int]:
    """Two tracks that are there in both frames, not close to each other, and about where they were; or none."""
    assert found.track_ids is not None and before is not None and before.track_ids is not None
    places = {int(t): (b[:2] + b[2:]) / 2 / 360 for t, b in zip(found.track_ids, found.boxes, strict=True)}
    known = set(before.track_ids.tolist())
    ids = [t for t in places if t in known]
    pairs = [(a, b) for a in ids for b in ids if a < b and np.abs(places[a] - places[b]).sum() > 0.12]
    return pairs[0] if pairs else (0, 0)


def renamed(prediction: Prediction, names: dict[int, int]) -> Prediction:
    found = prediction.detections
    assert found is not None and found.track_ids is not None
    ids = np.array([names[i] for i in found.track_ids.tolist()], np.int64)
    return replace(prediction, detections=replace(found, track_ids=ids))


def straight(
    rate: float, ways: list[tuple[float, float, float, float]], size: tuple[int, int] = SIZES[0]
) -> list[Prediction]:
    """Boxes of 0.06 x 0.08 whose bottom centres go from (x0, y0) to (x1, y1), relative to the frame, in 2 s."""
    predictions = []
    for k in range(round(2 * rate) + 1):
        part = k / (2 * rate)
        at = [(x0 + part * (x1 - x0), y0 + part * (y1 - y0)) for x0, y0, x1, y1 in ways]
        boxes = np.array([[x - 0.03, y - 0.08, x + 0.03, y] for x, y in at], np.float32)
        boxes = np.clip(boxes, 0, 1) * np.float32([*size, *size])
        # what has left the frame is not found any more
        there = np.flatnonzero((boxes[:, 2] - boxes[:, 0] > 2) & (boxes[:, 3] - boxes[:, 1] > 2))
        found = Detections(
            boxes[there],
            np.full(len(there), 0.9, np.float32),
            np.zeros(len(there), np.int32),
            there.astype(np.int64) + 1,
        )
        predictions.append(Prediction(Frame(blank(size), index=k, time=k / rate), found))
    for k in range(round(3 * rate)):
        empty = replace(Detections.empty(), track_ids=np.zeros(0, np.int64))
        predictions.append(Prediction(Frame(blank(size), time=2 + (k + 1) / rate), empty))
    return predictions


def upwards(y: float, **settings: object) -> dict[str, object]:
    return {"lines": [{"name": "line", "points": [[0.1, y], [0.9, y]], **settings}]}


@pytest.mark.parametrize("rate", RATES)
def test_a_jump_over_the_line_between_two_frames(rate: float) -> None:
    jumps = straight(rate, [(0.5, 0.9, 0.5, 0.2)])
    middle = round(rate)
    jumps = [p for k, p in enumerate(jumps) if k < 0.4 * middle or k > 1.6 * middle]  # nothing is seen near the line
    _, numbers = run(upwards(0.55), jumps)
    assert numbers["line"]["crossed"] == {"forward": {"car": 1}, "backward": {}}


@pytest.mark.parametrize("rate", RATES)
def test_directions_are_what_the_file_calls_them_and_never_the_same(rate: float) -> None:
    ways = [(0.3, 0.9, 0.3, 0.3), (0.5, 0.3, 0.5, 0.9), (0.7, 0.3, 0.7, 0.9)]
    events, numbers = run(upwards(0.6, directions=["up", "down"]), straight(rate, ways))
    assert numbers["line"]["crossed"] == {"up": {"car": 1}, "down": {"car": 2}}
    assert {(event.direction, event.track_id) for event in events} == {("up", 1), ("down", 2), ("down", 3)}
    assert sorted((event.direction, event.count) for event in events) == [("down", 1), ("down", 2), ("up", 1)]
    turned = {"lines": [{"name": "line", "points": [[0.9, 0.6], [0.1, 0.6]]}]}
    _, numbers = run(turned, straight(rate, ways))
    assert numbers["line"]["crossed"] == {"forward": {"car": 2}, "backward": {"car": 1}}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("place", [0.03, 0.97])
def test_a_line_at_the_edge_of_the_picture(rate: float, place: float) -> None:
    """Things come in and go out there at once, cut by the edge; each is counted in its direction."""
    points = [[place, 0.0], [place, 1.0]]
    rules = {"lines": [{"name": "line", "points": points, "anchor": "center"}]}
    beyond = 1.06 if place > 0.5 else -0.06
    ways = [(0.5, 0.3, beyond, 0.3), (beyond, 0.6, 0.5, 0.6), (0.6, 0.9, beyond, 0.9)]
    events, numbers = run(rules, straight(rate, ways))
    # to the right is "backward" over a line drawn downwards
    rightwards, leftwards = (2, 1) if place > 0.5 else (1, 2)
    got = {way: sum(counts.values()) for way, counts in numbers["line"]["crossed"].items()}
    assert got == {"forward": rightwards, "backward": leftwards}, events


@pytest.mark.parametrize("rate", RATES)
def test_a_clock_that_jumps_changes_no_count(rate: float) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        place = place_of(rng, LENGTH)
        walks = [walk_over_line(rng, LENGTH, lane, 0.4) for lane in range(4)]
        predictions = frames(walks, place, rate, SIZES[0], rng)
        moved, offset = [], 0.0
        jumps = rng.choice(np.arange(2, len(predictions)), 12, replace=False).tolist()
        for k, prediction in enumerate(predictions):
            if k in jumps:
                offset += float(rng.choice([-1e6, -3.0, -1 / rate, 3600.0, 1e9]))
            moved.append(replace(prediction, frame=prediction.frame.at(time=prediction.frame.time + offset)))
        nan = moved[len(moved) // 2]
        moved[len(moved) // 2] = replace(nan, frame=nan.frame.at(time=float("nan")))
        _, numbers = run({"lines": [line_rule(place, LENGTH)]}, moved)
        assert numbers["line"]["crossed"] == counted(walks, WAYS), seed


def test_a_source_that_reconnects_on_the_way() -> None:
    """With the same identity it is counted once; with a new one, which begins beyond the line, not; never twice."""
    for seconds, new, expected in ((0.8, False, 1), (0.8, True, 0), (30.0, True, 0)):
        predictions = straight(30, [(0.5, 0.9, 0.5, 0.1)])
        before, after = predictions[:25], predictions[36:61]
        after = [replace(p, frame=p.frame.at(time=p.frame.time + seconds)) for p in after]
        if new:
            after = [renamed(p, {1: 2}) for p in after]
        _, numbers = run(upwards(0.5), before + after)
        assert sum(numbers["line"]["crossed"]["forward"].values()) == expected
        assert numbers["line"]["crossed"]["backward"] == {}


def test_only_the_classes_that_are_named_and_the_anchor_that_is_chosen() -> None:
    predictions = straight(30, [(0.5, 0.9, 0.5, 0.505)])
    for anchor, crossed in (("bottom_center", 0), ("center", 1), ("top_center", 1)):
        _, numbers = run(upwards(0.5, anchor=anchor), predictions)
        assert sum(numbers["line"]["crossed"]["forward"].values()) == crossed, anchor
    _, numbers = run(upwards(0.6, classes=["truck"]), predictions)
    assert numbers["line"]["crossed"] == {"forward": {}, "backward": {}}
    _, numbers = run(upwards(0.6, classes=["truck", "car"]), predictions)
    assert numbers["line"]["crossed"] == {"forward": {"car": 1}, "backward": {}}


def test_hold_and_distance_are_what_the_file_says() -> None:
    walk = Walk(places=[(0.25, 0.1)]).stand(1).to(0.25, -0.1, 1.0).stand(0.5).to(0.25, 0.1, 1.0).stand(1)
    rng = np.random.default_rng(0)
    place = place_of(rng, LENGTH)
    predictions = frames([walk], place, 30, SIZES[0], rng)
    for settings, expected in (
        ({}, 2), ({"hold_s": 0.65}, 2), ({"hold_s": 0.8}, 0), ({"distance": 0.08}, 2), ({"distance": 0.12}, 0),
    ):  # fmt: skip
        events, _ = run({"lines": [line_rule(place, LENGTH, **settings)]}, predictions)
        assert len(events) == expected, settings
