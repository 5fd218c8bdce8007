"""Conditions on pixels: what share is compared, and that it must hold for some time at any rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perception.card import ModelCard, validate_card
from perception.errors import UsageError
from perception.rules.conditions import count_standing
from perception.rules.engine import RuleEngine
from perception.rules.settings import make_rules
from perception.types import Frame, Prediction
from tests.rules.scenes import RATES
from tests.sinks.samples import class_map

ROAD, PERSON, SKY = range(3)


def card() -> ModelCard:
    data = {"name": "pixels", "licence": "none", "input": {"width": 64, "height": 48}}
    return validate_card({**data, "segmentation": {"classes": ["road", "person", "sky"]}}, "test")


def predict(mask: np.ndarray, time: float) -> Prediction:
    return Prediction(Frame(np.zeros((*mask.shape, 3), np.uint8), time=time, source="s"), class_map=class_map(mask))


def watch(rule: dict[str, Any], masks: list[np.ndarray], rate: float) -> tuple[list[Any], Any]:
    engine = RuleEngine(make_rules({"conditions": [{"name": "c", **rule}]}), card())
    events: list[Any] = []
    reading = None
    for k, mask in enumerate(masks):
        new, (reading,) = engine.update(predict(mask, k / rate))
        events += new
    return events, reading


def road(share: float) -> np.ndarray:
    mask = np.full((40, 50), SKY, np.uint8)
    mask[: round(40 * share)] = ROAD
    return mask


@pytest.mark.parametrize("rate", RATES)
def test_begins_and_ends_after_some_time_and_not_before(rate: float) -> None:
    seconds = [(1.0, 0.5), (1.5, 0.1), (1.0, 0.5), (4.0, 0.1), (1.5, 0.5), (2.0, 0.1), (4.0, 0.5)]
    masks = [road(share) for length, share in seconds for _ in range(round(length * rate))]
    events, reading = watch({"class": "road", "under": 0.3, "for_s": 2}, masks, rate)
    assert [e.kind for e in events] == ["condition_started", "condition_ended"]
    assert events[0].source_time == pytest.approx(3.5 + 2, abs=1.5 / rate) and events[0].duration is None
    # what is back for less than two seconds has not ended it
    assert events[1].duration == pytest.approx(4.0 + 1.5 + 2.0, abs=2 / rate)
    assert events[0].value == pytest.approx(0.1) and events[1].value == pytest.approx(0.5)
    assert reading.numbers == {"value": 0.5, "holds": False}


def test_a_part_of_the_frame() -> None:
    mask = road(0.5)
    mask[:20, 25:] = SKY
    left = [[0, 0], [0.5, 0], [0.5, 1], [0, 1]]
    for points, expected in ((left, 0.5), ([[0.5, 0], [1, 0], [1, 1], [0.5, 1]], 0.0), (None, 0.25)):
        rule = {"class": "road", "over": 0.9} | ({} if points is None else {"points": points})
        _, reading = watch(rule, [mask], 1)
        assert reading.numbers["value"] == pytest.approx(expected, abs=0.02), points


def test_what_stands_on_the_road_and_what_does_not() -> None:
    mask = np.full((40, 50), SKY, np.uint8)
    mask[30:] = ROAD
    mask[20:30, 5:10] = PERSON  # stands on it: 50 pixels
    mask[10:20, 20:25] = PERSON  # floats above
    mask[25:, 40:45] = PERSON  # leads out of the picture
    _, reading = watch({"class": "person", "on": "road", "over": 0.5}, [mask], 1)
    assert reading.numbers["value"] == pytest.approx(50 / 2000)


def test_counting_agrees_with_going_down_each_column() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        mask = rng.integers(0, 3, (9, 7)).astype(np.uint8)
        where = rng.integers(0, 2, (9, 7)).astype(np.uint8)
        for lower in (-1, ROAD, SKY):
            expected = 0
            for y, x in np.argwhere((mask == PERSON) & (where > 0)).tolist():
                below = [c for c in mask[y:, x].tolist() if c != PERSON]
                expected += lower < 0 or below[:1] == [lower]
            assert count_standing(mask, PERSON, lower, where) == (expected, int(where.sum()))


def test_a_prediction_without_pixels_is_told() -> None:
    engine = RuleEngine(make_rules({"conditions": [{"name": "c", "class": "road", "over": 0.1}]}, "r.yaml"), card())
    with pytest.raises(UsageError, match=r"r\.yaml: conditions need the class of each pixel"):
        engine.update(Prediction(Frame(np.zeros((4, 4, 3), np.uint8))))
