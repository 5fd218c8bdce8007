"""Zones: who enters, stays, stands and leaves is what was built, at any rate and size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perception.rules.engine import RuleEngine
from perception.rules.settings import make_rules
from perception.rules.tracks import TracksAtRules
from perception.types import Detections, Frame, Prediction
from tests.rules.scenes import (
    CLASSES,
    LANE,
    RATES,
    SIZES,
    Walk,
    blank,
    card,
    counted,
    flicker,
    frames,
    place_of,
    relative,
    run,
)  # fmt: skip

WHATS = ("entered", "left")
SIDE, DEPTH = 0.4, 0.3
"""Of the zone: off 0 is its long edge at which things come and go, and it is on the side of ``off > 0``."""


def zone_rule(place: Any, depth: float = DEPTH, **settings: Any) -> dict[str, Any]:
    corners = np.array([[0.0, 0], [SIDE, 0], [SIDE, depth], [0, depth]])
    return {"zones": [{"name": "zone", "points": relative(place.map(corners)), **settings}]}


def walk_into_zone(rng: np.random.Generator, lane: int, fastest: float, rest: float, acts: int = 5) -> Walk:
    """Stand inside and outside of a zone's edge in turn, with flickering upon it in between."""
    inside = bool(rng.random() < 0.5)

    def off() -> float:
        return float(rng.uniform(0.05, 0.1)) * (1 if inside else -1)

    walk = Walk(int(rng.integers(len(CLASSES))), places=[((lane + 1) * LANE, off())])
    walk.stand(rest + rng.uniform(0, 0.7))
    if inside:
        walk.count("entered")
    for _ in range(acts):
        speed, along = float(rng.uniform(0.08, fastest)), (lane + 1) * LANE + float(rng.uniform(-0.02, 0.02))
        if rng.random() < 0.5:
            flicker(walk, rng, along, speed)
        if rng.random() < 0.7:
            inside = not inside
            walk.count("entered" if inside else "left")
        walk.to(along, off(), speed)
        walk.stand(rest + rng.uniform(0, 0.7))
    if inside:
        walk.count("left")  # for it is not seen again
    return walk


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("missing", [0.0, 0.25])
def test_visits_are_those_that_were_built(rate: float, size: tuple[int, int], missing: float) -> None:
    for seed in range(8):
        visits(seed, rate, size, missing)


@pytest.mark.slow
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("missing", [0.0, 0.25])
def test_many_seeds(rate: float, missing: float) -> None:
    for seed in range(1000, 1100):
        visits(seed, rate, SIZES[seed % 2], missing)


