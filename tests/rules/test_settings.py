"""The rules file: what is wrong is said in one line, with the file and the rule; what is right is read as written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from perception.card import validate_card
from perception.errors import UsageError
from perception.rules.polygon import area, crossing_edges, thickness
from perception.rules.settings import make_rules, read_rules
from tests.rules.scenes import card

LINE = {"name": "gate", "points": [[0.1, 0.5], [0.9, 0.5]]}
ZONE = {"name": "yard", "points": [[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]}
CONDITION = {"name": "dry", "class": "road", "over": 0.2}

WRONG = [
    ({"lines": [{**LINE, "points": [[0.5, 0.5], [0.5, 0.5]]}]}, "line 'gate': points: .*no length"),
    ({"lines": [{**LINE, "points": [[0.5, 0.5]]}]}, "line 'gate': points: a line has 2 points, not 1"),
    ({"lines": [{**LINE, "points": [[64, 300], [1200, 300]]}]}, "line 'gate': points: 64 looks like pixels"),
    ({"lines": [{**LINE, "points": [[0.1, -0.2], [1, 1]]}]}, "-0.2 is outside of the frame"),
    ({"lines": [{**LINE, "points": [[0.1, 1.2], [1, 1]]}]}, "1.2 is outside of the frame"),
    ({"lines": [{**LINE, "points": "0.1,0.5"}]}, r"write points as \[x, y\]"),
    ({"lines": [{**LINE, "points": [["a", 0.5], [1, 1]]}]}, "a coordinate must be a number, not 'a'"),
    ({"lines": [{**LINE, "points": [[float("nan"), 0.5], [1, 1]]}]}, "a coordinate must be a number"),
    ({"lines": [{**LINE, "directions": ["in", "in"]}]}, "line 'gate': both directions are called 'in'"),
    ({"lines": [{**LINE, "anchor": "middle"}]}, "line 'gate': anchor"),
    ({"lines": [{**LINE, "holds": 1}]}, "line 'gate': unknown setting 'holds'; did you mean 'hold_s'"),
    ({"lines": [{**LINE, "hold_s": -1}]}, "line 'gate': hold_s"),
    ({"lines": [{"points": LINE["points"]}]}, "line 1: name"),
    ({"lines": ["gate"]}, "line 1: it must be a mapping"),
    ({"lines": LINE}, "lines must be a list"),
    ({"linse": [LINE]}, "unknown part 'linse'; did you mean 'lines'"),
    ({"lines": [LINE, LINE]}, "two rules are called 'gate', a line and a line"),
    ({"lines": [LINE], "zones": [{**ZONE, "name": "gate"}]}, "two rules are called 'gate', a line and a zone"),
    (
        {"zones": [{**ZONE, "points": [[0, 0], [1, 1], [1, 0], [0, 1]]}]},
        "zone 'yard': points: .*crosses itself: its edges 1-2 and 3-4",
    ),
    ({"zones": [{**ZONE, "points": [[0, 0], [1, 1]]}]}, "at least 3 points"),
    ({"zones": [{**ZONE, "points": [[0, 0], [0.5, 0.5], [1, 1]]}]}, "(no area|crosses itself)"),
    ({"zones": [{**ZONE, "points": [[0, 0], [1, 0], [1, 1], [1, 0]]}]}, "two of its points are the same"),
    ({"zones": [{**ZONE, "points": [[0.01 * i, 0.5] for i in range(65)]}]}, "65 points; at most 64"),
    ({"zones": [{**ZONE, "parked_s": 0}]}, "zone 'yard': parked_s"),
    ({"conditions": [{**CONDITION, "under": 0.1}]}, "condition 'dry': give either over or under"),
    ({"conditions": [{"name": "dry", "class": "road"}]}, "give either over or under"),
    ({"conditions": [{"name": "dry", "over": 0.1}]}, "condition 'dry': class"),
    ({"conditions": [{**CONDITION, "on": "road"}]}, "cannot stand on themselves"),
    ({"conditions": [{**CONDITION, "over": 20}]}, "condition 'dry': over"),
    ({}, "there are no rules"),
    ({"lines": []}, "there are no rules"),
    ([], "rules are a mapping"),
    ({"lines": [{**LINE, "name": f"{i}"} for i in range(65)]}, "65 rules; at most 64"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "message"), WRONG, ids=[m[:40] for _, m in WRONG])
def test_what_is_wrong_is_said_in_one_line(data: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(data))
    with pytest.raises(UsageError, match=message) as told:
        read_rules(path)
    assert str(told.value).startswith(f"{path}: ") and "\n" not in str(told.value)


def test_unknown_classes_and_models_that_lack_something(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"r\.yaml: line 'gate': boxes has no boxes of 'cra'; did you mean 'car'"):
        make_rules({"lines": [{**LINE, "classes": ["car", "cra"]}]}, "r.yaml").check(card())
    with pytest.raises(UsageError, match="condition 'dry' needs pixels; boxes does detection only"):
        make_rules({"conditions": [CONDITION]}).check(card())
    pixels = validate_card(
        {"name": "s", "licence": "none", "input": {"width": 64, "height": 48}, "segmentation": {"classes": ["road"]}},
        "t",
    )
    with pytest.raises(UsageError, match="zone 'yard' needs boxes"):
        make_rules({"zones": [ZONE]}).check(pixels)
    with pytest.raises(UsageError, match="s has no pixels of 'rode'; did you mean 'road'"):
        make_rules({"conditions": [{**CONDITION, "class": "rode"}]}).check(pixels)
    make_rules({"conditions": [CONDITION]}).check(pixels)
    with pytest.raises(UsageError, match="cannot read the rules file"):
        read_rules(tmp_path / "none.yaml")


def test_what_is_written_is_read_again() -> None:
    data = {"lines": [{**LINE, "classes": ["car"], "hold_s": 0.5}], "zones": [ZONE], "conditions": [CONDITION]}
    rules = make_rules(data)
    assert rules.as_dict() == data
    assert make_rules(rules.as_dict()) == rules
    assert [rule.name for rule in rules] == ["gate", "yard", "dry"] and len(rules) == 3
    closed = make_rules({"zones": [{**ZONE, "points": [*ZONE["points"], ZONE["points"][0]]}]})
    assert closed.zones[0].points == rules.zones[0].points
    assert make_rules({"zones": [{**ZONE, "classes": "car"}]}).zones[0].classes == ("car",)


def test_polygons() -> None:
    square = [(0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (0.0, 2.0)]
    assert area(square) == 4 and thickness(square) == 1
    assert crossing_edges(square) is None
    assert crossing_edges([(0, 0), (2, 0), (1, 0), (1, 2)]) is not None  # back upon itself
    assert crossing_edges([(0, 0), (2, 0), (2, 2), (1, 0), (0, 2)]) is not None  # a corner upon an edge
    rng = np.random.default_rng(0)
    for _ in range(200):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
        if np.diff(angles, append=angles[0] + 2 * np.pi).max() > 3:
            continue
        star = [
            (float(r * np.cos(a)), float(r * np.sin(a))) for a, r in zip(angles, rng.uniform(0.2, 1, 7), strict=True)
        ]
        assert crossing_edges(star) is None
        crossed = [star[i] for i in (0, 4, 2, 3, 1, 5, 6)]
        assert (crossing_edges(crossed) is not None) == brute(crossed)


def brute(points: list[tuple[float, float]]) -> bool:
    """Whether edges that are not neighbours meet, by solving for where."""
    edges = [(np.array(a), np.array(b)) for a, b in zip(points, [*points[1:], points[0]], strict=True)]
    for i, (a, b) in enumerate(edges):
        for j in range(i + 2, len(edges) - (i == 0)):
            c, d = edges[j]
            s, t = np.linalg.solve(np.stack([b - a, c - d], axis=1), c - a)
            if 0 <= s <= 1 and 0 <= t <= 1:
                return True
    return False
