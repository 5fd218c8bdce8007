"""Matching class names."""

from __future__ import annotations

from pathlib import Path

import pytest

from perception.errors import UsageError
from perception.evaluation.classes import match_classes, read_synonyms

MODEL = ["car", "traffic light", "bus", "person"]


def test_names_match_but_for_case_and_dashes() -> None:
    match = match_classes(MODEL, ["Traffic_Light", "CAR", "tram", "per-son"])
    assert match.names == ["traffic light", "car"]
    assert match.of_model == {1: 0, 0: 1}
    assert match.of_data == {"Traffic_Light": 0, "CAR": 1}
    assert match.left_out == ["tram", "per-son"]


def test_an_exact_name_comes_before_one_that_differs_in_case() -> None:
    match = match_classes(["Car", "car"], ["car", "Car"])
    assert match.of_model == {1: 0, 0: 1}
    assert match_classes(["Car", "car"], ["CAR"]).of_model == {0: 0}


def test_synonyms_rename_join_and_leave_out() -> None:
    match = match_classes(
        MODEL, ["van", "lorry", "pedestrian", "rider", "bus"],
        {"van": ["car"], "lorry": ["car"], "pedestrian": ["person"], "rider": []},
    )  # fmt: skip
    assert match.names == ["car", "person", "bus"]
    assert match.of_data == {"van": 0, "lorry": 0, "pedestrian": 1, "bus": 2}
    assert match.left_out == ["rider"]
    several = match_classes(MODEL, ["vehicle", "Vehicles"], {"vehicle": ["bus", "car"], "Vehicles": ["car", "bus"]})
    assert several.names == ["vehicle/Vehicles"]
    assert several.of_model == {0: 0, 2: 0}


def test_synonyms_that_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="'car' cannot stand for two classes of the data set: vehicle and taxi"):
        match_classes(MODEL, ["vehicle", "taxi"], {"vehicle": ["car", "bus"], "taxi": ["car"]})
    with pytest.raises(UsageError, match="the data set has no class 'vam'; did you mean 'van'"):
        match_classes(MODEL, ["van"], {"vam": ["car"]})


def test_synonyms_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "names.yaml"
    path.write_text("van: car\nvehicle: [car, bus]\n7: person\nnothing:\n")
    assert read_synonyms(path) == {"van": ["car"], "vehicle": ["car", "bus"], "7": ["person"], "nothing": []}
    for text, message in (
        ("- car", "must map names in the data set"),
        ("van: {a: b}", "van: must be a name"),
        ("a: b: c", "not YAML"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=message):
            read_synonyms(path)
    with pytest.raises(UsageError, match=r"no\.yaml: cannot read"):
        read_synonyms(tmp_path / "no.yaml")