def visits(seed: int, rate: float, size: tuple[int, int], missing: float) -> None:
    rng = np.random.default_rng(seed)
    place = place_of(rng, SIDE, DEPTH)
    walks = [walk_into_zone(rng, lane, *((0.4, 1.8) if missing else (1.5, 0.8))) for lane in range(3)]
    predictions = frames(walks, place, rate, size, rng, missing=missing)
    events, numbers = run(zone_rule(place), predictions)
    expected = counted(walks, WHATS)
    assert {what: numbers["zone"][what] for what in WHATS} == expected, (seed, rate, size)
    assert numbers["zone"]["inside"] == 0 and numbers["zone"]["staying"] == {}
    for number, walk in enumerate(walks, 1):
        own = [event for event in events if event.track_id == number]
        assert [e.kind for e in own] == ["entered", "left"] * (len(own) // 2)
        assert walk.counts.get("entered", 0) == len(own) // 2


@pytest.mark.parametrize("rate", RATES)
def test_seconds_inside_are_those_that_were_walked(rate: float) -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        place = place_of(rng, SIDE, DEPTH)
        speed, stays = float(rng.uniform(0.2, 0.6)), float(rng.uniform(1, 3))
        walk = Walk(places=[(0.2, -0.1)]).stand(1).to(0.2, 0.08, speed).stand(stays).to(0.2, -0.1, speed).stand(1)
        events, _ = run(zone_rule(place), frames([walk], place, rate, SIZES[0], rng))
        assert [e.kind for e in events] == ["entered", "left"]
        assert events[0].duration is None and events[0].count == 1 and events[1].count == 0
        assert events[1].duration == pytest.approx(stays + 2 * 0.08 / speed, abs=1.5 / rate)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("depth", [0.004, 0.02, 0.05])
def test_who_jumps_over_a_thin_zone_was_in_it(rate: float, depth: float) -> None:
    rng = np.random.default_rng(round(rate))
    for speed in (0.3, 1.0, 3.0):
        place = place_of(rng, SIDE, depth)
        walk = Walk(places=[(0.2, -0.1)]).stand(2).to(0.2, depth + 0.1, speed).stand(2).to(0.2, -0.1, speed).stand(2)
        events, numbers = run(zone_rule(place, depth), frames([walk], place, rate, SIZES[0], rng, jitter=0.0003))
        assert numbers["zone"]["entered"] == numbers["zone"]["left"] == {"car": 2}, (speed, events)
        # and where it must have been there for a while, it still passed through
        _, numbers = run(zone_rule(place, depth, hold_s=1.0), frames([walk], place, rate, SIZES[0], rng, jitter=0.0003))
        assert numbers["zone"]["entered"] == {"car": 2}


@pytest.mark.parametrize("rate", RATES)
def test_loitering_is_told_once_a_visit(rate: float) -> None:
    rng = np.random.default_rng(1)
    place = place_of(rng, SIDE, DEPTH)
    walk = Walk(places=[(0.2, -0.1)]).stand(1)
    for stays in (4.0, 1.0, 5.0):
        walk.to(0.2, 0.1, 0.4).stand(stays).to(0.2, -0.1, 0.4).stand(1)
    events, _ = run(zone_rule(place, loitering_s=3), frames([walk], place, rate, SIZES[0], rng))
    kinds = [e.kind for e in events]
    assert kinds == ["entered", "loitering", "left", "entered", "left", "entered", "loitering", "left"]
    for event in events:
        if event.kind == "loitering":
            assert event.duration is not None and 3 <= event.duration < 3 + 1.5 / rate


@pytest.mark.parametrize("rate", RATES)
def test_parked_and_moved(rate: float) -> None:
    """Who trembles where it stands is parked; who creeps on is not; who moves on says how long it stood."""
    rng = np.random.default_rng(2)
    place = place_of(rng, SIDE, DEPTH)
    walk = Walk(places=[(0.1, -0.1)]).stand(1).to(0.1, 0.1, 0.4).stand(6).to(0.3, 0.1, 0.2).stand(1.5)
    creeps = Walk(places=[(0.05, 0.2)]).to(0.35, 0.2, 0.04).stand(0.5)
    events, _ = run(zone_rule(place, parked_s=2), frames([walk, creeps], place, rate, SIZES[0], rng, jitter=0.002))
    own = [(e.kind, e.duration) for e in events if e.track_id == 1]
    assert [kind for kind, _ in own] == ["entered", "parked", "moved", "left"]
    assert own[1][1] == pytest.approx(2, abs=0.4) and own[2][1] == pytest.approx(6, abs=0.6)
    assert [e.kind for e in events if e.track_id == 2] == ["entered", "left"]


def test_a_class_that_is_wanted_late_enters_late() -> None:
    rng = np.random.default_rng(3)
    place = place_of(rng, SIDE, DEPTH)
    walk = Walk(places=[(0.2, 0.1)]).stand(4)
    predictions = frames([walk], place, 30, SIZES[0], rng)
    for k, prediction in enumerate(predictions):
        found = prediction.detections
        assert found is not None
        ids = np.full(len(found), 1 if 60 <= k < 90 else 0, np.int32)
        predictions[k] = replace(prediction, detections=replace(found, class_ids=ids))
    events, numbers = run(zone_rule(place, classes="truck"), predictions)
    assert next((e.kind, e.frame, e.class_name) for e in events) == ("entered", 60, "truck")
    assert [e.kind for e in events] == ["entered", "left"]
    assert numbers["zone"]["inside"] == 0
    events, _ = run(zone_rule(place, classes=["person"]), predictions)
    assert events == []


def test_polygons_of_any_shape_agree_with_a_picture_of_them() -> None:
    """A path of small steps through random stars, against the pixels that OpenCV fills."""
    import cv2

    for seed in range(12):
        rng = np.random.default_rng(seed)
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        if np.diff(angles, append=angles[0] + 2 * np.pi).max() > 2.5:
            continue
        radii = rng.uniform(0.15, 0.42, 9)
        points = np.stack([0.5 + radii * np.cos(angles) * 9 / 16, 0.5 + radii * np.sin(angles)], axis=1)
        filled = np.zeros((1080, 1920), np.uint8)
        cv2.fillPoly(filled, [np.rint(points * [1920, 1080]).astype(np.int32)], [1])
        rules = make_rules({"zones": [{"name": "z", "points": points.tolist(), "hold_s": 0, "distance": 0}]})
        tracks = TracksAtRules((), rules.zones, CLASSES)
        ways = rng.uniform([0.2, 0.05], [0.8, 0.95], (40, 2))
        near = cv2.morphologyEx(filled, cv2.MORPH_GRADIENT, np.ones((9, 9), np.uint8))
        wrong = right = 0
        for k, (x, y) in enumerate(ways * [1920, 1080]):
            box = np.array([[x - 4, y - 8, x + 4, y]], np.float32)
            found = Detections(box, np.ones(1, np.float32), np.zeros(1, np.int32), np.array([7], np.int64))
            tracks.update(found, k / 2, 0.5, 1920, 1080)
            inside = bool(tracks.staying(k / 2)[0])
            if not near[int(y), int(x)]:
                wrong += inside != bool(filled[int(y), int(x)])
                right += 1
        assert wrong == 0 and right > 20, seed


def test_memory_is_flat_and_what_is_gone_has_left() -> None:
    import tracemalloc

    engine = RuleEngine(
        make_rules({"zones": [{"name": "z", "points": [[0, 0], [1, 0], [1, 1], [0, 1]], "distance": 0}]}), card()
    )
    rng = np.random.default_rng(0)
    numbers: Any = {}

    def churn(first: int, count: int) -> None:
        nonlocal numbers
        for k in range(first, first + count):
            corners = rng.uniform(0.1, 0.7, (8, 2)) * [640, 360]
            boxes = np.concatenate([corners, corners + 20], axis=1).astype(np.float32)
            ids = np.arange(8, dtype=np.int64) + 8 * (k // 10)
            found = Detections(boxes, np.full(8, 0.9, np.float32), np.zeros(8, np.int32), ids + 1)
            _, readings = engine.update(Prediction(Frame(blank((640, 360)), index=k, time=k / 30), found))
            numbers = readings[0].numbers

    churn(0, 200)
    tracemalloc.start()
    churn(200, 100)
    before = tracemalloc.get_traced_memory()[0]
    churn(300, 900)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert numbers["entered"]["car"] > 900
    assert numbers["inside"] == numbers["entered"]["car"] - numbers["left"]["car"] <= 8 * 8
    assert after - before < 50_000


def test_a_picture_of_another_shape_ends_what_was_known() -> None:
    rules = make_rules({"zones": [{"name": "z", "points": [[0.2, 0.2], [0.8, 0.2], [0.8, 0.8], [0.2, 0.8]]}]})
    engine = RuleEngine(rules, card())
    kinds = []
    for k in range(60):
        size = (640, 360) if k < 30 else (360, 640)
        box = np.array([[0.45, 0.4, 0.55, 0.5]], np.float32) * np.float32([*size, *size])
        found = Detections(box, np.ones(1, np.float32), np.zeros(1, np.int32), np.array([1], np.int64))
        events, _ = engine.update(Prediction(Frame(blank(size), index=k, time=k / 30), found))
        kinds += [event.kind for event in events]
    assert kinds == ["entered", "left", "entered"]


def test_pictures_that_are_far_apart_have_their_own_time() -> None:
    """A frame every 30 s is no clock that jumps, but an hour between two of them is."""
    rules = make_rules({"zones": [{"name": "z", "points": [[0, 0], [1, 0], [1, 1], [0, 1]], "loitering_s": 100}]})
    engine = RuleEngine(rules, card())
    events = []
    times = [30.0 * k for k in range(6)] + [30.0 * k + 3600 for k in range(6, 9)]
    stays = []
    for k, time in enumerate(times):
        box = np.array([[300, 100, 340, 200]], np.float32)
        found = Detections(box, np.ones(1, np.float32), np.zeros(1, np.int32), np.array([1], np.int64))
        new, readings = engine.update(Prediction(Frame(blank((640, 360)), index=k, time=time), found))
        events += [(event.kind, k) for event in new]
        stays += readings[0].numbers["staying"].values()
    assert events == [("entered", 1), ("loitering", 4)]
    assert stays[-1] == pytest.approx(30 * 8, abs=1)
