"""Panoptic quality (Kirillov et al., "Panoptic Segmentation", 2019)."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from perception.errors import SourceError
from perception.evaluation.classes import ClassMatch, match_classes
from perception.evaluation.faults import Fault, listing, refuse
from perception.evaluation.metrics import ConfusionMatrix
from perception.evaluation.panoptic_folder import PanopticFolder, PanopticImage, PanopticSample
from perception.evaluation.result import Confusion, Evaluation, Example, Rows, Worst, load_for, number_or_none
from perception.evaluation.workers import Progress, in_order
from perception.postprocess.panoptic import Panoptic, Segment
from perception.stages.panoptic import PanopticStage
from perception.types import U8

NO_CLASS = 255


@dataclass(frozen=True, slots=True)
class Quality:
    """Panoptic quality of a class: ``pq = sq * rq``.

    Attributes:
        matched: segments of prediction and truth whose IoU is above 0.5.
        overlap: sum of their IoU.
        false_positives, false_negatives: segments without a match, of the prediction and of the truth.
    """

    matched: int = 0
    overlap: float = 0.0
    false_positives: int = 0
    false_negatives: int = 0

    def __add__(self, other: Quality) -> Quality:
        return Quality(
            self.matched + other.matched,
            self.overlap + other.overlap,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
        )

    @property
    def sq(self) -> float:
        """Segmentation quality: mean IoU of the matched; 0 where there are none."""
        return self.overlap / self.matched if self.matched else 0.0

    @property
    def rq(self) -> float:
        """Recognition quality: F1 of the segments; NaN where there are none at all."""
        count = self.matched + 0.5 * (self.false_positives + self.false_negatives)
        return self.matched / count if count else float("nan")

    @property
    def pq(self) -> float:
        """Panoptic quality; NaN where the class has no segments at all."""
        return self.sq * self.rq


def panoptic_quality(truth: Panoptic, found: Panoptic, classes: int, crowd: Collection[int] = ()) -> list[Quality]:
    """Compute the quality of each class in one picture; qualities of pictures are added up.

    Two segments that overlap by more than half match, which at most one pair of each can. Pixels that the truth gives
    no segment count for nothing, and predicted segments that are mostly there, or on crowds of their class, are not
    held against anybody.

    Args:
        truth: segments as they are.
        found: predicted segments.
        classes: number of classes.
        crowd: segments of ``truth`` that are groups of things: they need not be found.
    """
    count = len(found.segments) + 1
    joint = np.bincount(
        (truth.ids.astype(np.int64) * count + found.ids).ravel(), minlength=(len(truth.segments) + 1) * count
    ).reshape(-1, count)
    qualities = [Quality()] * classes
    of_truth, of_found = {s.id: s for s in truth.segments}, {s.id: s for s in found.segments}
    taken_truth, taken_found = {*crowd}, set()
    ignored = joint[0].copy()  # pixels of each predicted segment that count for nothing
    for real_id, guess_id in np.argwhere(joint[1:, 1:] > 0) + 1:
        real, guess = of_truth[int(real_id)], of_found[int(guess_id)]
        if real.class_id != guess.class_id:
            continue
        common = int(joint[real_id, guess_id])
        if real.id in crowd:
            ignored[guess_id] += common
            continue
        iou = common / (real.area + guess.area - common - int(joint[0, guess_id]))
        if iou > 0.5:
            qualities[real.class_id] += Quality(1, iou)
            taken_truth.add(real.id)
            taken_found.add(guess.id)
    for real in truth.segments:
        qualities[real.class_id] += Quality(false_negatives=int(real.id not in taken_truth))
    for guess in found.segments:
        is_wrong = guess.id not in taken_found and ignored[guess.id] <= 0.5 * guess.area
        qualities[guess.class_id] += Quality(false_positives=int(is_wrong))
    return qualities


@dataclass(frozen=True, kw_only=True)
class PanopticEvaluation(Evaluation):
    """See `Evaluation`.

    Attributes:
        match: the classes that were evaluated.
        qualities: of each of these.
        things: of these, the ones whose instances are told apart.
        pixels: by class of the truth's and of the predicted segment.
        left_out: names of the data set that the model lacks.
    """

    match: ClassMatch
    qualities: list[Quality]
    things: frozenset[int]
    pixels: ConfusionMatrix
    left_out: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return ``pq``, ``sq``, ``rq`` of all, ``things``, ``stuff`` and each of ``classes``; None if undefined."""
        every = range(len(self.qualities))
        things = [k for k in every if k in self.things]
        return {
            **self._means(every),
            "things": self._means(things),
            "stuff": self._means([k for k in every if k not in self.things]),
            "classes": {name: self._means([k]) for k, name in enumerate(self.match.names)},
            "images": self.images,
            "ms_per_image": self.ms_per_image,
        }

    def _means(self, chosen: Collection[int]) -> dict[str, float | None]:
        present = [self.qualities[k] for k in chosen if np.isfinite(self.qualities[k].pq)]
        return {
            name: number_or_none(float(np.mean([getattr(q, name) for q in present]))) if present else None
            for name in ("pq", "sq", "rq")
        }

    def tables(self) -> list[tuple[str, Rows]]:
        data = self.as_dict()
        rows: Rows = [
            {
                "class": name,
                "kind": "thing" if k in self.things else "stuff",
                **{part.upper(): _cell(value) for part, value in data["classes"][name].items()},
                "matched": self.qualities[k].matched,
                "wrong": self.qualities[k].false_positives,
                "missed": self.qualities[k].false_negatives,
            }
            for k, name in enumerate(self.match.names)
        ]
        whole: Rows = [
            {"classes": title, **{part.upper(): _cell(means[part]) for part in ("pq", "sq", "rq")}}
            for title, means in (("all", data), ("things", data["things"]), ("stuff", data["stuff"]))
        ]
        speed: Rows = [{"images": self.images, "ms an image": round(self.ms_per_image, 2)}]
        tables = [("classes", rows), ("all", whole), ("speed", speed)]
        if self.left_out:
            tables.append(("left out: the model does not have these classes", [{"class": n} for n in self.left_out]))
        return tables

    @property
    def confusion_table(self) -> Confusion:
        return Confusion(self.match.names, self.match.names, self.pixels.counts, "pixels of segments")


