"""Lines: the counts are those that were built, at any rate and size, whatever flickers, is lost, or swaps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perception.types import Detections, Prediction
from tests.rules.scenes import RATES, SIZES, Walk, counted, frames, line_rule, place_of, run, walk_over_line

WAYS = ("forward", "backward")
LENGTH = 0.5


def scene(seed: int, rate: float, size: tuple[int, int], missing: float, fastest: float = 1.5) -> None:
    rng = np.random.default_rng(seed)
    place = place_of(rng, LENGTH)
    walks = [walk_over_line(rng, LENGTH, fastest) for _ in range(6)]
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
    for seed in range(1000, 1250):
        scene(seed, rate, SIZES[seed % 2], missing, fastest=0.4 if missing else 1.5)
