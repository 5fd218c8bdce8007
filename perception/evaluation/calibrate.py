"""How sure a network is where it is right: measured, and put into its card, so that its numbers mean what they say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.card import ModelCard, TrackingSettings, read_card
from perception.common.calibration import ScoreCalibration, UnknownScale
from perception.errors import UsageError
from perception.evaluation.calibration_error import LEAST_SCORE, calibration_error, counted_boxes, error_by_chance
from perception.evaluation.detection import measure_boxes
from perception.evaluation.faults import Fault
from perception.evaluation.metrics import NO_CLASS
from perception.evaluation.result import Rows
from perception.evaluation.suite import OpenBoxes, OpenMasks, Progress, Suite, open_suite
from perception.evaluation.workers import in_order
from perception.model import load_model
from perception.picture.letterbox import Letterbox
from perception.postprocess.class_maps import LogitsClassMap
from perception.types import F32, U8
from perception.weights.library import find_model

STEP = 3
"""Every third row and column of pixels is looked at: neighbours tell the same."""

QUANTILES = 101
SHOWN_LOSSES = (0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class PixelSureness:
    """Best logits of the pixels of one set.

    Attributes:
        title: of the set.
        right: of those that are classified correctly ``[N]``.
        wrong: of the others that count ``[M]``.
    """

    title: str
    right: F32
    wrong: F32


Scored = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""Scores of boxes ``[N]``, and whether they are right ``[N]``."""


@dataclass(frozen=True)
class BoxChances:
    """Scores of the boxes of one set, as the graph gives them.

    Attributes:
        title: of the set.
        halves: of the pictures with even and with odd numbers.
    """

    title: str
    halves: list[Scored]

    @property
    def whole(self) -> Scored:
        """Both halves together."""
        scores, right = zip(*self.halves, strict=True)
        return np.concatenate(scores), np.concatenate(right)


