"""Accuracy of whole-image classes: how often the likeliest is the right one."""

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

from perception.errors import UsageError
from perception.evaluation.classes import match_classes
from perception.evaluation.faults import Fault, refuse
from perception.evaluation.labelled import LabelledPictures, open_labelled
from perception.evaluation.result import Confusion, Evaluation, Example, Rows, Worst, load_for
from perception.evaluation.workers import Progress, in_order
from perception.postprocess.post_processing import LABELS
from perception.types import U8


@dataclass(frozen=True, kw_only=True)
class ClassificationEvaluation(Evaluation):
    """See `Evaluation`.

    Attributes:
        confusion: int64 ``[C, C]`` pictures by true and by likeliest class.
        left_out: pictures by class that the model lacks.
        top_k: how many of the likeliest classes count in ``top_k_accuracy``.
        top_k_accuracy: share of the pictures whose right class is among them.
    """

    confusion: NDArray[np.int64]
    left_out: dict[str, int]
    top_k: int
    top_k_accuracy: float

    @property
    def accuracy(self) -> float:
        """Share of the pictures whose likeliest class is the right one."""
        return float(np.diag(self.confusion).sum() / self.confusion.sum())

    def as_dict(self) -> dict[str, Any]:
        """``accuracy``, ``error_percent``, ``confusion`` as rows of the truth, ``images``, and ``top_K_accuracy``."""
        row = {
            "accuracy": self.accuracy,
            "error_percent": 100 * (1 - self.accuracy),
            "confusion": self.confusion.tolist(),
            "images": self.images,
        }
        return row if self.top_k == 1 else {**row, f"top_{self.top_k}_accuracy": self.top_k_accuracy}

    def tables(self) -> list[tuple[str, Rows]]:
        rows: Rows = []
        names = self.confusion_table.rows
        for i, name in enumerate(names):
            images, taken_for = int(self.confusion[i].sum()), self.confusion[i].copy()
            if not images:
                continue
            taken_for[i] = 0
            often = int(taken_for.argmax())
            rows.append(
                {
                    "class": name,
                    "accuracy": f"{self.confusion[i, i] / images:.4f}",
                    "images": images,
                    "mostly mistaken for": f"{names[often]} ({taken_for[often]})" if taken_for[often] else "",
                }
            )
        whole = {
            "accuracy": f"{self.accuracy:.4f}",
            "error": f"{100 * (1 - self.accuracy):.2f}%",
            **({} if self.top_k == 1 else {f"top {self.top_k}": f"{self.top_k_accuracy:.4f}"}),
            "images": self.images,
            "ms an image": round(self.ms_per_image, 2),
        }
        tables: list[tuple[str, Rows]] = [("classes", rows), ("all", [whole])]
        if self.left_out:
            lacking: Rows = [{"class": name, "images": images} for name, images in self.left_out.items()]
            tables.append(("left out: the model does not have these classes", lacking))
        return tables

    @property
    def confusion_table(self) -> Confusion:
        assert self.card.classification is not None
        names = self.card.classification.names
        return Confusion(names, names, self.confusion, "images")


def evaluate_classification(
    model: str | Path,
    data: str | Path,
    *,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    top_k: int = 1,
    worst: int = 0,
    progress: Progress | None = None,
    **options: Any,
) -> ClassificationEvaluation:
    """Run a model over labelled pictures.

    Args:
        model: name or file, see `load_model`.
        data: folder or zip of ``class/name.jpg``, or NPZ, see `open_labelled`.
        synonyms: names of the model by names of the folders, where they differ; of several any is right.
        top_k: count also how often the right class is among the likeliest so many, at most as many as a prediction
            lists (`perception.postprocess.post_processing.LABELS`).
        worst: how many mistakes to give back, those that the model was surest of.
        progress: told of every picture.
        options: of `load_model`.

    Raises:
        SourceError: pictures are missing or damaged, or labels are not classes; all are named.
        UsageError: no class in common, synonyms that do not fit, or a ``top_k`` that predictions do not have.
        PerceptionError: the model cannot be loaded or does no classification.
    """
    if not 1 <= top_k <= LABELS:
        raise UsageError(f"a prediction lists the {LABELS} likeliest classes: top_k is 1 to {LABELS}, not {top_k}")
    with load_for("classification", model, **options) as loaded:
        task = loaded.card.classification
        assert task is not None
        pictures = open_labelled(data)
        truth, same, left_out = _truth(pictures, task.names, synonyms)
        faults = _unknown_ids(pictures, len(task.names)) if pictures.names is None else []
        chosen = [i for i, label in enumerate(truth) if label is not None]
        broken = threading.Event()  # from then on only faults are looked for
        if faults:
            broken.set()

        def work(index: int) -> Fault | tuple[int, list[tuple[int, float]], float, U8] | None:
            picture = pictures.read(index)
            if isinstance(picture, Fault):
                broken.set()
                return picture
            if broken.is_set():
                return None
            prediction = loaded.predict(picture)
            assert prediction.labels is not None
            return index, prediction.labels[:top_k], sum(prediction.timings.values()), picture

        loaded.warmup(*loaded.size)
        start = time.perf_counter()
        times: list[float] = []
        confusion = np.zeros((len(task.names),) * 2, np.int64)
        among = 0
        shown: Worst[Example] = Worst(worst)
        for result in in_order(work, chosen, len(chosen), loaded.engine.streams, progress):
            if isinstance(result, Fault):
                faults.append(result)
            elif result is not None:
                index, likeliest, ms, picture = result
                times.append(ms)
                right = truth[index]
                assert right is not None
                label = same[likeliest[0][0]]
                confusion[right, label] += 1
                among += right in [same[i] for i, _ in likeliest]
                if label != right:
                    taken_for = ", ".join(f"{task.names[same[i]]} ({p:.0%})" for i, p in likeliest)
                    caption = f"{task.names[right]}, taken for {taken_for}"
                    shown.add(
                        likeliest[0][1],
                        lambda: Example(f"{caption}: {pictures.name(index)}", [("image", picture)]),  # noqa: B023
                    )
        refuse(faults, len(pictures), data)
        return ClassificationEvaluation(
            card=loaded.card,
            engine=loaded.engine.description,
            data=str(data),
            images=len(times),
            ms_per_image=float(np.median(times)),
            seconds=time.perf_counter() - start,
            examples=shown.items(),
            confusion=confusion,
            left_out=left_out,
            top_k=top_k,
            top_k_accuracy=among / max(len(times), 1),
        )


def _truth(
    pictures: LabelledPictures, names: Sequence[str], synonyms: Mapping[str, Sequence[str]] | None
) -> tuple[list[int | None], list[int], dict[str, int]]:
    """Return each picture's class id (None: left out), each id's representative, and the pictures left out."""
    same = list(range(len(names)))
    if pictures.names is None:
        return [*pictures.labels], same, {}
    match = match_classes(names, pictures.names, synonyms)
    stands_for: dict[int, int] = {}
    for class_id, number in match.of_model.items():
        same[class_id] = stands_for.setdefault(number, class_id)
    ids = [stands_for[match.of_data[n]] if n in match.of_data else None for n in pictures.names]
    counts = Counter(pictures.labels)
    left_out = {name: counts[i] for i, name in enumerate(pictures.names) if ids[i] is None}
    return [ids[label] for label in pictures.labels], same, left_out


def _unknown_ids(pictures: LabelledPictures, classes: int) -> list[Fault]:
    return [
        Fault(pictures.name(i), f"label {label} is no class: the model has {classes}, from 0")
        for i, label in enumerate(pictures.labels)
        if not 0 <= label < classes
    ]
