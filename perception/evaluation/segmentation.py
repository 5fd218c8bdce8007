"""Accuracy of masks: IoU of each class over all pixels of a folder."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from perception.card import ModelCard
from perception.errors import UsageError
from perception.evaluation.faults import Fault, refuse
from perception.evaluation.folders import LabelFolder, Sample, check_ignored
from perception.evaluation.metrics import ConfusionMatrix
from perception.evaluation.result import Confusion, Evaluation, Example, Rows, Worst, load_for, number_or_none
from perception.evaluation.workers import Progress, in_order
from perception.types import U8


@dataclass(frozen=True, kw_only=True)
class SegmentationEvaluation(Evaluation):
    """See `Evaluation`.

    Attributes:
        confusion: pixels of all pictures together.
    """

    confusion: ConfusionMatrix

    @property
    def names(self) -> list[str]:
        """Class names in the order of their ids."""
        assert self.card.segmentation is not None
        return self.card.segmentation.names

    def as_dict(self) -> dict[str, Any]:
        """``miou``, ``iou`` by class (None where it is neither present nor predicted), ``pixel_accuracy``, ..."""
        return {
            "miou": self.confusion.mean_iou(),
            "iou": dict(zip(self.names, map(number_or_none, self.confusion.iou()), strict=True)),
            "pixel_accuracy": self.confusion.pixel_accuracy(),
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
            for i, name in enumerate(self.names)
        ]
        whole = {
            "mIoU": _cell(self.confusion.mean_iou()),
            "pixel accuracy": _cell(self.confusion.pixel_accuracy()),
            "images": self.images,
            "ms an image": round(self.ms_per_image, 2),
        }
        return [("classes", rows), ("all", [whole])]

    @property
    def confusion_table(self) -> Confusion:
        return Confusion(self.names, self.names, self.confusion.counts, "pixels")

    @property
    def legend(self) -> dict[str, tuple[int, int, int]]:
        assert self.card.segmentation is not None
        return {c.name: c.color for c in self.card.segmentation.classes}


def evaluate_segmentation(
    model: str | Path,
    images: str | Path,
    labels: str | Path,
    *,
    ignore: Collection[int] = (),
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
        worst: how many of the pictures with the lowest mean IoU to give back.
        progress: told of every picture.
        options: of `load_model`.

    Raises:
        SourceError: pictures or labels are missing, damaged, or do not fit each other or the model; all are named.
        PerceptionError: the model cannot be loaded or does no segmentation.
    """
    check_ignored(ignore)  # before the model is loaded
    with load_for("segmentation", model, **options) as loaded:
        card = loaded.card
        assert card.segmentation is not None
        classes = len(card.segmentation.classes)
        folder = LabelFolder(images, labels, classes, ignore)
        faults = list(folder.faults)
        broken = threading.Event()  # from then on only faults are looked for
        if any(fault.fatal for fault in faults):
            broken.set()

        def work(index: int) -> Fault | tuple[Sample, U8, ConfusionMatrix, float] | None:
            sample = folder.read(index)
            if isinstance(sample, Fault):
                broken.set()
                return sample
            if broken.is_set():
                return None
            prediction = loaded.predict(sample.image)
            assert prediction.class_map is not None
            start = time.perf_counter()
            mask = prediction.class_map.mask
            ms = sum(prediction.timings.values()) + (time.perf_counter() - start) * 1e3
            counts = ConfusionMatrix(classes, ignore)
            counts.add(mask, sample.labels)
            return sample, mask, counts, ms

        loaded.warmup(*loaded.size)
        start = time.perf_counter()
        total = ConfusionMatrix(classes, ignore)
        times: list[float] = []
        shown: Worst[tuple[float, Sample, U8]] = Worst(worst)
        for result in in_order(work, range(len(folder)), len(folder), loaded.engine.streams, progress):
            if isinstance(result, Fault):
                faults.append(result)
            elif result is not None:
                sample, mask, counts, ms = result
                total.counts += counts.counts
                times.append(ms)
                if counts.counts.any():
                    miou = counts.mean_iou()
                    shown.add(-miou, lambda: (miou, sample, mask))  # noqa: B023 - called at once
        refuse(faults, len(folder), images)
        if not total.counts.any():
            raise UsageError("every pixel of the labels is ignored, so there is nothing to measure", labels)
        return SegmentationEvaluation(
            card=card,
            engine=loaded.engine.description,
            data=str(images),
            images=len(times),
            ms_per_image=float(np.median(times)),
            seconds=time.perf_counter() - start,
            confusion=total,
            examples=[_example(card, total.ignored, *item) for item in shown.items()],
        )


def _example(card: ModelCard, ignored: np.ndarray[Any, Any], miou: float, sample: Sample, mask: U8) -> Example:
    assert card.segmentation is not None
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(card.segmentation.classes)] = [c.color[::-1] for c in card.segmentation.classes]
    void = sample.labels >= len(ignored)
    void[~void] = ignored[sample.labels[~void]]
    gray = np.repeat(sample.image.mean(2, keepdims=True), 3, 2)
    mistakes = (gray / 2 + 64).astype(np.uint8)
    mistakes[(mask != sample.labels) & ~void] = (40, 40, 230)
    mistakes[void] = 0
    return Example(
        f"{sample.name}: mIoU {miou:.3f}",
        [
            ("image", sample.image),
            ("truth", np.where(void[..., None], np.uint8(0), _blend(sample.image, palette[sample.labels]))),
            ("prediction", _blend(sample.image, palette[mask])),
            ("mistakes", mistakes),
        ],
    )


def _blend(image: U8, colors: U8) -> U8:
    return ((image.astype(np.uint16) * 2 + colors.astype(np.uint16) * 3) // 5).astype(np.uint8)


def _cell(value: float) -> float | str:
    """Four decimals are what comparisons need; a dash where nothing is defined."""
    return f"{value:.4f}" if np.isfinite(value) else "-"