@dataclass(frozen=True)
class Calibration:
    """What was measured on a suite.

    Attributes:
        card: of the model, with the calibration in it.
        pixels, boxes: of each set.
    """

    card: ModelCard
    pixels: list[PixelSureness] = field(default_factory=list)
    boxes: list[BoxChances] = field(default_factory=list)

    def changes(self) -> dict[str, Any]:
        """Return the entries of the card that are new."""
        return {"segmentation": self.card.segmentation, "detection": self.card.detection}

    def pixel_rows(self) -> Rows:
        """Return a row for each set: at some losses, the part of its right and of its wrong pixels that is unknown."""
        task = self.card.segmentation
        if task is None or task.unknown is None:
            return []
        rows: Rows = []
        for one in self.pixels:
            row: dict[str, Any] = {"set": one.title}
            for loss in SHOWN_LOSSES:
                floor = task.unknown.floor(loss)
                assert floor is not None  # no loss is 0
                lost = [f"{(values < floor).mean() if len(values) else 0:.1%}" for values in (one.right, one.wrong)]
                row[f"{loss:g}: right"], row[f"{loss:g}: wrong"] = lost
            rows.append(row)
        return rows

    def box_rows(self) -> Rows:
        """Return a row for each set and one for all: expected calibration error before, and after by a held-out fit.

        Each half of the pictures is calibrated by the fit on the other half.
        """
        fits = [fit_scores([one.halves[1 - half] for one in self.boxes]) for half in range(2)] if self.boxes else []
        every = [one.whole for one in self.boxes]
        chances = [
            np.concatenate([calibrated(fit, scores) for fit, (scores, _) in zip(fits, one.halves, strict=True)])
            for one in self.boxes
        ]
        titles = [one.title for one in self.boxes]
        if len(titles) > 1:
            titles.append("all")
            every.append((np.concatenate([s for s, _ in every]), np.concatenate([r for _, r in every])))
            chances.append(np.concatenate(chances))
        return [
            {
                "set": title,
                "boxes": int((after >= LEAST_SCORE).sum()),
                "ECE before": f"{calibration_error(scores, right):.3f}",
                "ECE after": f"{calibration_error(after, right):.3f}",
                "by chance": f"{error_by_chance(after):.3f}",
            }
            for title, (scores, right), after in zip(titles, every, chances, strict=True)
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        segmentation, detection = self.card.segmentation, self.card.detection
        unknown = None if segmentation is None else segmentation.unknown
        scores = None if detection is None else detection.calibration
        return {
            "unknown": None if unknown is None else unknown.model_dump(),
            "scores": None if scores is None else scores.model_dump(),
            "score_threshold": None if detection is None else detection.score_threshold,
            "pixels": self.pixel_rows(),
            "boxes": self.box_rows(),
        }


def calibrate(model: str | Path, suite: Suite, *, progress: Progress | None = None, **options: Any) -> Calibration:
    """Measure on labelled pictures how sure a network is of what it has right.

    Each set has the same weight. The pictures must be other ones than those that the network learnt from: of these it
    is surer than it is of any other.

    Args:
        model: name or file, see `load_model`.
        suite: from `read_suite`.
        progress: told of every picture.
        options: of `load_model`.

    Raises:
        SourceError: a set is missing or faulty, see `open_suite`.
        UsageError: the model has nothing in common with the sets.
        PerceptionError: the model cannot be loaded.
    """
    path = find_model(model)
    card = read_card(path)
    pixels: list[PixelSureness] = []
    boxes: list[BoxChances] = []
    for one in open_suite(suite, progress):
        tell = None if progress is None else _named(progress, f"measure {one.title}")
        try:
            if isinstance(one, OpenMasks) and card.segmentation is not None:
                pixels.append(_pixels(path, card, one, tell, options))
            elif isinstance(one, OpenBoxes) and card.detection is not None:
                boxes.append(_boxes(path, card, one, tell, options))
        except _NothingInCommon:
            continue
    if not pixels and not boxes:
        raise UsageError(f"{card.name} has nothing in common with any set of the suite {suite.name}")
    changes: dict[str, Any] = {}
    if pixels:
        assert card.segmentation is not None
        logits = weighted_quantiles([one.right for one in pixels], QUANTILES)
        scale = UnknownScale(
            id=len(card.segmentation.classes),
            logits=np.maximum.accumulate(logits.round(4)).tolist(),
            calibrated_on=[one.title for one in pixels],
        )
        changes["segmentation"] = card.segmentation.model_copy(update={"unknown": scale})
    if boxes:
        task = card.detection
        assert task is not None
        fit = fit_scores([one.whole for one in boxes]).model_copy(update={"calibrated_on": [b.title for b in boxes]})
        before = task.score_threshold if task.calibration is None else task.calibration.raw(task.score_threshold)
        threshold = round(fit.calibrated(before), 3)

        def moved(score: float) -> float:
            return fit.calibrated(score if task.calibration is None else task.calibration.raw(score))

        # tracks are to stay as they are, too
        tracking = (task.tracking or TrackingSettings.around(task.score_threshold)).with_scores(moved)
        changes["detection"] = task.model_copy(
            update={"calibration": fit, "score_threshold": threshold, "tracking": tracking}
        )
    return Calibration(card.model_copy(update=changes), pixels, boxes)


def weighted_quantiles(samples: Sequence[F32], count: int) -> NDArray[np.float64]:
    """Values below which the parts 0, 1 / (count - 1), ... 1 of the samples are, every sample weighing the same."""
    values = np.concatenate(samples).astype(np.float64)
    weights = np.concatenate([np.full(len(sample), 1 / len(sample)) for sample in samples])
    order = np.argsort(values, kind="stable")
    passed = np.cumsum(weights[order]) / weights.sum()
    at = np.searchsorted(passed, np.linspace(0, 1, count) - 1e-12)
    return np.asarray(values[order][np.minimum(at, len(values) - 1)])


def fit_scores(sets: Sequence[Scored]) -> ScoreCalibration:
    """Fit temperature and bias by maximum likelihood (Platt, "Probabilistic Outputs for SVMs", 1999).

    The second of two fits is on boxes that are not all but certainly wrong by the first: there are thousands of those.
    Where it explains them better, the line has a bend.

    Args:
        sets: scores ``[N]`` of the graph and whether the boxes are right ``[N]``; each weighs the same.

    Raises:
        UsageError: the scores tell nothing: all boxes are right, all are wrong, or the wrong ones have better scores.
    """
    first = _line(*_gathered(sets, 0.0))
    kept = _gathered(sets, first.raw(LEAST_SCORE / 2))
    second = _line(*kept)
    fit = second
    for _ in range(3):  # where it says a half, another one may say less
        fit = _bent_line(fit, second, *kept) or fit
    return fit


def _gathered(sets: Sequence[Scored], least: float) -> tuple[NDArray[np.float64], ...]:
    """Logits, truth and weights ``[N]`` of the boxes of at least that score."""
    parts = []
    for scores, right in sets:
        kept = (scores >= least) & (scores > 0) & (scores < 1)
        wide = scores[kept]
        even = np.full(len(wide), 1 / max(len(wide), 1))
        parts.append((np.log(wide / (1 - wide)), right[kept].astype(np.float64), even))
    return tuple(np.concatenate(values) for values in zip(*parts, strict=True))


def _line(x: NDArray[np.float64], target: NDArray[np.float64], weight: NDArray[np.float64]) -> ScoreCalibration:
    slope, bias = _maximum(np.stack((x, np.ones_like(x)), 1), target, weight).tolist()
    if not (len(x) and 0.01 <= slope <= 100 and abs(bias) <= 100):
        raise UsageError("the scores of these boxes do not tell right from wrong: there is nothing to calibrate")
    return ScoreCalibration(temperature=round(1 / slope, 4), bias=round(bias, 4))


def _bent_line(
    before: ScoreCalibration,
    straight: ScoreCalibration,
    x: NDArray[np.float64],
    target: NDArray[np.float64],
    weight: NDArray[np.float64],
) -> ScoreCalibration | None:
    """Fit a line with a bend where the straight one says a half; None if that explains the boxes no better.

    What better is, the information criterion of Akaike (1974) says: one parameter more.
    """
    bend = round(before.raw(0.5), 6)
    if not 0 < bend < 1:
        return None
    lines = np.stack((x, np.ones_like(x)), 1)
    bent = np.concatenate((lines, np.maximum(x - math.log(bend / (1 - bend)), 0)[:, None]), 1)
    found = _maximum(bent, target, weight)
    slope, bias, more = found.tolist()
    if not (0.01 <= slope <= 100 and 0.01 <= slope + more <= 100 and abs(bias) <= 100):
        return None
    boxes = weight.sum() ** 2 / (weight**2).sum()  # as many even ones would be as telling
    gain = _likelihood(bent @ found, target, weight) - _likelihood(
        lines @ [1 / straight.temperature, straight.bias], target, weight
    )
    if gain / weight.sum() * boxes < 1:
        return None
    return ScoreCalibration(
        temperature=round(1 / slope, 4), bias=round(bias, 4), bend=bend, upper_temperature=round(1 / (slope + more), 4)
    )


def _likelihood(line: NDArray[np.float64], target: NDArray[np.float64], weight: NDArray[np.float64]) -> float:
    return float((weight * (target * line - np.logaddexp(0, line))).sum())


def _maximum(
    columns: NDArray[np.float64], target: NDArray[np.float64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Logistic regression by maximum likelihood: coefficients of the columns, the first of which is a logit."""
    found = np.zeros(columns.shape[1])
    found[0] = 1.0
    for _ in range(100):  # Newton's method, in steps that are not too long
        chance = 1 / (1 + np.exp(-np.clip(columns @ found, -500, 500)))
        gradient = columns.T @ (weight * (chance - target))
        hessian = columns.T @ (columns * (weight * chance * (1 - chance))[:, None]) + 1e-12 * np.eye(len(found))
        step = np.linalg.solve(hessian, gradient)
        length = float(np.abs(step).max())
        found -= step * min(1.0, 2.0 / max(length, 1e-12))
        if length < 1e-9 or not np.abs(found).max() < 1e3:
            break
    return found


def calibrated(fit: ScoreCalibration, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return scores of the graph as chances."""
    return np.array([fit.calibrated(score) for score in scores.tolist()], np.float64)


def best_logits(class_map: LogitsClassMap, step: int = 1) -> F32:
    """float32 ``[ceil(H / step), ceil(W / step)]``: the best upsampled logit of every ``step``-th row and column."""
    box = class_map.letterbox
    (y0, y1, fy), (x0, x1, fx) = _taps(class_map.logits.shape[1:], box, step)
    ids = class_map.mask[::step, ::step]
    v = class_map.logits
    upper = v[ids, y0, x0] * (1 - fx) + v[ids, y0, x1] * fx
    lower = v[ids, y1, x0] * (1 - fx) + v[ids, y1, x1] * fx
    return np.asarray(upper * (1 - fy) + lower * fy, np.float32)


def _taps(shape: tuple[int, ...], box: Letterbox, step: int) -> list[tuple[Any, Any, Any]]:
    """Rows before and after, and the part of the way between them, of every pixel; the same of columns."""
    h, w = shape
    left, top, right, bottom = box.logits_window(h, w)
    taps = []
    for pixels, size, start, stop, form in (
        (box.frame_height, h, top, bottom, (-1, 1)),
        (box.frame_width, w, left, right, (1, -1)),
    ):
        place = start + (np.arange(0, pixels, step) + 0.5) * (stop - start) / pixels - 0.5
        place = np.clip(place, 0, size - 1).reshape(form)
        before = np.floor(place).astype(np.int64)
        taps.append((before, np.minimum(before + 1, size - 1), (place - before).astype(np.float32)))
    return taps


class _NothingInCommon(Exception):
    """The model has none of the set's classes."""


def _pixels(path: Path, card: ModelCard, one: OpenMasks, progress: Any, options: dict[str, Any]) -> PixelSureness:
    assert card.segmentation is not None
    try:
        labelling = one.labelling(card.segmentation)
    except UsageError:
        raise _NothingInCommon from None
    with load_model(path, mode="throughput", **options) as loaded:

        def work(index: int) -> tuple[F32, F32]:
            sample = one.folder.read(index)
            assert not isinstance(sample, Fault)  # it was checked
            class_map = loaded.predict(sample.image).class_map
            assert isinstance(class_map, LogitsClassMap)  # as of every engine
            truth: U8 = labelling.of_labels[sample.labels[::STEP, ::STEP]]
            found = labelling.of_masks[class_map.mask[::STEP, ::STEP]]
            best = best_logits(class_map, STEP)
            counts = truth != NO_CLASS
            return best[counts & (found == truth)], best[counts & (found != truth)]

        loaded.warmup(*loaded.size)
        total = len(one.folder)
        parts = list(in_order(work, range(total), total, loaded.engine.streams, progress))
    right, wrong = (np.concatenate(values) for values in zip(*parts, strict=True))
    if not len(right):
        raise UsageError(f"{card.name} has no pixel of {one.title} right: there is nothing to calibrate")
    return PixelSureness(one.title, right, wrong)


def _boxes(path: Path, card: ModelCard, one: OpenBoxes, progress: Any, options: dict[str, Any]) -> BoxChances:
    task = card.detection
    assert task is not None
    try:
        truth = one.truth(task)
    except UsageError:
        raise _NothingInCommon from None
    result = measure_boxes(path, card, truth, progress=progress, **options)
    halves = []
    for half in range(2):
        scores, right = counted_boxes(result.pairs[half::2], len(result.match.names))
        if task.calibration is not None:
            scores = np.array([task.calibration.raw(score) for score in scores.tolist()], np.float64)
        halves.append((scores, right))
    return BoxChances(one.title, halves)


def _named(progress: Progress, what: str) -> Any:
    return lambda done, total: progress(what, done, total)
