"""Rules that are changed while their source runs: what stays goes on counting, what comes counts from then on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perception.events.event import Event
from perception.rules.engine import RuleEngine
from perception.rules.settings import Rules, make_rules
from perception.types import Detections, Frame, Prediction
from tests.rules.scenes import RATES, SIZES, blank, card, counted, frames, line_rule, place_of, walk_over_line

WAYS = ("forward", "backward")
LENGTH = 0.5
OTHERS: list[dict[str, Any]] = [
    {},
    {"lines": [{"name": "other", "points": [[0.2, 0.1], [0.8, 0.9]]}]},
    {"zones": [{"name": "middle", "points": [[0.3, 0.3], [0.7, 0.3], [0.7, 0.7], [0.3, 0.7]], "loitering_s": 0.5}]},
    {"lines": [{"name": "other", "points": [[0.1, 0.5], [0.9, 0.5]]}, {"name": "third", "points": [[0, 0], [1, 1]]}]},
]


def run(changes: dict[int, Rules], predictions: list[Prediction]) -> tuple[list[Event], dict[str, Any]]:
    """Events and the last numbers, of an engine whose rules are replaced before some of the predictions."""
    engine = RuleEngine(changes[0], card())
    events: list[Event] = []
    readings: list[Any] = []
    for k, prediction in enumerate(predictions):
        if k in changes and k:
            engine = engine.changed(changes[k])
        new, readings = engine.update(prediction)
        events += new
    return events, {reading.name: reading.numbers for reading in readings}


@pytest.mark.parametrize("rate", RATES)
def test_a_line_counts_on_whatever_is_drawn_beside_it(rate: float) -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        place = place_of(rng, LENGTH)
        walks = [walk_over_line(rng, LENGTH, lane) for lane in range(4)]
        predictions = frames(walks, place, rate, SIZES[0], rng)
        line = make_rules({"lines": [line_rule(place, LENGTH)]})
        changes = {0: line}
        for k in rng.choice(np.arange(1, len(predictions)), 12, replace=False).tolist():
            others = make_rules(OTHERS[int(rng.integers(len(OTHERS)))], empty=True)
            changes[k] = line + others if rng.random() < 0.5 else others + line
        events, numbers = run(changes, predictions)
        assert numbers["line"]["crossed"] == counted(walks, WAYS), (seed, rate)
        assert sum(event.rule == "line" for event in events) == sum(sum(walk.counts.values()) for walk in walks)


@pytest.mark.parametrize("rate", RATES)
def test_a_line_that_is_drawn_later_counts_what_crosses_from_then_on(rate: float) -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        place = place_of(rng, LENGTH)
        walks = [walk_over_line(rng, LENGTH, lane) for lane in range(4)]
        predictions = frames(walks, place, rate, SIZES[0], rng)
        drawn = next(k for k, p in enumerate(predictions) if p.frame.time > 0.3)  # all stand clear of it for 0.8 s
        rule = make_rules({"lines": [line_rule(place, LENGTH)]})
        _, numbers = run({0: Rules(), drawn: rule}, predictions)
        assert numbers["line"]["crossed"] == counted(walks, WAYS), (seed, rate)


def standing(count: int, inside: range) -> list[Prediction]:
    """One box that stands at (0.5, 0.5) while ``inside``, and at (0.5, 0.2) before and after; 10 frames a second."""
    made = []
    for k in range(count):
        y = 0.5 if k in inside else 0.2
        box = np.array([[0.47, y - 0.08, 0.53, y]], np.float32) * np.float32([640, 360, 640, 360])
        found = Detections(box, np.float32([0.9]), np.zeros(1, np.int32), np.ones(1, np.int64))
        made.append(Prediction(Frame(blank(SIZES[0]), index=k, time=k / 10), found))
    return made


ZONE = {"name": "yard", "points": [[0.4, 0.35], [0.6, 0.35], [0.6, 0.65], [0.4, 0.65]], "loitering_s": 2.0}


def test_who_is_where_a_zone_is_drawn_enters_it_then() -> None:
    zone = make_rules({"zones": [ZONE]})
    events, numbers = run({0: Rules(), 40: zone}, standing(80, range(0, 80)))
    assert [event.kind for event in events] == ["entered", "loitering"]
    assert events[1].duration == pytest.approx(2.0, abs=0.15)  # since it is drawn
    assert numbers["yard"]["inside"] == 1 and numbers["yard"]["staying"]["1"] == pytest.approx(4.0, abs=0.15)


def test_who_stays_in_a_zone_stays_while_others_come_and_go() -> None:
    zone, line = make_rules({"zones": [ZONE]}), make_rules(OTHERS[1])
    changes = {0: zone, 30: zone + line, 35: line + zone, 60: zone}
    events, numbers = run(changes, standing(100, range(10, 80)))
    assert [event.kind for event in events if event.rule == "yard"] == ["entered", "loitering", "left"]
    assert events[-1].duration == pytest.approx(7.0, abs=0.25)
    assert numbers["yard"] == {"inside": 0, "entered": {"car": 1}, "left": {"car": 1}, "staying": {}}


def test_a_rule_that_is_moved_begins_anew() -> None:
    zone = make_rules({"zones": [ZONE]})
    moved = replace(zone, zones=(zone.zones[0].model_copy(update={"distance": 0.02}),))
    _, numbers = run({0: zone, 40: moved}, standing(50, range(10, 50)))
    assert numbers["yard"]["entered"] == {"car": 1} and numbers["yard"]["staying"]["1"] < 1.2


def test_rules_that_the_model_cannot_keep_are_told_by_name() -> None:
    rules = make_rules({"lines": [{"name": "a", "points": [[0, 0], [1, 1]], "classes": "kar"}], **OTHERS[2]})
    fit, faults = rules.fitting(card())
    assert [rule.name for rule in fit] == ["middle"]
    assert [(fault.rule, str(fault)) for fault in faults] == [
        ("a", "line 'a': boxes has no boxes of 'kar'; did you mean 'car'?")
    ]
