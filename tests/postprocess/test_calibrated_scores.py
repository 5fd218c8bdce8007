"""Calibrated scores: the same boxes in the same order, with other numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError

from perception.common.calibration import HIGHEST_LOGIT, ScoreCalibration, UnknownScale
from perception.picture.letterbox import Letterbox
from perception.postprocess.detection import decode, raw_thresholds
from tests.noise import random_boxes

IDENTITY = Letterbox.fit(1000, 1000, 1000, 1000)


def chance(score: float, fit: ScoreCalibration) -> float:
    """The definition, in plain Python."""
    if score in (0.0, 1.0):
        return score
    logit = math.log(score / (1 - score))
    if fit.bend is None or score <= fit.bend:
        return 1 / (1 + math.exp(-(logit / fit.temperature + fit.bias)))
    assert fit.upper_temperature is not None
    at = math.log(fit.bend / (1 - fit.bend))
    return 1 / (1 + math.exp(-(at / fit.temperature + fit.bias + (logit - at) / fit.upper_temperature)))


def random_fit(rng: np.random.Generator) -> ScoreCalibration:
    """A straight line, or one with a bend."""
    line = {"temperature": float(np.exp(rng.normal(0, 0.7))), "bias": float(rng.normal(0, 1.5))}
    if rng.random() < 0.6:
        line |= {"bend": float(rng.uniform(0.1, 0.9)), "upper_temperature": float(np.exp(rng.normal(0, 0.7)))}
    return ScoreCalibration(**line)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(10))
def test_calibrating_and_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fit = random_fit(rng)
    for score in [0.0, 1.0, 0.5, *rng.random(50).tolist()]:
        assert fit.calibrated(score) == pytest.approx(chance(score, fit), rel=1e-9)
        assert fit.raw(fit.calibrated(score)) == pytest.approx(score, abs=1e-6)
    ordered = np.sort(rng.random(100)).tolist()
    assert sorted(map(fit.calibrated, ordered)) == list(map(fit.calibrated, ordered))


@pytest.mark.parametrize("method", ["nms", "soft-linear", "soft-gaussian"])
@pytest.mark.parametrize("vote", [None, 0.6])
@pytest.mark.parametrize("seed", range(4))
def test_boxes_and_their_order_stay(seed: int, vote: float | None, method: str) -> None:
    rng = np.random.default_rng(seed)
    fit = random_fit(rng)
    boxes, scores = random_boxes(300, rng, size=400), rng.random((300, 3)).astype(np.float32)
    scores[:3] = [[0, 1, 0.5]] * 3
    options = {"score_threshold": 0.3, "method": method, "vote_iou": vote}
    plain = decode(boxes, scores, IDENTITY, **options)  # type: ignore[arg-type]
    made = decode(boxes, scores, IDENTITY, calibration=fit, **options)  # type: ignore[arg-type]
    assert len(made) > 20
    np.testing.assert_array_equal(made.boxes, plain.boxes)
    np.testing.assert_array_equal(made.class_ids, plain.class_ids)
    assert made.scores.dtype == np.float32
    np.testing.assert_allclose(made.scores, [chance(float(s), fit) for s in plain.scores], rtol=2e-6)


@pytest.mark.parametrize("seed", range(20))
def test_a_threshold_is_a_chance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fit = random_fit(rng)
    scores = rng.random((2000, 1)).astype(np.float32)
    boxes = np.zeros((2000, 4), np.float32)
    boxes[:, 0] = boxes[:, 1] = np.arange(2000) % 45 * 20
    boxes[:, 1] = np.arange(2000) // 45 * 20
    boxes[:, 2:] = boxes[:, :2] + 10  # none over another
    every = decode(boxes, scores, IDENTITY, score_threshold=0.0, max_detections=2000, calibration=fit).scores
    # chances that boxes have exactly, too
    for least in [*rng.random(5).astype(np.float32), *rng.choice(every, 20), np.float32(0), np.float32(1)]:
        raw = raw_thresholds(np.array([least], np.float32), fit)
        found = decode(boxes, scores, IDENTITY, score_threshold=raw, max_detections=2000, calibration=fit).scores
        assert len(found) == int((every >= least).sum())
        assert not len(found) or found.min() >= least


@pytest.mark.parametrize("half", [{"bend": 0.5}, {"upper_temperature": 0.5}])
def test_half_a_bend_is_refused(half: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match="bend and upper_temperature go together"):
        ScoreCalibration(temperature=1, **half)  # type: ignore[arg-type]


def test_infinite_thresholds_stay() -> None:
    fit = ScoreCalibration(temperature=0.3, bias=-1)
    raw = raw_thresholds(np.array([np.inf, 0.5], np.float32), fit)
    assert raw[0] == np.inf and 0 < raw[1] < 1


def test_a_scale_of_unknown_pixels() -> None:
    scale = UnknownScale(id=3, logits=[-2.0, 1.0, 1.0, 5.0, 9.0])
    assert scale.floor(0) is None and scale.floor(1) == HIGHEST_LOGIT
    for loss, floor in ((0.25, 1), (0.5, 1), (0.75, 5), (0.125, -0.5), (0.875, 7), (1e-9, -2)):
        assert scale.floor(loss) == pytest.approx(floor)
    with pytest.raises(ValueError, match="must not fall"):
        UnknownScale(id=3, logits=[1.0, 0.0])
