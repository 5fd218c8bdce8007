"""Tracking as a stage: by name, each source with its own, boxes of low score asked for; drawn and written."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from perception.card import ModelCard, TrackingSettings, validate_card
from perception.commands.main import app
from perception.drawing.annotator import Annotator
from perception.errors import UsageError
from perception.evaluation.tracking import measure_tracking
from perception.picture.conversions import to_bgr
from perception.pipeline import StageChain
from perception.postprocess.post_processing import DetectionOptions
from perception.sinks import open_sink
from perception.sources import open_source
from perception.stages.factories import find_stage
from perception.stages.track import TrackStage, track_factory, tracking_options
from perception.tracking.files import as_mot
from perception.tracking.mot_text import MotText, read_mot
from perception.types import Detections, Frame, Planes, Prediction, SourceInfo
from tests.drawing.test_annotator import make_card, make_planes
from tests.media import make_video
from tests.models import solid, write_model

BOXES = {"classes": ["car", "truck"], "score_threshold": 0.4}


def card_of(**detection: object) -> ModelCard:
    data = {"name": "boxes", "licence": "none", "input": {"width": 64, "height": 48}}
    return validate_card({**data, "detection": {**BOXES, **detection}}, "test")


def moving(frame: int, score: float = 0.9, rate: float = 30.0) -> Prediction:
    x = 20 + 90 * frame / rate
    boxes = np.array([[x, 20, x + 30, 60]], np.float32)
    found = Detections(boxes, np.array([score], np.float32), np.zeros(1, np.int32))
    return Prediction(Frame(np.zeros((100, 320, 3), np.uint8), index=frame, time=frame / rate), found)


def test_found_by_name_and_made_for_each_source() -> None:
    stage = find_stage("track")
    first, second = StageChain(card_of(), [stage]), StageChain(card_of(), [stage])
    for frame in range(5):
        a, b = first.apply(moving(frame)), second.apply(moving(frame))
        assert a.detections is not None and a.detections.track_ids is not None
        assert b.detections is not None and b.detections.track_ids is not None
        assert a.detections.track_ids.tolist() == b.detections.track_ids.tolist() == [1]
    assert "track" in a.timings
    assert set(a.trails) == {1}


def test_a_model_or_a_prediction_without_boxes_is_told() -> None:
    no_boxes = validate_card(
        {"name": "s", "licence": "none", "input": {"width": 64, "height": 48}, "segmentation": {"classes": ["road"]}},
        "t",
    )
    with pytest.raises(UsageError, match="tracking needs boxes; s does segmentation only"):
        find_stage("track")(no_boxes)
    with pytest.raises(UsageError, match="this prediction has none"):
        TrackStage(card_of())(replace(moving(0), detections=None))


def test_the_card_decides_and_the_user_before_it() -> None:
    plain = card_of()
    assert plain.detection is not None
    assert plain.detection.tracking_settings() == TrackingSettings.around(0.4)
    assert tracking_options(plain).score_threshold == TrackingSettings.around(0.4).low_score < 0.4
    own = card_of(tracking={"low_score": 0.07, "start_score": 0.33, "sure_score": 0.5, "memory_s": 3})
    assert own.detection is not None
    assert tracking_options(own, DetectionOptions(iou_threshold=0.5)) == DetectionOptions(
        iou_threshold=0.5, score_threshold=0.07
    )
    wanted = own.detection.tracking_settings(0.6)
    assert (wanted.start_score, wanted.sure_score, wanted.low_score, wanted.memory_s) == (0.6, 0.6, 0.07, 3)
    assert own.detection.tracking_settings(0.05).low_score == 0.05
    with pytest.raises(Exception, match="memory"):
        card_of(tracking={"memory": 3})
    assert validate_card(json.loads(own.model_dump_json(exclude_none=True)), "again") == own


@pytest.mark.parametrize("score", [0.45, 0.7])
def test_tracks_begin_with_the_score_that_is_asked_for(score: float) -> None:
    stage = track_factory(DetectionOptions(score_threshold=score))(card_of())
    found = [stage(moving(frame, 0.6)).detections for frame in range(20)]
    assert found[-1] is not None and len(found[-1]) == (1 if score < 0.6 else 0)


@pytest.mark.parametrize("planes", [False, True])
def test_the_trail_is_drawn_where_the_box_has_been(planes: bool) -> None:
    card = make_card()
    assert card.detection is not None

    def at(frame: int) -> Prediction:
        x = 10 + 4 * frame
        found = Detections(
            np.array([[x, 20, x + 30, 60]], np.float32), np.array([0.9], np.float32), np.array([1], np.int32)
        )
        picture = Frame(planes=make_planes(320, 100), time=frame / 30)
        return Prediction(picture if planes else Frame(picture.image, time=frame / 30), found)

    stage = TrackStage(card)
    for frame in range(40):
        tracked = stage(at(frame))
    shown = Annotator(card, boxes=False, legend=False)(tracked)
    hidden = Annotator(card, boxes=False, legend=False, trails=False)(tracked)
    assert isinstance(shown, Planes) == planes
    changed = np.abs(to_bgr(shown).astype(int) - to_bgr(hidden)).max(axis=2) > 30
    rows, columns = np.nonzero(changed)
    assert len(rows) > 40
    assert rows.min() >= 56 and rows.max() <= 64  # along the bottom edge
    assert columns.max() <= 190 and columns.min() < 130


def test_every_sink_has_the_identities(tmp_path: Path) -> None:
    card = card_of()
    stage = TrackStage(card)
    kinds = {"jsonl": "a.jsonl", "csv": "a.csv", "parquet": "a.parquet", "coco": "a.json", "mot": "a.txt"}
    sinks = [open_sink(tmp_path / name, kind=kind) for kind, name in kinds.items()]
    for sink in sinks:
        sink.open(SourceInfo("street.mp4", "file", 320, 100), card)
    for frame in range(4):
        prediction = stage(moving(frame))
        for sink in sinks:
            sink.write(prediction)
    for sink in sinks:
        sink.close()
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [[d["track_id"] for d in line["detections"]] for line in lines] == [[1]] * 4
    with (tmp_path / "a.csv").open() as file:
        assert [row["track_id"] for row in csv.DictReader(file)] == ["1"] * 4
    import pyarrow.parquet

    assert pyarrow.parquet.read_table(tmp_path / "a.parquet")["track_id"].to_pylist() == [1] * 4
    assert [a["track_id"] for a in json.loads((tmp_path / "a.json").read_text())["annotations"]] == [1] * 4
    rows = read_mot(tmp_path / "a.txt")
    assert rows.frames.tolist() == [1, 2, 3, 4] and rows.ids.tolist() == [1] * 4
    np.testing.assert_allclose(rows.xyxy[0], [20, 20, 50, 60], atol=0.5)
    assert rows.classes.tolist() == [0] * 4


@pytest.mark.parametrize("every", [1, 2, 5])
def test_vehicles_of_the_synthetic_street_keep_their_identity(every: int) -> None:
    """From boxes like those of a detector: off by some pixels, now and then missing."""
    rng = np.random.default_rng(every)
    stage = TrackStage(card_of(classes=[f"class {i}" for i in range(12)]))
    truth: list[tuple[int, Detections]] = []
    tracked: list[tuple[int, Detections]] = []
    with open_source("synthetic:size=640x360&fps=25&frames=250", every=every) as source:
        for number, frame in enumerate(source, 1):
            true, _ = source.truth(frame.index)
            sides = np.tile(true.boxes[:, 2:] - true.boxes[:, :2], 2)
            boxes = (true.boxes + rng.normal(0, 0.02, true.boxes.shape) * sides).astype(np.float32)
            seen = replace(true, boxes=boxes, scores=np.full(len(true), 0.9, np.float32), track_ids=None)
            result = stage(Prediction(frame, seen.select(rng.random(len(true)) > 0.08)))
            assert result.detections is not None
            tracked.append((number, result.detections))
            truth.append((number, true))
    counted = as_mot(iter(truth))
    ours = measure_tracking(
        MotText(counted.frames, counted.ids, counted.boxes, counted.scores, np.ones(len(counted), np.int64)),
        as_mot(iter(tracked)),
    )
    things = len(np.unique(counted.ids))
    assert ours.switches <= max(1, things // 10), ours.as_dict()
    assert ours.idf1 > 0.9


def test_annotate_writes_identities(tmp_path: Path) -> None:
    """Two squares in a video, one of them hidden for a while, by way of the command line."""
    model = write_model(tmp_path / "colors.onnx", width=256, height=48, detection=True, anchor=16)
    pictures = []
    for frame in range(24):
        picture = np.full((48, 256, 3), 128, np.uint8)
        for name, left in (("red", 16), ("blue", 224)):
            if name == "blue" and 10 <= frame < 15:
                continue
            picture[16:32, left : left + 16] = solid(name, 1, 1)[0, 0]
        pictures.append(picture)
    clip = make_video(tmp_path / "clip.mp4", frames=24, size_wh=(256, 48), images=pictures)
    outputs = {kind: tmp_path / f"out.{kind}" for kind in ("mot", "jsonl")}
    command = ["annotate", str(clip), "-m", str(model), "--precision", "fp32", "--quiet"]
    result = CliRunner().invoke(
        app, [*command, "--mot", str(outputs["mot"]), "--jsonl", str(outputs["jsonl"]), "--every", "2"]
    )
    assert result.exit_code == 0, result.output
    rows = read_mot(outputs["mot"])
    assert set(rows.frames.tolist()) <= set(range(1, 25, 2)) and len(rows) >= 20
    by_class = {c: set(rows.ids[rows.classes == c].tolist()) for c in set(rows.classes.tolist())}
    assert set(by_class) == {0, 2} and sorted(i for ids in by_class.values() for i in ids) == [1, 2]
    lines = [json.loads(line) for line in outputs["jsonl"].read_text().splitlines()]
    assert sum(len(line["detections"]) for line in lines) == len(rows)
    assert all(d["track_id"] in (1, 2) for line in lines for d in line["detections"])


def test_track_command(tmp_path: Path) -> None:
    lines = [f"{f},-1,{10 + 3 * f},20,30,60,0.9,-1,-1,-1\n{f},-1,{400 - 3 * f},200,40,80,0.8,-1,-1,-1\n"
             for f in range(1, 61)]  # fmt: skip
    (tmp_path / "det.txt").write_text("".join(lines))
    run = CliRunner()
    command = ["track", str(tmp_path / "det.txt"), "--fps", "30", "--size", "640x360"]
    result = run.invoke(app, [*command, "-o", str(tmp_path / "mot.txt")])
    assert result.exit_code == 0, result.output
    rows = read_mot(tmp_path / "mot.txt")
    assert rows.last_frame == 60 and set(rows.ids.tolist()) == {1, 2}
    assert len({(f, i) for f, i in zip(rows.frames.tolist(), rows.ids.tolist(), strict=True)}) == len(rows) == 120
    assert run.invoke(app, command).stdout == (tmp_path / "mot.txt").read_text()
    again = run.invoke(app, [*command, "-o", str(tmp_path / "mot.txt")])
    assert isinstance(again.exception, UsageError) and "exists" in str(again.exception)
    over_itself = run.invoke(app, [*command, "-o", str(tmp_path / "det.txt"), "--overwrite"])
    assert isinstance(over_itself.exception, UsageError)
    (tmp_path / "s.yaml").write_text("tracking: {start_score: 0.95, sure_score: 0.95}\n")
    none = run.invoke(app, [*command, "--settings", str(tmp_path / "s.yaml")])
    assert none.exit_code == 0 and none.stdout == ""
    (tmp_path / "s.yaml").write_text("tracking: {start: 0.95}\n")
    wrong = run.invoke(app, [*command, "--settings", str(tmp_path / "s.yaml")])
    assert isinstance(wrong.exception, UsageError) and "start" in str(wrong.exception)


def test_calibration_finds_what_the_scores_of_a_detector_mean(tmp_path: Path) -> None:
    """A detector whose scores are all low: with the usual settings nothing is tracked."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        truth, found = [], []
        for thing in range(1, 6):
            for frame in range(1, 61):
                x, y = 50 + 4.0 * frame, 40 + 90.0 * thing
                truth.append(f"{frame},{thing},{x},{y},40,70,1,1,1\n")
                jitter = rng.normal(0, 1, 2)
                found.append(
                    f"{frame},-1,{x + jitter[0]:.1f},{y + jitter[1]:.1f},40,70,{rng.uniform(0.18, 0.25):.3f}\n"
                )
        (tmp_path / name / "gt.txt").write_text("".join(truth))
        (tmp_path / name / "det.txt").write_text("".join(found))
        (tmp_path / name / "seqinfo.ini").write_text("[Sequence]\nframeRate=30\nimWidth=640\nimHeight=640\n")
    run = CliRunner()
    command = ["eval", "tracking", "--sequences", str(tmp_path), "--json"]
    before = json.loads(run.invoke(app, command).stdout)["all"]["HOTA"]
    calibrated = run.invoke(app, [*command, "--calibrate", str(tmp_path / "t.yaml"), "--trials", "60"])
    assert calibrated.exit_code == 0, calibrated.output
    after = json.loads(calibrated.stdout)["all"]["HOTA"]
    assert before < 0.1 and after > 0.7
    used = json.loads(run.invoke(app, [*command, "--settings", str(tmp_path / "t.yaml")]).stdout)["all"]["HOTA"]
    assert used == after
    (tmp_path / "b" / "det.txt").unlink()
    lacks = run.invoke(app, command)
    assert isinstance(lacks.exception, UsageError) and "lacks gt.txt or det.txt" in str(lacks.exception)
