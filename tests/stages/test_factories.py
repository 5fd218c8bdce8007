"""Stages by name: what is found, what is made once for each source, and errors that say what is wrong."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

from perception.card import ModelCard
from perception.errors import UsageError
from perception.stages.factories import find_stage
from perception.stages.panoptic import PanopticStage
from perception.types import Frame, Prediction
from tests.drawing.test_annotator import make_card

NUMBER = itertools.count()
SOURCE = """
from dataclasses import replace

def slower(prediction):
    return replace(prediction, timings={**prediction.timings, "slower": 1.0})

class Counter:
    def __init__(self):
        self.seen = 0
    def __call__(self, prediction):
        self.seen += 1
        return replace(prediction, timings={"seen": self.seen})

class OfCard(Counter):
    def __init__(self, card, start=10):
        self.seen = start + len(card.detection.classes)

def made(card):
    return OfCard(card, 100)

def made_of_nothing(start=5):
    counter = Counter()
    counter.seen = start
    return counter

class Space:
    counter = Counter

ready = Counter()
text = "no function"

def two(prediction, other): ...
def named(prediction, *, other): ...
def empty(card): ...
class Fails:
    def __init__(self, card):
        raise RuntimeError("no weights")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder, of a name that nothing has imported yet."""
    name = f"stages_of_a_user_{next(NUMBER)}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    (tmp_path / f"{name}_broken.py").write_text("import not_there_at_all\n")
    (tmp_path / f"{name}_faulty.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name


def seen(card: ModelCard, text: str) -> list[dict[str, float]]:
    """The timings that two stages of one factory leave, the first one called twice, then the second one."""
    factory = find_stage(text)
    first, second = factory(card), factory(card)
    prediction = Prediction(Frame(np.zeros((4, 4, 3), np.uint8)))
    return [stage(prediction).timings for stage in (first, first, second)]


def test_functions_classes_and_what_makes_stages(module: str) -> None:
    card = make_card()
    assert seen(card, f"{module}:slower") == [{"slower": 1.0}] * 3
    assert seen(card, f"{module}:Counter") == [{"seen": 1}, {"seen": 2}, {"seen": 1}]  # each has its own state
    assert seen(card, f"{module}:Space.counter") == [{"seen": 1}, {"seen": 2}, {"seen": 1}]
    assert seen(card, f"{module}:OfCard") == [{"seen": 15}, {"seen": 16}, {"seen": 15}]
    assert seen(card, f"{module}:made") == [{"seen": 105}, {"seen": 106}, {"seen": 105}]
    assert seen(card, f"{module}:made_of_nothing") == [{"seen": 6}, {"seen": 7}, {"seen": 6}]
    assert seen(card, f"{module}:ready") == [{"seen": 1}, {"seen": 2}, {"seen": 3}]  # an object is one for all


def test_the_panoptic_view_by_its_name() -> None:
    stage = find_stage("panoptic")(make_card())
    assert isinstance(stage, PanopticStage)
    with pytest.raises(UsageError, match="the panoptic view needs masks and boxes"):
        find_stage("panoptic")(make_card(detection=None))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("panoptik", "did you mean 'panoptic'"),
        ("MODULE", "others are given as module:function"),
        (":slower", "others are given as module:function"),
        ("MODULE:", "others are given as module:function"),
        ("no_such_module_here:stage", "there is no module no_such_module_here"),
        ("MODULE:slowr", "has no slowr; did you mean 'slower'"),
        ("MODULE_broken:stage", "cannot be imported: No module named 'not_there_at_all'"),
        ("MODULE_faulty:stage", "cannot be imported: ZeroDivisionError"),
        ("MODULE:text", "must be a function or a class, not 'no function'"),
        ("MODULE:two", r"takes \(prediction, other\)"),
        ("MODULE:named", r"takes \(prediction, other\)"),
    ],
)
def test_what_cannot_be_found_is_said_in_one_line(module: str, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        find_stage(text.replace("MODULE", module))
    assert "\n" not in str(caught.value)


def test_what_cannot_be_made_is_said(module: str) -> None:
    with pytest.raises(UsageError, match="cannot be made: RuntimeError: no weights"):
        find_stage(f"{module}:Fails")(make_card())
    with pytest.raises(UsageError, match=r"must make a stage, .* not None"):
        find_stage(f"{module}:empty")(make_card())