def evaluate_panoptic(
    model: str | Path,
    images: str | Path,
    annotations: str | Path,
    *,
    segments: str | Path | None = None,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    things: Mapping[str, Sequence[str]] | None = None,
    worst: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> PanopticEvaluation:
    """Run a model over a folder in COCO's panoptic format and compare its segments with the file's.

    Classes of pixels are matched by name, see `match_classes`; those that only one side has are left out: their pixels
    count for nothing in the truth, and are no segments of the prediction.

    Args:
        model: name or file of a model that gives masks and boxes, see `load_model`.
        images: folder of the pictures.
        annotations: the JSON file.
        segments: folder of the PNGs; that of the JSON file's name without its suffix where None.
        synonyms: names of the model by names of the file, where they differ.
        things: boxes that show the pixels of a class, see `PanopticStage`.
        worst: how many of the pictures with the lowest mean quality to give back.
        progress: told of every picture.
        options: of `load_model`.

    Raises:
        SourceError: files are missing, damaged, or do not fit each other; all are named.
        UsageError: no class in common, synonyms that do not fit, or a model without masks or boxes.
        PerceptionError: the model cannot be loaded.
    """
    folder = PanopticFolder(annotations, images, segments)
    with load_for("segmentation", model, **options) as loaded:
        stage = PanopticStage(loaded.card, things)
        assert loaded.card.segmentation is not None
        match = match_classes(loaded.card.segmentation.names, list(folder.categories.values()), synonyms)
        count = len(match.names)
        in_truth = {key: match.of_data[name] for key, name in folder.categories.items() if name in match.of_data}
        faults = list(folder.faults)
        broken = threading.Event()  # from then on only faults are looked for
        if any(fault.fatal for fault in faults):
            broken.set()

        def work(image: PanopticImage) -> Fault | tuple[PanopticSample, Panoptic, list[Quality], float] | None:
            sample = folder.read(image, in_truth)
            if isinstance(sample, Fault):
                broken.set()
                return sample
            if broken.is_set():
                return None
            prediction = stage(loaded.predict(sample.image))
            assert prediction.panoptic is not None
            found = _evaluated(prediction.panoptic, match)
            qualities = panoptic_quality(sample.truth, found, count, sample.crowd)
            return sample, found, qualities, sum(prediction.timings.values())

        loaded.warmup(*loaded.size)
        start = time.perf_counter()
        times: list[float] = []
        total = [Quality()] * count
        pixels = ConfusionMatrix(count)
        shown: Worst[tuple[float, PanopticSample, Panoptic]] = Worst(worst)
        for result in in_order(work, folder.images, len(folder.images), loaded.engine.streams, progress):
            if isinstance(result, Fault):
                faults.append(result)
            elif result is not None:
                sample, found, qualities, ms = result
                times.append(ms)
                total = [a + b for a, b in zip(total, qualities, strict=True)]
                _count_pixels(sample.truth, found, pixels)
                present = [q.pq for q in qualities if np.isfinite(q.pq)]
                pq = float(np.mean(present)) if present else 1.0
                shown.add(-pq, lambda: (pq, sample, found))  # noqa: B023 - called at once
        refuse(faults, folder.entries, folder.path, "images")
        if not any(q.matched + q.false_negatives for q in total):
            reason = f": {listing(faults)}" if faults else ""
            raise SourceError(f"this file has no segments of the classes {', '.join(match.names)}{reason}", folder.path)
        return PanopticEvaluation(
            card=loaded.card,
            engine=loaded.engine.description,
            data=str(annotations),
            images=len(times),
            ms_per_image=float(np.median(times)),
            seconds=time.perf_counter() - start,
            examples=[_example(*item) for item in shown.items()],
            match=match,
            qualities=total,
            things=frozenset(in_truth[key] for key in folder.things if key in in_truth),
            pixels=pixels,
            left_out=match.left_out,
        )


def _evaluated(view: Panoptic, match: ClassMatch) -> Panoptic:
    """Renumber the segments of evaluated classes, with class ids of ``match``; stuff of one class is one."""
    table = np.zeros(len(view.segments) + 1, np.int32)
    kept: list[Segment] = []
    stuff: dict[int, int] = {}  # several classes of the model may stand for one of the data set
    for segment in view.segments:
        class_id = match.of_model.get(segment.class_id)
        if class_id is None:
            continue
        number = stuff.get(class_id) if segment.score is None else None
        if number is None:
            number = len(kept) + 1
            kept.append(Segment(number, class_id, segment.score, segment.area, segment.box))
            if segment.score is None:
                stuff[class_id] = number
        else:
            before = kept[number - 1]
            kept[number - 1] = Segment(number, class_id, None, before.area + segment.area, before.box)
        table[segment.id] = number
    return Panoptic(table[view.ids], kept, view.things)


def _count_pixels(truth: Panoptic, found: Panoptic, pixels: ConfusionMatrix) -> None:
    """Count classes of the pixels that have a segment on both sides."""
    tables = []
    for view in (truth, found):
        table = np.full(len(view.segments) + 1, NO_CLASS, np.uint8)
        table[[s.id for s in view.segments]] = [s.class_id for s in view.segments]
        tables.append(table[view.ids])
    real, guess = tables
    both = (real != NO_CLASS) & (guess != NO_CLASS)
    pixels.add(guess[both], real[both])


def _example(pq: float, sample: PanopticSample, found: Panoptic) -> Example:
    panels = [("image", sample.image), ("truth", _colored(sample.truth)), ("prediction", _colored(found))]
    return Example(f"{sample.name}: PQ {pq:.3f}", panels)


def _colored(view: Panoptic) -> U8:
    """Draw each segment in a colour of its own, uint8 ``[H, W, 3]``; pixels of none are black."""
    palette = np.random.default_rng(5).integers(60, 256, (len(view.segments) + 1, 3)).astype(np.uint8)
    palette[0] = 0
    made: U8 = palette[view.ids]
    return made


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
