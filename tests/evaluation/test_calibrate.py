"""Calibration against plain loops, and what it leaves of a file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from typer.testing import CliRunner

import perception
from perception.card import METADATA_KEY, TrackingSettings, read_card
from perception.commands.main import app
from perception.errors import UsageError
from perception.evaluation.boxes import IGNORED
from perception.evaluation.calibrate import best_logits, fit_scores, weighted_quantiles
from perception.evaluation.calibration_error import calibration_error, counted_boxes
from perception.evaluation.coco import BoxedImage
from perception.picture.letterbox import Letterbox
from perception.postprocess.class_maps import LogitsClassMap
from perception.types import Detections
from tests.evaluation.scenes import write_boxes, write_labels
from tests.models import solid, write_model
from tests.noise import random_boxes, smooth_logits
from tests.postprocess.test_segmentation import upsample


@pytest.mark.parametrize("mode", ["stretch", "letterbox"])
@pytest.mark.parametrize("size", [(128, 72), (31, 50), (1, 1)])
@pytest.mark.parametrize("seed", range(3))
def test_best_logits_are_those_of_the_upsampled(seed: int, size: tuple[int, int], mode: Any) -> None:
    logits = smooth_logits(seed, 7, 18, 24)
    box = Letterbox.fit(*size, 96, 72, mode)
    expected = upsample(logits, box).max(0)
    for step in (1, 3):
        made = best_logits(LogitsClassMap(logits, box), step)
        np.testing.assert_allclose(made, expected[::step, ::step], atol=1e-4)


def test_a_floor_at_a_quantile_loses_that_part() -> None:
    rng = np.random.default_rng(2)
    samples = [rng.normal(3, 1, 5000).astype(np.float32), rng.normal(5, 2, 50_000).astype(np.float32)]
    floors = weighted_quantiles(samples, 101)
    assert (np.diff(floors) >= 0).all()
    for i in range(101):
        lost = np.mean([(sample < floors[i]).mean() for sample in samples])  # each sample weighs the same
        assert lost == pytest.approx(i / 100, abs=3e-4)


def slow_error(scores: list[float], right: list[bool], least: float, bins: int) -> float:
    groups: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for score, good in zip(scores, right, strict=True):
        if score >= least:
            groups[min(math.floor(score * bins), bins - 1)].append((score, good))
    total = sum(map(len, groups))
    error = 0.0
    for group in groups:
        if group:
            mean, share = sum(s for s, _ in group) / len(group), sum(g for _, g in group) / len(group)
            error += len(group) / total * abs(mean - share)
    return error


@pytest.mark.parametrize("seed", range(10))
def test_calibration_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random(rng.integers(1, 300)), 2)
    scores[:2] = [1.0, 0.1][: len(scores)]
    right = rng.random(len(scores)) < scores**2
    for least, bins in ((0.1, 10), (0.0, 15), (0.35, 7)):
        if (scores >= least).any():
            expected = slow_error(scores.tolist(), right.tolist(), least, bins)
            assert calibration_error(scores, right, least, bins) == pytest.approx(expected, abs=1e-12)
    assert math.isnan(calibration_error(scores, right, 1.1))


def slow_counted(truth: BoxedImage, found: Detections) -> list[tuple[float, bool]]:
    """Box by box, the best score first."""

    def area(box: list[float]) -> float:
        return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)

    def common(a: list[float], b: list[float]) -> float:
        return area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])

    taken: set[int] = set()
    rows = []
    for n in sorted(range(len(found)), key=lambda n: -found.scores[n]):
        box, kind = found.boxes[n].astype(float).tolist(), int(found.class_ids[n])
        best, at = 0.5, -1
        for m in range(len(truth.boxes)):
            other = truth.boxes[m].astype(float).tolist()
            if truth.crowd[m] or truth.category_ids[m] != kind or m in taken:
                continue
            shared = common(box, other)
            iou = shared / (area(box) + area(other) - shared)
            if iou >= 0.5 and (at < 0 or iou > best):
                best, at = iou, m
        if at >= 0:
            taken.add(at)
        else:
            regions = [
                m for m in range(len(truth.boxes)) if truth.crowd[m] and truth.category_ids[m] in (kind, IGNORED)
            ]
            if any(common(box, truth.boxes[m].astype(float).tolist()) >= 0.5 * area(box) for m in regions):
                continue
        rows.append((float(found.scores[n]), at >= 0))
    return rows


@pytest.mark.parametrize("seed", range(12))
def test_which_boxes_are_right(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs, expected = [], []
    for _ in range(4):
        there = random_boxes(int(rng.integers(0, 12)), rng, size=150, side=100)
        count = len(there)
        crowd = rng.random(count) < 0.3
        kinds = rng.integers(0, 3, count)
        kinds[crowd & (rng.random(count) < 0.5)] = IGNORED
        near = np.repeat(there, 3, 0) + rng.normal(0, 8, (3 * count, 4)).astype(np.float32)
        near = near[((near[:, 2:] - near[:, :2]) > 0).all(1)]
        boxes = np.concatenate((near, random_boxes(5, rng, size=150, side=100)))
        scores = rng.random(len(boxes)).astype(np.float32)
        order = np.argsort(-scores)
        found = Detections(boxes[order], scores[order], rng.integers(0, 3, len(boxes)).astype(np.int32))
        truth = BoxedImage(1, Path("a"), 250, 250, there, kinds, crowd, np.ones(count), np.ones(count, np.float32))
        pairs.append((truth, found))
        expected += slow_counted(truth, found)
    scores, right = counted_boxes(pairs, 3)
    assert list(zip(scores.tolist(), right.tolist(), strict=True)) == expected
    assert 0 < right.sum() < len(right)


@pytest.mark.parametrize(("temperature", "bias"), [(1.0, 0.0), (0.4, -1.0), (2.5, 0.8)])
def test_a_fit_finds_what_the_chances_are(temperature: float, bias: float) -> None:
    rng = np.random.default_rng(7)
    sets = []
    for count in (40_000, 20_000):
        scores = rng.beta(1, 1.5, count).clip(0.01, 0.99)
        chances = 1 / (1 + np.exp(-(np.log(scores / (1 - scores)) / temperature + bias)))
        sets.append((scores, rng.random(count) < chances))
    fit = fit_scores(sets)
    assert fit.temperature == pytest.approx(temperature, rel=0.05)
    assert fit.bias == pytest.approx(bias, abs=0.06)
    scores, right = sets[0]
    chances = np.array([fit.calibrated(s) for s in scores.tolist()])
    assert calibration_error(chances, right) < 0.015


@pytest.mark.parametrize("seed", range(4))
def test_a_fit_bends_where_one_line_is_not_enough(seed: int) -> None:
    """Scores whose logit tells little below a half and much above: the error falls to what chance alone makes."""
    rng = np.random.default_rng(seed)

    def drawn(count: int) -> tuple[Any, Any]:
        scores = rng.beta(2, 2, count).clip(0.01, 0.99)
        logits = np.log(scores / (1 - scores))
        chances = 1 / (1 + np.exp(-(1.5 * logits + 6 * np.maximum(logits, 0))))
        return scores, rng.random(count) < chances

    fit = fit_scores([drawn(20_000), drawn(10_000)])
    assert fit.bend is not None and fit.upper_temperature is not None
    assert fit.upper_temperature < 0.5 * fit.temperature
    scores, right = drawn(20_000)
    chances = np.array([fit.calibrated(s) for s in scores.tolist()])
    straight = fit.model_copy(update={"bend": None, "upper_temperature": None})
    other = np.array([straight.calibrated(s) for s in scores.tolist()])
    assert calibration_error(chances, right) < 0.03 < calibration_error(other, right)


@pytest.mark.parametrize("right", ["all", "none", "the worse"])
def test_scores_that_tell_nothing_are_refused(right: str) -> None:
    scores = np.linspace(0.06, 0.9, 60)
    good = {"all": scores > 0, "none": scores > 1, "the worse": scores < 0.5}[right]
    with pytest.raises(UsageError, match="nothing to calibrate"):
        fit_scores([(scores, good)])


def test_the_command_changes_the_card_and_nothing_else(tmp_path: Path) -> None:
    model = write_model(tmp_path / "both.onnx", width=128, height=96, detection=True)
    write_labels(tmp_path / "masks", size=(128, 96), images=8)
    write_boxes(tmp_path / "boxes", images=24)
    suite = {
        "name": "shapes", "root": str(tmp_path), "classes": ["red", "green", "blue"],
        "sets": [
            {"name": "m", "kind": "segmentation", "images": "masks/images", "labels": "masks/labels", "ignore": [11]},
            {"name": "b", "kind": "detection", "images": "boxes/images", "annotations": "boxes/boxes.json"},
        ],
    }  # fmt: skip
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(suite))
    out = tmp_path / "sure.onnx"
    command = ["eval", "calibrate", str(tmp_path / "s.yaml"), "-m", str(model), "-o", str(out), "--precision", "fp32"]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)

    before, after = onnx.load(str(model)), onnx.load(str(out))
    assert before.graph.SerializeToString(deterministic=True) == after.graph.SerializeToString(deterministic=True)
    assert [p.key for p in after.metadata_props] == [METADATA_KEY]
    old, new = read_card(model), read_card(out)
    assert old.segmentation and old.detection and new.segmentation and new.detection
    scale, fit = new.segmentation.unknown, new.detection.calibration
    assert scale is not None and fit is not None
    assert (scale.id, scale.calibrated_on, fit.calibrated_on) == (3, ["m"], ["b"])
    assert printed["unknown"] == scale.model_dump() and printed["scores"] == fit.model_dump()
    assert new.detection.score_threshold == pytest.approx(fit.calibrated(old.detection.score_threshold), abs=6e-4)
    tracks, of_old = new.detection.tracking, TrackingSettings.around(old.detection.score_threshold)
    assert tracks is not None
    for name, value in of_old.model_dump().items():  # tracks stay as they are, too
        moved = fit.calibrated(value) if name.endswith("_score") else value
        assert getattr(tracks, name) == pytest.approx(moved, abs=6e-5), name
    same = {"segmentation": None, "detection": None}
    assert new.model_copy(update=same) == old.model_copy(update=same)

    # what is shown by itself stays, with chances for scores
    frame = np.full((96, 128, 3), 128, np.uint8)
    frame[16:32, 32:48] = solid("red", 16, 16)
    frame[64:80, 80:96] = solid("blue", 16, 16)
    with perception.load_model(model, precision="fp32") as one, perception.load_model(out, precision="fp32") as other:
        first, second = one.predict(frame).detections, other.predict(frame).detections
        assert first is not None and second is not None and len(first) == 2
        np.testing.assert_array_equal(first.boxes, second.boxes)
        np.testing.assert_allclose(second.scores, [fit.calibrated(float(s)) for s in first.scores], atol=1e-6)
    # calibrating what is calibrated finds the same
    assert CliRunner().invoke(app, [*command, "--json"]).exception is not None  # the file is there
    command[4], command[6] = str(out), str(tmp_path / "again.onnx")
    again = CliRunner().invoke(app, [*command, "--json"])
    assert again.exit_code == 0, again.output
    twice = read_card(tmp_path / "again.onnx").detection
    assert twice is not None and twice.calibration is not None
    assert twice.calibration.temperature == pytest.approx(fit.temperature, rel=1e-3)
    assert twice.score_threshold == pytest.approx(new.detection.score_threshold, abs=2e-3)
