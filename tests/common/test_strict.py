"""What is said of faulty settings: all of it in one line, nothing that was given, and what may have been meant."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from perception.common.strict import Strict, faults_in


class Square(Strict):
    kind: Literal["square"]
    side: float = Field(gt=0)


class Circle(Strict):
    kind: Literal["circle"]
    radius: float = Field(gt=0)


class Drawing(Strict):
    title: str = ""
    shapes: list[Annotated[Square | Circle, Field(discriminator="kind")]] = Field(default=[])
    behind: Square | None = None

    @model_validator(mode="after")
    def _has_something(self) -> Drawing:
        if not (self.shapes or self.behind):
            raise ValueError("an empty drawing")
        return self


SQUARE = {"kind": "square", "side": 1}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({}, "drawing: an empty drawing"),
        ({"behind": {**SQUARE, "side": -1}}, "behind.side: Input should be greater than 0"),
        ({"tittle": "x", "behind": SQUARE}, "tittle: Extra inputs are not permitted; did you mean 'title'?"),
        (
            {"shapes": [{"kind": "circle", "radius": 1, "radios": 2}]},
            "shapes.0.circle.radios: Extra inputs are not permitted; did you mean 'radius'?",
        ),
        (
            {"shapes": [{**SQUARE, "sides": 2}]},
            "shapes.0.square.sides: Extra inputs are not permitted; did you mean 'side'?",
        ),
        (
            {"behind": {**SQUARE, "zzz": 2}},
            "behind.zzz: Extra inputs are not permitted; known are: kind, side",
        ),
        (
            {"title": 5, "behind": {"kind": "square"}},
            "title: Input should be a valid string; behind.side: Field required",
        ),
    ],
)
def test_all_faults_are_one_line(data: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Drawing.model_validate(data)
    assert faults_in(caught.value, "drawing", Drawing) == told


def test_without_a_kind_nothing_is_guessed_and_the_whole_needs_no_name() -> None:
    with pytest.raises(ValidationError) as caught:
        Drawing.model_validate({"tittle": "x", "behind": SQUARE})
    assert faults_in(caught.value) == "tittle: Extra inputs are not permitted"
    with pytest.raises(ValidationError) as caught:
        Drawing.model_validate({})
    assert faults_in(caught.value) == "an empty drawing"


def test_what_was_given_is_not_told() -> None:
    for data in ({"title": ["hunter2"]}, {"behind": {"kind": "square", "side": "hunter2"}}, {"behind": "hunter2"}):
        with pytest.raises(ValidationError) as caught:
            Drawing.model_validate(data)
        assert "hunter2" not in faults_in(caught.value, "drawing", Drawing)
