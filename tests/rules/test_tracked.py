"""Rules behind the package's own tracker, on detections with faults: still the counts that were built."""

from __future__ import annotations

import numpy as np
import pytest

from perception.card import TrackingSettings
from perception.rules.engine import RuleEngine
from perception.rules.settings import make_rules
from perception.tracking.tracker import Tracker
from perception.types import Detections, Frame, Prediction
from tests.rules.scenes import CLASSES, SIZES, blank, card

WIDTH, HEIGHT = SIZES[0]
SECONDS = 14.0


def traffic(rng: np.random.Generator) -> list[tuple[float, float, float, int]]:
    """Cars in four lanes, two to the right and two to the left: when each comes, its lane's y, its speed, its class."""
    cars = []
    for lane in range(4):
        speed = float(rng.uniform(110, 170)) * (1 if lane < 2 else -1)
        time = float(rng.uniform(0.5, 1.5))
        while time < SECONDS - 6.5:  # the last one is out of the picture before the end
            cars.append((time, 110.0 + 75 * lane, speed, int(rng.integers(2))))
            time += float(rng.uniform(1.0, 2.0))
    return cars


def detections(cars: list[tuple[float, float, float, int]], time: float, rng: np.random.Generator) -> Detections:
    rows = []
    for begin, y, speed, class_id in cars:
        x = speed * (time - begin) if speed > 0 else WIDTH + speed * (time - begin)
        if time < begin or rng.random() < 0.08:
            continue
        edges = np.array([x - 40, y - 45, x + 40, y]) + rng.normal(0, 0.02, 4) * [80, 45, 80, 45]
        edges = np.clip(edges, 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
        if edges[2] - edges[0] > 8:
            rows.append((float(rng.uniform(0.55, 0.95)), edges, class_id))
    if rng.random() < 0.1:  # something that is not there
        x, y = rng.uniform(0, WIDTH - 50), rng.uniform(0, HEIGHT - 50)
        rows.append((0.45, np.array([x, y, x + 50, y + 40]), 0))
    rows.sort(key=lambda row: -row[0])
    return Detections(
        np.array([r[1] for r in rows], np.float32).reshape(-1, 4), np.array([r[0] for r in rows], np.float32),
        np.array([r[2] for r in rows], np.int32),
    )  # fmt: skip


@pytest.mark.parametrize("rate", [10.0, 15.0, 30.0])
def test_counts_behind_the_tracker(rate: float) -> None:
    rules = make_rules(
        {
            "lines": [
                {"name": "middle", "points": [[0.5, 0.0], [0.5, 1.0]], "directions": ["right", "left"]},
                {"name": "first", "points": [[0.1, 0.0], [0.1, 1.0]], "directions": ["right", "left"]},
                {"name": "last", "points": [[0.9, 0.0], [0.9, 1.0]], "directions": ["right", "left"]},
            ],
            "zones": [{"name": "zone", "points": [[0.3, 0.0], [0.7, 0.0], [0.7, 1.0], [0.3, 1.0]]}],
        }
    )
    for seed in range(6):
        rng = np.random.default_rng(seed)
        cars = traffic(rng)
        tracker, engine = Tracker(TrackingSettings.around(0.4), len(CLASSES)), RuleEngine(rules, card())
        for k in range(round(SECONDS * rate)):
            tracked = tracker.update(detections(cars, k / rate, rng), k / rate, SIZES[0])
            _, readings = engine.update(Prediction(Frame(blank(SIZES[0]), index=k, time=k / rate), tracked))
        numbers = {reading.name: reading.numbers for reading in readings}
        ways = {
            way: {
                name: n
                for name in CLASSES
                if (n := sum(CLASSES[c] == name and (s > 0) == right for _, _, s, c in cars))
            }
            for way, right in (("right", True), ("left", False))
        }
        for line in ("first", "middle", "last"):
            assert numbers[line]["crossed"] == ways, (seed, rate, line)
        both = {name: n for name in CLASSES if (n := sum(CLASSES[car[3]] == name for car in cars))}
        assert numbers["zone"]["entered"] == numbers["zone"]["left"] == both, (seed, rate)
