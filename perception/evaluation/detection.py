"""Accuracy of boxes: average precision as COCO defines it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.card import ModelCard
from perception.common.distribution import require
from perception.errors import SourceError
from perception.evaluation.boxes import IGNORED, OVERLAP, BoxTruth, compare, draw_comparison
from perception.evaluation.classes import ClassMatch, match_classes
from perception.evaluation.coco import BoxedImage, CocoFile
from perception.evaluation.faults import Fault, listing, refuse
from perception.evaluation.precision import MAX_DETECTIONS, Truth, coco_precision
from perception.evaluation.result import (
    Confusion,
    Curve,
    Evaluation,
    Example,
    Rows,
    Worst,
    find_for,
    number_or_none,
)
from perception.evaluation.workers import Progress, in_order
from perception.model import load_model
from perception.postprocess.detection import nms
from perception.types import U8, Detections

SCORE_THRESHOLD = 0.01
"""Low, because average precision looks at the whole curve; lower changes the result by less than training does."""


@dataclass(frozen=True, kw_only=True)
class DetectionEvaluation(Evaluation):
    """See `Evaluation`.

    Attributes:
        match: the classes that were evaluated.
        boxes: boxes in truth by evaluated class, crowds not counted.
        precision: ``[T, R, K]`` at IoU thresholds 0.5, 0.55, ... 0.95, recalls 0, 0.01, ... 1, evaluated classes; -1
            where there is no box in truth.
        scores: the score that gives that recall, same shape.
        confusion: at the card's score threshold and an IoU of 0.5; last row: nothing there, last column: missed.
        left_out: boxes in truth by class that the model lacks.
        pairs: what is there in each picture and what was found, both with evaluated classes as ids.
    """

    match: ClassMatch
    boxes: list[int]
    precision: NDArray[np.float64]
    scores: NDArray[np.float64]
    confusion: NDArray[np.int64]
    left_out: dict[str, int]
    pairs: list[tuple[BoxedImage, Detections]]

    def average_precision(self, iou: float | None = None) -> NDArray[np.float64]:
        """AP of each evaluated class ``[K]``, mean over IoU 0.5 to 0.95 or at one IoU; NaN without boxes in truth."""
        chosen = self.precision if iou is None else self.precision[[round((iou - 0.5) / 0.05)]]
        return np.where(np.array(self.boxes) > 0, chosen.mean((0, 1)), np.nan)

    def as_dict(self) -> dict[str, Any]:
        """``map``, ``map50``, ``ap`` by class (``ap``, ``ap50``, ``ap75``; None without boxes in truth), ..."""
        each = [self.average_precision(iou) for iou in (None, 0.5, 0.75)]
        rows = zip(self.match.names, *each, strict=True)
        return {
            "map": float(np.nanmean(each[0])),
            "map50": float(np.nanmean(each[1])),
            "ap": {
                name: {"ap": number_or_none(ap), "ap50": number_or_none(ap50), "ap75": number_or_none(ap75)}
                for name, ap, ap50, ap75 in rows
            },
            "images": self.images,
            "ms_per_image": self.ms_per_image,
        }

    def tables(self) -> list[tuple[str, Rows]]:
        data = self.as_dict()
        rows: Rows = []
        for k, (name, ap) in enumerate(data["ap"].items()):
            if not self.boxes[k]:
                rows.append({"class": name, "AP": "-", "AP50": "-", "AP75": "-", "boxes": 0})
                continue
            precision, recall = self.precision[0, :, k], np.linspace(0, 1, self.precision.shape[1])
            f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-9)
            best = int(f1.argmax())
            rows.append(
                {"class": name}
                | {title: f"{ap[key]:.4f}" for title, key in (("AP", "ap"), ("AP50", "ap50"), ("AP75", "ap75"))}
                | {"boxes": self.boxes[k], "best F1": f"{f1[best]:.3f}", "at score": f"{self.scores[0, best, k]:.2f}"}
            )
        whole = {
            "mAP": f"{data['map']:.4f}",
            "mAP50": f"{data['map50']:.4f}",
            "images": self.images,
            "ms an image": round(self.ms_per_image, 2),
        }
        tables: list[tuple[str, Rows]] = [("classes", rows), ("all", [whole])]
        if self.left_out:
            lacking: Rows = [{"class": name, "boxes": boxes} for name, boxes in self.left_out.items()]
            tables.append(("left out: the model does not have these classes", lacking))
        return tables

    @property
    def confusion_table(self) -> Confusion:
        assert self.card.detection is not None
        counted = f"boxes with a score of at least {self.card.detection.score_threshold:g}, at an IoU of {OVERLAP:g}"
        rows, columns = [*self.match.names, "(nothing there)"], [*self.match.names, "(missed)"]
        return Confusion(rows, columns, self.confusion, counted)

    @property
    def curves(self) -> list[Curve]:
        recall = np.linspace(0, 1, self.precision.shape[1])
        return [
            Curve(f"{name}, AP50 {self.average_precision(0.5)[k]:.3f}", recall, self.precision[0, :, k])
            for k, name in enumerate(self.match.names)
            if self.boxes[k]
        ]


def evaluate_detection(
    model: str | Path,
    images: str | Path,
    annotations: str | Path,
    *,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    score_threshold: float = SCORE_THRESHOLD,
    worst: int = 0,
    progress: Progress | None = None,
    card: str | Path | None = None,
    **options: Any,
) -> DetectionEvaluation:
    """Run a model over the images of a COCO file and compare its boxes with the file's.

    Classes are matched by name, see `match_classes`; those that only one side has are left out. Boxes go through
    the model's own post-processing, with a low score threshold and at most `MAX_DETECTIONS` an image.

    Args:
        model: name or file, see `load_model`.
        images: folder of the pictures.
        annotations: the COCO file.
        synonyms: names of the model by names of the file, where they differ.
        score_threshold: boxes with a lower score do not exist; of scores as the graph gives them, not calibrated.
        worst: how many of the pictures with most mistakes (at the card's own score threshold) to give back.
        progress: told of every picture.
        card: YAML card of a foreign model.
        options: of `load_model`; boxes are suppressed within their class, whatever the card says, unless
            ``class_agnostic`` is among them: average precision is of each class by itself.

    Raises:
        SourceError: pictures are missing, damaged or of another size than the file says; all are named.
        UsageError: no class in common, or synonyms that do not fit.
        PerceptionError: the model cannot be loaded or does no detection.
    """
    path, card, read = find_for("detection", model, card)
    task = read.detection
    assert task is not None
    file = CocoFile(annotations, images)
    match = match_classes(task.names, list(file.categories.values()), synonyms)
    truth = BoxTruth(file, match, {key: match.of_data[n] for key, n in file.categories.items() if n in match.of_data})
    return measure_boxes(
        path, read, truth, score_threshold=score_threshold, worst=worst, progress=progress, card=card, **options
    )


def measure_boxes(
    path: Path,
    read: ModelCard,
    truth: BoxTruth,
    *,
    score_threshold: float = SCORE_THRESHOLD,
    worst: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> DetectionEvaluation:
    """Run a model over pictures and compare its boxes with what is there, see `evaluate_detection`.

    Args:
        path, read: file of the model, and its card.
        truth: pictures with boxes.
        score_threshold, worst, progress, options: see `evaluate_detection`.
    """
    require("faster_coco_eval", "eval", "evaluating boxes")
    task = read.detection
    assert task is not None
    file, match = truth.file, truth.match
    counts = file.box_counts()
    faults = list(file.faults)
    broken = threading.Event()  # from then on only faults are looked for
    if any(fault.fatal for fault in faults):
        broken.set()
    elif not any(counts[file.categories[key]] for key, k in truth.in_truth.items() if k != IGNORED):
        reason = f": {listing(faults)}" if faults else ""
        raise SourceError(f"this file has no boxes of the classes {', '.join(match.names)}{reason}", file.path)
    evaluated = np.full(len(task.classes), -1, np.int64)
    evaluated[list(match.of_model)] = list(match.of_model.values())
    joined = len(match.of_model) > len(match.names)
    given = options.get("iou_threshold")
    iou_threshold = task.iou_threshold if given is None else given
    least = score_threshold if task.calibration is None else task.calibration.calibrated(score_threshold)
    with load_model(
        path, mode="throughput", score_threshold=least, max_detections=MAX_DETECTIONS,
        classes=[task.names[i] for i in match.of_model], **{"class_agnostic": False} | options,
    ) as loaded:  # fmt: skip

        def work(image: BoxedImage) -> Fault | tuple[BoxedImage, Detections, float, U8] | None:
            picture = file.read(image)
            if isinstance(picture, Fault):
                broken.set()
                return picture
            if broken.is_set():
                return None
            prediction = loaded.predict(picture)
            found = prediction.detections
            assert found is not None
            found = Detections(found.boxes, found.scores, evaluated[found.class_ids].astype(np.int32))
            if joined:  # a thing found as two classes that now are one would count as wrong the second time
                found = found.select(nms(found.boxes, found.scores, found.class_ids, iou_threshold))
            return truth.of(image), found, sum(prediction.timings.values()), picture

        loaded.warmup(*loaded.size)
        start = time.perf_counter()
        times: list[float] = []
        pairs: list[tuple[BoxedImage, Detections]] = []
        confusion = np.zeros((len(match.names) + 1,) * 2, np.int64)
        shown: Worst[tuple[Any, ...]] = Worst(worst)
        for result in in_order(work, file.images, len(file.images), loaded.engine.streams, progress):
            if isinstance(result, Fault):
                faults.append(result)
            elif result is not None:
                there, found, ms, picture = result
                times.append(ms)
                pairs.append((there, found))
                likely = found.select(found.scores >= task.score_threshold)
                comparison = compare(there, likely, len(match.names))
                confusion += comparison.confusion
                shown.add(comparison.mistakes, lambda: (picture, there, likely, comparison))  # noqa: B023
        refuse(faults, file.entries, file.path, "images")
        objects = [_as_coco(there, len(match.names)) for there, _ in pairs]
        precision, scores = coco_precision(objects, [found for _, found in pairs], len(match.names))
        boxes: Counter[int] = Counter()
        for there, _ in pairs:
            boxes.update(there.category_ids[~there.crowd].tolist())
        colors = [
            task.classes[next(m for m, n in match.of_model.items() if n == k)].color for k in range(len(match.names))
        ]
        return DetectionEvaluation(
            card=loaded.card,
            engine=loaded.engine.description,
            data=str(file.path),
            images=len(times),
            ms_per_image=float(np.median(times)),
            seconds=time.perf_counter() - start,
            examples=[_example(match.names, colors, *item) for item in shown.items()],
            match=match,
            boxes=[boxes[k] for k in range(len(match.names))],
            precision=precision,
            scores=scores,
            confusion=confusion,
            left_out={name: counts[name] for name in match.left_out if name in counts},
            pairs=pairs,
        )


def _as_coco(image: BoxedImage, classes: int) -> Truth:
    """COCO's crowds belong to a class: a region that counts for nothing becomes one of each."""
    everywhere = image.category_ids == IGNORED
    times = np.where(everywhere, classes, 1)
    ids = np.repeat(image.category_ids, times)
    ids[ids == IGNORED] = np.tile(np.arange(classes), int(everywhere.sum()))
    return np.repeat(image.boxes, times, 0), ids, np.repeat(image.crowd, times), np.repeat(image.areas, times)


def _example(
    names: Sequence[str], colors: Sequence[tuple[int, int, int]], picture: U8, truth: BoxedImage, found: Detections,
    comparison: Any,
) -> Example:  # fmt: skip
    boxes = draw_comparison(picture, truth, found, comparison, names, colors)
    return Example(
        f"{truth.path.name}: {comparison.missed} missed, {comparison.wrong} wrong, of {int((~truth.crowd).sum())}",
        [("image", picture), ("truth (missed: dashed red)", boxes[0]), ("prediction (wrong: dashed red)", boxes[1])],
    )
