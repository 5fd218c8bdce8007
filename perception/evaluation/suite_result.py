"""Accuracy of models on the sets of a suite: measured, as a table, as pictures, and as it is kept in a card."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perception.card import ModelCard, SetAccuracy, SuiteAccuracy, read_card
from perception.drawing.contact_sheet import contact_sheet
from perception.errors import UsageError
from perception.evaluation.calibration_error import calibration_error, counted_boxes
from perception.evaluation.detection import DetectionEvaluation, measure_boxes
from perception.evaluation.result import Evaluation, Rows
from perception.evaluation.segmentation import SegmentationEvaluation, measure_masks
from perception.evaluation.suite import OpenBoxes, OpenMasks, OpenSet, Progress, Suite, open_suite
from perception.model import load_model
from perception.sinks.picture import write_picture
from perception.weights.library import find_model

HEADLINES = {"segmentation": ("miou", "mIoU"), "detection": ("map50", "mAP50")}
"""The metric that stands for a set, by its kind: in cards, and in tables."""

PANEL_WIDTH = 480


@dataclass(frozen=True)
class MeasuredModel:
    """A model on the sets that it can be measured on.

    Attributes:
        name: as it was asked for: a name, or the stem of a file.
        card: of the model.
        engine: one line about what ran it.
        sets: accuracy by title of the set, in the suite's order; those that it has nothing in common with are left out.
        left_out: classes that are labelled and that the model lacks, by title.
        failures: the worst pictures by title.
    """

    name: str
    card: ModelCard
    engine: str
    sets: dict[str, SetAccuracy]
    left_out: dict[str, list[str]]
    failures: dict[str, Evaluation]

    def accuracy(self, suite: str) -> SuiteAccuracy:
        """Return what a card keeps."""
        return SuiteAccuracy(name=suite, sets=list(self.sets.values()))


@dataclass(frozen=True)
class SuiteResult:
    """Accuracy of models on the sets of a suite.

    Attributes:
        name: of the suite.
        models: the models, in the order that they were asked for.
    """

    name: str
    models: list[MeasuredModel]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        models = [
            {
                "model": model.name,
                "version": model.card.version,
                "engine": model.engine,
                "sets": [
                    {**accuracy.model_dump(), "left_out": model.left_out[title]}
                    for title, accuracy in model.sets.items()
                ],
            }
            for model in self.models
        ]
        return {"suite": self.name, "models": models}

    def rows(self) -> Rows:
        """Return the table for people: a row for each set and one for each of its classes, a column for each model."""
        return table({model.name: model.accuracy(self.name) for model in self.models})

    def write_failures(self, folder: Path, overwrite: bool = False) -> list[Path]:
        """Write the worst pictures as ``FOLDER/MODEL/SET/01-NAME.png``, truth beside prediction.

        Raises:
            UsageError: one is there and ``overwrite`` is False.
            SinkError: it cannot be written.
        """
        written = []
        for model in self.models:
            for title, evaluation in model.failures.items():
                for number, example in enumerate(evaluation.examples, 1):
                    stem = _file_name(Path(example.caption.partition(": ")[0]).stem)
                    path = folder / _file_name(model.name) / _file_name(title) / f"{number:02d}-{stem}.png"
                    panels = [panel for _, panel in example.panels]
                    write_picture(path, contact_sheet(panels, len(panels), PANEL_WIDTH), overwrite=overwrite)
                    written.append(path)
        return written


def evaluate_suite(
    models: Sequence[str | Path],
    suite: Suite,
    *,
    worst: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> SuiteResult:
    """Measure models on all sets of a suite.

    A model is measured on those sets whose task it does and with which it has a class in common.

    Args:
        models: names or files, see `load_model`.
        suite: from `read_suite`.
        worst: how many of the worst pictures of each set to give back.
        progress: told of every picture.
        options: of `load_model`.

    Raises:
        SourceError: a set is missing or faulty, see `open_suite`.
        UsageError: two models of one name, or one that can be measured on no set.
        PerceptionError: a model cannot be loaded.
    """
    names = [Path(model).stem for model in models]
    if len(set(names)) < len(names):
        raise UsageError(
            f"two models are called {next(n for n in names if names.count(n) > 1)}: give files other names"
        )
    paths = [find_model(model) for model in models]
    cards = [read_card(path) for path in paths]
    opened = open_suite(suite, progress)
    plans = [list(_plan(card, opened)) for card in cards]
    for name, plan in zip(names, plans, strict=True):
        if not plan:
            raise UsageError(f"{name} has nothing in common with any set of the suite {suite.name}")
    measured = []
    for name, path, card, plan in zip(names, paths, cards, plans, strict=True):
        sets, left_out, failures, engine = {}, {}, {}, ""
        for one, matched in plan:
            tell = None if progress is None else _named(progress, f"{name} on {one.title}")
            result = _measure(path, card, one, matched, worst=worst, progress=tell, **options)
            sets[one.title] = _accuracy(one.title, result)
            left_out[one.title] = _left_out(result)
            engine = result.engine
            if worst:
                failures[one.title] = result
        measured.append(MeasuredModel(name, card, engine, sets, left_out, failures))
    return SuiteResult(suite.name, measured)


def table(models: Mapping[str, SuiteAccuracy]) -> Rows:
    """Return rows of what is measured and of the accuracy in it, with a column for each model."""
    rows: Rows = []
    for title, measured in _by_set(models).items():
        one = next(iter(measured.values()))
        key, metric = HEADLINES[one.kind]
        row: dict[str, Any] = {"set": title, "pictures": one.images, "accuracy": metric}
        rows.append(row | {model: _cell(measured, model, "metrics", key) for model in models})
        for name in dict.fromkeys(name for accuracy in measured.values() for name in accuracy.classes):
            row = {"set": "", "pictures": "", "accuracy": name}
            rows.append(row | {model: _cell(measured, model, "classes", name) for model in models})
    return rows


def markdown(models: Mapping[str, SuiteAccuracy]) -> str:
    """Return a table of the sets in Markdown, a column for each model; of a single one with its classes, too."""
    alone = len(models) == 1
    lines = [["set", "pictures", "accuracy", *models, *(["by class"] if alone else [])]]
    lines.append(["---", "---:", "---", *["---:" for _ in models], *(["---"] if alone else [])])
    for title, measured in _by_set(models).items():
        one = next(iter(measured.values()))
        key, metric = HEADLINES[one.kind]
        classes = ", ".join(f"{name} {value:.2f}" for name, value in one.classes.items())
        values = [_cell(measured, model, "metrics", key) for model in models]
        lines.append([title, str(one.images), metric, *values, *([classes] if alone else [])])
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _by_set(models: Mapping[str, SuiteAccuracy]) -> dict[str, dict[str, SetAccuracy]]:
    """Return accuracy by model, by title of the set."""
    found: dict[str, dict[str, SetAccuracy]] = {}
    for model, accuracy in models.items():
        for one in accuracy.sets:
            found.setdefault(one.set, {})[model] = one
    return found


def _cell(measured: Mapping[str, SetAccuracy], model: str, part: str, name: str) -> str:
    values = getattr(measured[model], part) if model in measured else {}
    return f"{values[name]:.3f}" if name in values else "-"


def _plan(card: ModelCard, sets: Sequence[OpenSet]) -> Iterator[tuple[OpenSet, Any]]:
    """Yield the sets that a model can be measured on, with how its classes are matched."""
    for one in sets:
        try:
            if isinstance(one, OpenMasks) and card.segmentation is not None:
                yield one, one.labelling(card.segmentation)
            elif isinstance(one, OpenBoxes) and card.detection is not None:
                yield one, one.truth(card.detection)
        except UsageError:  # no class in common
            continue


def _measure(path: Path, card: ModelCard, one: OpenSet, matched: Any, **options: Any) -> Evaluation:
    if isinstance(one, OpenBoxes):
        options.pop("unknown", None)
        return measure_boxes(path, card, matched, **options)
    worst, progress = options.pop("worst"), options.pop("progress")
    with load_model(path, mode="throughput", **options) as loaded:
        return measure_masks(loaded, one.folder, matched, worst=worst, progress=progress)


def _accuracy(title: str, result: Evaluation) -> SetAccuracy:
    data = result.as_dict()
    metrics: dict[str, Any]
    if isinstance(result, SegmentationEvaluation):
        classes = data["iou"]
        metrics = {name: data[name] for name in ("miou", "pixel_accuracy", "unknown") if name in data}
        kind = "segmentation"
    else:
        assert isinstance(result, DetectionEvaluation)
        classes = {name: values["ap50"] for name, values in data["ap"].items()}
        scores, right = counted_boxes(result.pairs, len(result.match.names))
        metrics = {"map50": data["map50"], "map": data["map"], "ece": calibration_error(scores, right)}
        kind = "detection"
    return SetAccuracy.model_validate(
        {
            "set": title,
            "kind": kind,
            "images": result.images,
            "metrics": {name: round(float(value), 4) for name, value in metrics.items() if np.isfinite(value)},
            "classes": {name: round(value, 4) for name, value in classes.items() if value is not None},
        }
    )


def _left_out(result: Evaluation) -> list[str]:
    if isinstance(result, SegmentationEvaluation):
        return list(result.labelling.left_out)
    assert isinstance(result, DetectionEvaluation)
    return result.match.left_out


def _named(progress: Progress, what: str) -> Any:
    return lambda done, total: progress(what, done, total)


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text) or "_"
