"""Rules as a stage: behind the tracker, drawn, written; by way of the command line and of live settings."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from perception.commands.main import app
from perception.drawing.annotator import Annotator
from perception.drawing.readings import ACTIVE, REST
from perception.errors import UsageError
from perception.picture.conversions import to_bgr
from perception.rules.settings import make_rules
from perception.server.settings import make_settings
from perception.sinks import open_sink
from perception.stages.rules import RulesStage, rules_factory
from perception.types import Detections, Frame, Prediction, SourceInfo
from tests.drawing.test_annotator import make_card, make_planes
from tests.media import make_video
from tests.models import solid, write_model

RULES: dict[str, Any] = {
    "lines": [{"name": "gate", "points": [[0.5, 0.0], [0.5, 1.0]], "directions": ["right", "left"]}],
    "zones": [{"name": "yard", "points": [[0.6, 0.1], [0.95, 0.1], [0.95, 0.9], [0.6, 0.9]]}],
}


def going(frame: int, planes: bool = False, tracks: bool = True) -> Prediction:
    """A car from the left to the right of 320x240 in 2 s."""
    x = 20 + 140 * frame / 30
    found = Detections(
        np.array([[x, 80, x + 30, 140]], np.float32), np.array([0.9], np.float32), np.array([2], np.int32),
        np.array([4], np.int64) if tracks else None,
    )  # fmt: skip
    picture = make_planes(320, 240)
    shown = Frame(planes=picture) if planes else Frame(Frame(planes=picture).image)
    return Prediction(shown.at(index=frame, time=frame / 30, source="yard.mp4"), found)


def test_a_stage_adds_events_and_readings_and_needs_tracks() -> None:
    stage = rules_factory(make_rules(RULES))(make_card())
    events = []
    for frame in range(56):
        made = stage(going(frame))
        events += made.events
    assert [(e.kind, e.rule, e.direction, e.class_name, e.track_id) for e in events] == [
        ("crossed", "gate", "right", "car", 4), ("entered", "yard", None, "car", 4),
    ]  # fmt: skip
    assert "rules" in made.timings and [r.name for r in made.readings or ()] == ["gate", "yard"]
    assert events[0].box is not None and 0 <= events[0].box[0] < events[0].box[2] <= 1
    assert events[0].source == "yard.mp4" and events[0].frame is not None
    earlier = replace(going(60), events=(events[0],))
    assert stage(earlier).events[0] is events[0]
    with pytest.raises(UsageError, match="need tracked boxes"):
        stage(going(61, tracks=False))
    with pytest.raises(UsageError, match="test has no boxes of 'cat'"):
        rules_factory(make_rules({"lines": [{**RULES["lines"][0], "classes": "cat"}]}))(make_card())


@pytest.mark.parametrize("planes", [False, True])
def test_lines_and_zones_are_drawn_where_they_are(planes: bool) -> None:
    stage = RulesStage(make_card(), make_rules(RULES))
    plain = Annotator(make_card(), boxes=False, legend=False, rules=False)
    drawn = Annotator(make_card(), boxes=False, legend=False)
    for frame in range(56):
        made = stage(going(frame, planes))
        if frame in (0, 55):
            changed = np.abs(to_bgr(drawn(made)).astype(int) - to_bgr(plain(made))).max(axis=2) > 25
            assert changed[:, 158:162].any(axis=1).mean() > 0.95  # the line from top to bottom
            assert changed[30:210, 300:306].any(axis=1).mean() > 0.9  # the right edge of the zone
            assert not changed[:, :90].any() and not changed[228:, 220:].any()
            color = to_bgr(drawn(made))[50:60, 300:306].reshape(-1, 3).astype(int)
            wanted = ACTIVE if frame else REST
            assert np.abs(color - wanted).sum(axis=1).min() < 60


def test_sinks_write_what_rules_saw(tmp_path: Path) -> None:
    stage = RulesStage(make_card(), make_rules(RULES))
    kinds = {"jsonl": "a.jsonl", "summary": "a.csv", "heatmap": "h.png", "trajectories": "t.png"}
    sinks = [open_sink(tmp_path / name, kind=kind) for kind, name in kinds.items()]
    for sink in sinks:
        sink.open(SourceInfo("yard.mp4", "file", 320, 240), make_card())
    for frame in [*range(56), *range(1800, 1802)]:
        made = stage(going(min(frame, 55)))
        made = replace(made, frame=made.frame.at(index=frame, time=frame / 30))
        for sink in sinks:
            sink.write(made)
    for sink in sinks:
        sink.close()
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert lines[0]["events"] == [] and lines[0]["rules"]["gate"] == {"crossed": {"right": {}, "left": {}}}
    assert lines[-1]["rules"]["gate"]["crossed"] == {"right": {"car": 1}, "left": {}}
    assert [e["kind"] for line in lines for e in line["events"]] == ["crossed", "entered"]
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = {(r["start"], r["rule"], r["kind"], r["class"], r["direction"]): r for r in rows}
    assert found["0.0", "gate", "crossed", "car", "right"]["count"] == "1"
    assert found["0.0", "gate", "crossed", "", "left"]["count"] == "0"
    assert found["60.0", "gate", "crossed", "", "right"]["count"] == "0"
    inside = found["0.0", "yard", "inside", "", ""]
    entered = next(line["time"] for line in lines if any(e["kind"] == "entered" for e in line["events"]))
    assert inside["max"] == "1.0" and float(inside["mean"]) == pytest.approx((55 / 30 - entered) / (55 / 30), abs=0.02)
    heat, ways = cv2.imread(str(tmp_path / "h.png")), cv2.imread(str(tmp_path / "t.png"))
    assert heat.shape == ways.shape == (240, 320, 3)
    reds = heat[:, :, 2].astype(int) - heat[:, :, 0]
    rows_, columns = np.nonzero(reds > 60)
    assert 120 < rows_.mean() < 160 and columns.min() < 80 and columns.max() > 240
    blue = np.abs(ways.astype(int) - (142, 0, 0)).sum(axis=2) < 60  # the colour of cars
    rows_, columns = np.nonzero(blue)
    assert set(rows_.tolist()) <= set(range(137, 144)) and columns.min() <= 40 and columns.max() >= 280


def test_a_summary_without_rules_and_trajectories_without_tracks_are_told(tmp_path: Path) -> None:
    for kind, message in (("summary", "give rules"), ("trajectories", "need tracked boxes")):
        with open_sink(tmp_path / f"{kind}.png", kind=kind) as sink:
            sink.open(SourceInfo("yard.mp4", "file", 320, 240), make_card())
            with pytest.raises(UsageError, match=message):
                sink.write(going(0, tracks=False))


def test_annotate_counts_and_a_wrong_file_is_one_line(tmp_path: Path) -> None:
    """A square in a zone and one beside it, by way of the command line."""
    model = write_model(tmp_path / "colors.onnx", width=256, height=48, detection=True, anchor=16)
    picture = np.full((48, 256, 3), 128, np.uint8)
    for name, left in (("red", 32), ("blue", 224)):
        picture[16:32, left : left + 16] = solid(name, 1, 1)[0, 0]
    clip = make_video(tmp_path / "clip.mp4", frames=24, size_wh=(256, 48), images=[picture] * 24)
    zone = {"name": "yard", "points": [[0, 0], [0.5, 0], [0.5, 1], [0, 1]], "loitering_s": 0.5}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"zones": [zone]}))
    command = ["annotate", str(clip), "-m", str(model), "--precision", "fp32", "--quiet"]
    rules = ["--rules", str(tmp_path / "rules.yaml")]
    outputs = ["--summary", str(tmp_path / "s.csv"), "-o", str(tmp_path / "out.mp4"), "--hide", "rules"]
    done = CliRunner().invoke(app, [*command, *rules, *outputs])
    assert done.exit_code == 0, done.output
    with (tmp_path / "s.csv").open() as file:
        rows = {(r["kind"], r["class"]): r["count"] or r["max"] for r in csv.DictReader(file)}
    assert rows == {("entered", "red"): "1", ("loitering", "red"): "1", ("inside", ""): "1.0"}
    bare = CliRunner().invoke(app, [*command, "--summary", str(tmp_path / "t.csv")])
    assert isinstance(bare.exception, UsageError) and "--rules" in str(bare.exception)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"zones": [{**zone, "classes": ["rde"]}]}))
    wrong = CliRunner().invoke(app, [*command, *rules, "--jsonl", str(tmp_path / "x.jsonl")])
    assert isinstance(wrong.exception, UsageError) and "did you mean 'red'" in str(wrong.exception)
    assert not (tmp_path / "x.jsonl").exists()


def test_live_settings_check_the_rules_of_a_source(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(RULES))
    settings = make_settings({"sources": {"gate": {"uri": "synthetic:", "rules": str(path)}}})
    assert settings.sources["gate"].rules == path
    path.write_text(yaml.safe_dump({"lines": [{**RULES["lines"][0], "points": [[0, 0], [0, 0]]}]}))
    with pytest.raises(UsageError, match="line 'gate': points: its points are the same"):
        make_settings({"sources": {"gate": {"uri": "synthetic:", "rules": str(path)}}})
