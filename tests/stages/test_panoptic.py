"""Which boxes show which pixels, by names; and the step that splits them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perception.card import ModelCard, validate_card
from perception.common.settings import things
from perception.errors import UsageError
from perception.picture.letterbox import Letterbox
from perception.postprocess.class_maps import LogitsClassMap
from perception.stages.panoptic import PanopticStage
from perception.types import Detections, Frame, Prediction

PIXELS, BOXES = ["road", "car", "pedestrian"], ["car", "bus", "person"]


def make_card(**change: Any) -> ModelCard:
    data: dict[str, Any] = {
        "name": "street",
        "licence": "none",
        "input": {"width": 64, "height": 48},
        "segmentation": {"classes": PIXELS},
        "detection": {"classes": BOXES},
    }
    return validate_card({k: v for k, v in (data | change).items() if v is not None}, "test")


@pytest.mark.parametrize(
    ("in_card", "asked", "ids"),
    [
        (None, None, {1: [0]}),  # the name that both have
        ({"car": ["car", "bus"], "pedestrian": ["person"]}, None, {1: [0, 1], 2: [2]}),
        ({"car": ["car", "bus"]}, {"pedestrian": ["person"]}, {2: [2]}),  # what is asked for wins
        (None, {"car": ["bus"]}, {1: [1]}),
    ],
)
def test_names_become_ids(in_card: Any, asked: Any, ids: dict[int, list[int]]) -> None:
    assert PanopticStage(make_card(things=in_card), asked).things == ids


@pytest.mark.parametrize(
    ("change", "asked", "says"),
    [
        ({"detection": None}, None, "needs masks and boxes; street does segmentation only"),
        ({"segmentation": None}, None, "needs masks and boxes; street does detection only"),
        ({"detection": {"classes": ["bus"]}}, None, r"say which boxes belong to which pixels: `things=road=bus`"),
        ({}, {"cars": ["car"]}, "no pixels of 'cars'; did you mean 'car'"),
        ({}, {"car": ["buss"]}, "no boxes of 'buss'; did you mean 'bus'"),
    ],
)
def test_what_cannot_be_split_is_said_before_any_frame(change: Any, asked: Any, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        PanopticStage(make_card(**change), asked)
    assert "\n" not in str(caught.value)


def prediction() -> Prediction:
    logits = np.zeros((3, 48, 64), np.float32)
    logits[1, 10:30, 10:50] = 9
    class_map = LogitsClassMap(logits, Letterbox.fit(64, 48, 64, 48))
    boxes = np.array([[10, 10, 30, 30], [30, 10, 50, 30], [0, 0, 5, 5]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 1, 0], np.int32))
    return Prediction(Frame(np.zeros((48, 64, 3), np.uint8)), found, class_map, timings={"infer": 1.0})


def test_it_is_a_pure_step() -> None:
    given = prediction()
    made = PanopticStage(make_card(things={"car": ["car", "bus"]}))(given)
    assert given.panoptic is None and given.timings == {"infer": 1.0}
    assert set(made.timings) == {"infer", "panoptic"}
    assert made.class_map is given.class_map and made.detections is given.detections
    assert made.panoptic is not None
    assert [(s.class_id, s.box) for s in made.panoptic.segments] == [
        (1, (10, 10, 30, 30)),
        (1, (30, 10, 50, 30)),
        (0, (0, 0, 64, 48)),
    ]
    given = replace(given, detections=None)
    with pytest.raises(UsageError, match="masks and boxes"):
        PanopticStage(make_card())(given)


def test_things_are_read_from_text() -> None:
    assert things(None) is None and things("") is None
    assert things("car=car+bus, pedestrian = person") == {"car": ["car", "bus"], "pedestrian": ["person"]}


@pytest.mark.parametrize("text", ["car", "car=", "=bus", "car=bus+", "car=bus,,a=b", "car=car,car=bus"])
def test_things_that_are_no_things(text: str) -> None:
    with pytest.raises(UsageError, match=r"invalid things .*: write PIXELS=BOX\+BOX"):
        things(text)
