"""Accuracy of masks: IoU of each class over all pixels of a folder."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perception.errors import UsageError
from perception.evaluation.faults import Fault, refuse
from perception.evaluation.folders import LabelFolder, Sample, check_ignored
from perception.evaluation.labelling import Labelling, own_labelling
from perception.evaluation.metrics import NO_CLASS, ConfusionMatrix
from perception.evaluation.result import Confusion, Evaluation, Example, Rows, Worst, load_for, number_or_none
from perception.evaluation.workers import Progress, in_order
from perception.model import Model
from perception.types import U8


@dataclass(frozen=True, kw_only=True)
class SegmentationEvaluation(Evaluation):
    """See `Evaluation`.

    Attributes:
        confusion: pixels of all pictures together.
        labelling: the classes that were evaluated.
        unknown: part of the counted pixels that got no class, where the model may say so; else None.
    """

    confusion: ConfusionMatrix
    labelling: Labelling
    unknown: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """``miou``, ``iou`` by class (None where it is neither present nor predicted), ``pixel_accuracy``, ..."""
        iou = self.confusion.iou()
        return {
            "miou": self.confusion.mean_iou(),
            "iou": {name: number_or_none(iou[i]) for i, name in self.labelling.evaluated.items()},
            "pixel_accuracy": self.confusion.pixel_accuracy(),
            **({} if self.unknown is None else {"unknown": self.unknown}),
            "images": self.images,
            "ms_per_image": self.ms_per_image,
        }

    def tables(self) -> list[tuple[str, Rows]]:
        counts = self.confusion.counts
        iou = self.confusion.iou()
        hits, truth, found = np.diag(counts), counts.sum(1), counts.sum(0)
        total = max(int(counts.sum()), 1)
        rows: Rows = [
            {
                "class": name,
                "IoU": _cell(iou[i]),
                "precision": _cell(hits[i] / found[i] if found[i] else np.nan),
                "recall": _cell(hits[i] / truth[i] if truth[i] else np.nan),
                "pixels": f"{truth[i] / total:.2%}",
            }
            for i, name in self.labelling.evaluated.items()
        ]
        whole = {
            "mIoU": _cell(self.confusion.mean_iou()),
            "pixel accuracy": _cell(self.confusion.pixel_accuracy()),
            **({} if self.unknown is None else {"unknown": f"{self.unknown:.2%}"}),
            "images": self.images,
            "ms an image": round(self.ms_per_image, 2),
        }
        return [("classes", rows), ("all", [whole])]

    @property
    def confusion_table(self) -> Confusion:
        rows = list(self.labelling.evaluated)
        names = [self.labelling.names[i] for i in rows]
        return Confusion(names, self.labelling.names, self.confusion.counts[rows], "pixels")

    @property
    def legend(self) -> dict[str, tuple[int, int, int]]:
        return {name: self.labelling.colors[i] for i, name in self.labelling.evaluated.items()}


def evaluate_segmentation(
    model: str | Path,
    images: str | Path,
    labels: str | Path,
    *,
    ignore: Collection[int] = (),
    unknown: float | None = None,
    worst: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> SegmentationEvaluation:
    """Run a model over a folder of pictures and compare its masks with labels.

    Masks are compared at the size of the pictures, so labels are never resampled. The mean is over the classes that
    are present or predicted anywhere.

    Args:
        model: name or file, see `load_model`.
        images: folder of pictures.
        labels: folder of PNGs of the same stems and sizes; values are the model's class ids.
        ignore: label ids whose pixels count for nothing.
        unknown: see `perception.postprocess.post_processing.DetectionOptions`; a pixel without a class is missed by
            its own and held against none.
        worst: how many of the pictures with the lowest mean IoU to give back.
        progress: told of every picture.
        options: of `load_model`.

    Raises:
        SourceError: pictures or labels are missing, damaged, or do not fit each other or the model; all are named.
        PerceptionError: the model cannot be loaded or does no segmentation.
    """
    check_ignored(ignore)  # before the model is loaded
    with load_for("segmentation", model, unknown=unknown, **options) as loaded:
        task = loaded.card.segmentation
        assert task is not None
        folder = LabelFolder(images, labels, len(task.classes), ignore)
        return measure_masks(loaded, folder, own_labelling(task, ignore, bool(unknown)), worst=worst, progress=progress)


def measure_masks(
    loaded: Model,
    folder: LabelFolder,
    labelling: Labelling,
    *,
    worst: int = 0,
    progress: Progress | None = None,
) -> SegmentationEvaluation:
    """Run a loaded model over a folder and compare its masks with the labels, see `evaluate_segmentation`.

    Args:
        loaded: the model.
        folder: pictures with labels.
        labelling: what the ids on both sides stand for.
        worst, progress: see `evaluate_segmentation`.
    """
    faults = list(folder.faults)
    broken = threading.Event()  # from then on only faults are looked for
    if any(fault.fatal for fault in faults):
        broken.set()

    def work(index: int) -> Fault | tuple[_Compared, ConfusionMatrix, int, float] | None:
        sample = folder.read(index)
        if isinstance(sample, Fault):
            broken.set()
            return sample
        if broken.is_set():
            return None
        prediction = loaded.predict(sample.image)
        class_map = prediction.class_map
        assert class_map is not None
        start = time.perf_counter()
        mask = class_map.mask
        ms = sum(prediction.timings.values()) + (time.perf_counter() - start) * 1e3
        if class_map.unknown is not None:
            told.set()
        compared = _Compared(sample, labelling.of_labels[sample.labels], labelling.of_masks[mask])
        counts = ConfusionMatrix(len(labelling.names), labelling.ignored)
        counts.add(compared.found, compared.truth)
        unknown = int(((mask == class_map.unknown) & (compared.truth != NO_CLASS)).sum())
        return compared, counts, unknown, ms

    told = threading.Event()  # of pixels without a class
    loaded.warmup(*loaded.size)
    start = time.perf_counter()
    total = ConfusionMatrix(len(labelling.names), labelling.ignored)
    unknown = 0
    times: list[float] = []
    shown: Worst[tuple[float, _Compared]] = Worst(worst)
    for result in in_order(work, range(len(folder)), len(folder), loaded.engine.streams, progress):
        if isinstance(result, Fault):
            faults.append(result)
        elif result is not None:
            compared, counts, without_class, ms = result
            total.counts += counts.counts
            unknown += without_class
            times.append(ms)
            if counts.counts.any():
                miou = counts.mean_iou()
                shown.add(-miou, lambda: (miou, compared))  # noqa: B023 - called at once
    refuse(faults, len(folder), folder.images)
    if not total.counts.any():
        raise UsageError("every pixel of the labels is ignored, so there is nothing to measure", folder.labels)
    return SegmentationEvaluation(
        card=loaded.card,
        engine=loaded.engine.description,
        data=str(folder.images),
        images=len(times),
        ms_per_image=float(np.median(times)),
        seconds=time.perf_counter() - start,
        confusion=total,
        labelling=labelling,
        unknown=unknown / int(total.counts.sum()) if told.is_set() else None,
        examples=[_example(labelling, *item) for item in shown.items()],
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Compared:
    """A picture, and evaluated classes of its pixels ``[H, W]``: as they are, and as they were found."""

    sample: Sample
    truth: U8
    found: U8


def _example(labelling: Labelling, miou: float, compared: _Compared) -> Example:
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(labelling.colors)] = np.array(labelling.colors, np.uint8)[:, ::-1]
    image, truth, found = compared.sample.image, compared.truth, compared.found
    void = truth == NO_CLASS
    gray = np.repeat(image.mean(2, keepdims=True), 3, 2)
    mistakes = (gray / 2 + 64).astype(np.uint8)
    mistakes[(found != truth) & ~void] = (40, 40, 230)
    mistakes[void] = 0
    return Example(
        f"{compared.sample.name}: mIoU {miou:.3f}",
        [
            ("image", image),
            ("truth", np.where(void[..., None], np.uint8(0), _blend(image, palette[truth]))),
            ("prediction", _blend(image, palette[found])),
            ("mistakes", mistakes),
        ],
    )


def _blend(image: U8, colors: U8) -> U8:
    return ((image.astype(np.uint16) * 2 + colors.astype(np.uint16) * 3) // 5).astype(np.uint8)


def _cell(value: float) -> float | str:
    """Four decimals are what comparisons need; a dash where nothing is defined."""
    return f"{value:.4f}" if np.isfinite(value) else "-"
