"""Accuracy before and after quantisation, on labelled pictures, of every task of a model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perception.card import ModelCard
from perception.errors import UsageError
from perception.evaluation.classification import evaluate_classification
from perception.evaluation.detection import evaluate_detection
from perception.evaluation.segmentation import evaluate_segmentation

Progress = Callable[[str, int, int], None]
"""Called with what is done, how much of it is done, and how much there is."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Labelled pictures to measure on, as `perception.evaluation` takes them; None where there are none.

    Attributes:
        images, labels, ignore: pictures and label PNGs, see `evaluate_segmentation`.
        boxed, annotations, synonyms: pictures and COCO file, see `evaluate_detection`.
        labelled: pictures by class, see `evaluate_classification`.
        max_drop: how much of the mean IoU, and of the share of pictures classified correctly, may be lost.
        max_box_drop: how much of the mean average precision at an IoU of 0.5 may be lost.
    """

    images: Path | None = None
    labels: Path | None = None
    ignore: Collection[int] = ()
    boxed: Path | None = None
    annotations: Path | None = None
    synonyms: Mapping[str, Sequence[str]] = field(default_factory=dict)
    labelled: Path | None = None
    max_drop: float = 0.007
    max_box_drop: float = 0.01

    @property
    def limits(self) -> dict[str, float]:
        """The metrics that decide, and how much each may lose."""
        return {"miou": self.max_drop, "map50": self.max_box_drop, "accuracy": self.max_drop}

    def check(self, card: ModelCard) -> None:
        """Refuse labels for what the model does not do.

        Raises:
            UsageError: naming them.
        """
        given = {"segmentation": self.labels, "detection": self.annotations, "classification": self.labelled}
        for task, labels in given.items():
            if labels is not None and task not in card.tasks:
                raise UsageError(f"{card.name} does not do {task}, so it cannot be measured on these labels", labels)
        if min(self.max_drop, self.max_box_drop) < 0:
            raise UsageError("the accuracy that may be lost must be 0 or more")

    def measure(self, model: Path, precision: Any, progress: Progress | None = None) -> dict[str, float]:
        """Accuracy in OpenVINO: ``miou``, ``pixel_accuracy``, ``map50``, ``map``, ``accuracy``, as they apply.

        Args:
            model: the file.
            precision: see `perception.engines.open_engine`.
            progress: told of every picture.

        Raises:
            PerceptionError: labels or pictures are missing or damaged, or the model cannot be run.
        """

        def tell(what: str) -> Callable[[int, int], None] | None:
            return None if progress is None else lambda done, total: progress(what, done, total)

        options: dict[str, Any] = {"engine": "openvino", "precision": precision}
        metrics: dict[str, float] = {}
        if self.labels is not None and self.images is not None:
            masks = evaluate_segmentation(
                model, self.images, self.labels, ignore=self.ignore, progress=tell("measure masks"), **options
            ).as_dict()
            metrics |= {key: masks[key] for key in ("miou", "pixel_accuracy")}
        if self.annotations is not None and self.boxed is not None:
            boxes = evaluate_detection(
                model, self.boxed, self.annotations, synonyms=self.synonyms, progress=tell("measure boxes"), **options
            ).as_dict()
            metrics |= {key: boxes[key] for key in ("map50", "map")}
        if self.labelled is not None:
            metrics["accuracy"] = evaluate_classification(
                model, self.labelled, synonyms=self.synonyms, progress=tell("measure classes"), **options
            ).accuracy
        return metrics

    def too_much(self, before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
        """Return the losses that exceed what is allowed, by metric."""
        return {
            name: before[name] - after[name]
            for name, limit in self.limits.items()
            if name in before and before[name] - after[name] > limit
        }
