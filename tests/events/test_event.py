"""The event: its JSON, the JSON Schema of it, and what it refuses."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perception.events.event import KINDS, SCHEMA_FILE, Event, relative_box, seconds_of, utc

UNIT = st.floats(0, 1)
BOXES = st.tuples(UNIT, UNIT, UNIT, UNIT).map(lambda b: (min(b[:2]), min(b[2:]), max(b[:2]), max(b[2:])))
EVENTS = st.builds(
    Event,
    kind=st.sampled_from(KINDS) | st.from_regex(r"[a-z][a-z0-9_]*", fullmatch=True),
    source=st.text() | st.text(st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF, categories=["Cs"])),
    source_time=st.floats(allow_nan=False, allow_infinity=False),
    frame=st.none() | st.integers(0, 2**40),
    rule=st.text(),
    track_id=st.none() | st.integers(1, 2**62),
    class_name=st.none() | st.text(),
    score=st.none() | UNIT,
    box=st.none() | BOXES,
    direction=st.none() | st.text(),
    count=st.none() | st.integers(0, 2**40),
    value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    duration=st.none() | st.floats(0, 1e9),
    snapshot=st.none() | st.text(),
    clip=st.none() | st.text(),
    time=st.floats(0, 4e9).map(utc),
)  # fmt: skip


def schema() -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))


@given(EVENTS)
@settings(max_examples=200, deadline=None)
def test_json_is_of_the_schema_and_comes_back(event: Event) -> None:
    text = event.to_json()
    assert "\n" not in text
    schema().validate(json.loads(text))
    assert Event.from_json(text) == event
    assert Event.from_json(text.encode()) == event


def test_the_schema_has_the_fields_of_the_event() -> None:
    document = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    assert list(document["properties"]) == list(Event(kind="left", source="", source_time=0).to_dict())


def event(**changed: Any) -> Event:
    return Event(**{"kind": "crossed", "source": "yard", "source_time": 1.5, **changed})


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "Crossed"},
        {"kind": ""},
        {"kind": None},
        {"id": ""},
        {"schema": 2},
        {"source": None},
        {"rule": 3},
        {"source_time": float("nan")},
        {"value": float("inf")},
        {"count": -1},
        {"frame": -1},
        {"score": 1.01},
        {"score": -0.1},
        {"box": (0, 0, 640, 480)},
        {"box": (0.5, 0, 0.4, 1)},
        {"box": (0, float("nan"), 1, 1)},
        {"time": "2026-11-30T06:50:00"},
        {"time": "2026-11-30T06:50:00+01:00"},
        {"time": "yesterday Z"},
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        event(**wrong)
    told = json.dumps({**event().to_dict(), **wrong})
    with pytest.raises(ValueError):
        Event.from_json(told)


@pytest.mark.parametrize(
    "text", ["", "[]", "1", "{}", '{"schema": 1}', '{"schema": 1, "kind": "left", "box": 3}', "\xff"]
)
def test_what_is_no_event_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^no event: [^\n]+$"):
        Event.from_json(text)


def test_fields_of_a_later_version_are_left_out() -> None:
    later = {**event().to_dict(), "weather": "rain"}
    assert Event.from_json(json.dumps(later)).kind == "crossed"


def test_numbers_of_numpy_become_plain_ones() -> None:
    made = event(track_id=np.int64(7), score=np.float32(0.5), box=tuple(np.float32([0, 0, 0.5, 1])), count=np.int32(2))
    assert json.loads(made.to_json())["track_id"] == 7
    assert type(made.track_id) is int and type(made.score) is float and made.box == (0, 0, 0.5, 1)


def test_each_event_has_an_id_of_its_own() -> None:
    assert len({event().id for _ in range(10_000)}) == 10_000


@given(st.integers(0, 4 * 10**15))
@settings(deadline=None)
def test_utc_is_that_of_datetime(microseconds: int) -> None:
    text = utc(microseconds / 1e6)
    expected = datetime.fromtimestamp(microseconds / 1e6, timezone.utc)
    assert datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc) == expected
    assert abs(seconds_of(text) - microseconds / 1e6) < 1e-5


def test_boxes_are_cut_to_the_frame() -> None:
    assert relative_box(np.float32([-10, 12, 330, 240]), 320, 240) == (0, 0.05, 1, 1)
