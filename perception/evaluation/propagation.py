"""What is lost where the network sees only some of the frames: accuracy with and without, where the truth is known."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from perception.evaluation.folders import LabelFolder
from perception.evaluation.labelling import Labelling
from perception.evaluation.metrics import ConfusionMatrix
from perception.evaluation.moving_camera import MovingCamera
from perception.evaluation.precision import Truth, coco_precision
from perception.evaluation.result import number_or_none
from perception.model import Model
from perception.propagation.key_frames import KeyFrames
from perception.types import U8, Detections, Frame, Prediction

TruthOf = Callable[[Frame], tuple[Detections | None, U8] | None]
"""Boxes (None: not known) and label ids uint8 ``[H, W]`` of a frame; None where it has neither."""


@dataclass
class _Side:
    """What the network says of every frame, or what propagation makes of some."""

    confusion: ConfusionMatrix
    found: list[Detections] = field(default_factory=list)

    def add(self, prediction: Prediction, labels: U8, labelling: Labelling) -> None:
        assert prediction.class_map is not None
        self.confusion.add(labelling.of_masks[prediction.class_map.mask], labelling.of_labels[labels])


@dataclass(frozen=True)
class PropagationResult:
    """What was measured on one source.

    Attributes:
        name: of the source.
        frames: how many.
        seen: part of them that the network saw.
        judged: part of the frames with a truth whose results were propagated.
        miou: mean IoU with the truth: every frame seen, and propagated; None where there is no truth.
        ap50: mean AP50 over the classes that are there, the same way.
        other: part of the pixels that are of another class than the network says of the same frame.
    """

    name: str
    frames: int
    seen: float
    judged: float
    miou: tuple[float, float] | None
    ap50: tuple[float, float] | None
    other: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as a row."""
        row: dict[str, Any] = {"source": self.name, "frames": self.frames, "seen": self.seen, "judged": self.judged}
        for name, pair in (("miou", self.miou), ("ap50", self.ap50)):
            every, propagated = pair or (np.nan, np.nan)
            row |= {name: number_or_none(every), f"{name}_propagated": number_or_none(propagated)}
        return {**row, "other": self.other}


def measure_propagation(
    model: Model,
    sequences: Iterable[Iterable[Frame]],
    name: str,
    max_loss: float,
    truth: TruthOf | None = None,
    labelling: Labelling | None = None,
    classes: dict[int, int] | None = None,
) -> PropagationResult:
    """Predict every frame of sequences, and see what those get that the network would not have seen.

    Args:
        model: that makes masks.
        sequences: each propagated by itself.
        name: for the result.
        max_loss: see `perception.propagation.key_frames.KeyFrames`.
        truth: what is there in a frame.
        labelling: what the ids of labels stand for.
        classes: by the class ids of true boxes the model's own, of those that are compared.
    """
    count = 1 if labelling is None else len(labelling.names)
    ignored = () if labelling is None else labelling.ignored
    every, propagated = (_Side(ConfusionMatrix(count, ignored)) for _ in range(2))
    boxes: list[Truth] = []
    frames = seen_frames = labelled = judged = 0
    other = 0.0
    for sequence in sequences:
        for own, result in _both(model, KeyFrames(max_loss), sequence):
            seen = not result.propagated
            frames, seen_frames = frames + 1, seen_frames + seen
            assert own.class_map is not None and result.class_map is not None
            other += 0.0 if seen else float((own.class_map.mask != result.class_map.mask).mean())
            known = None if truth is None else truth(own.frame)
            if known is None or labelling is None:
                continue
            labelled, judged = labelled + 1, judged + (not seen)
            for side, prediction in ((every, own), (propagated, result)):
                side.add(prediction, known[1], labelling)
                if classes is not None and known[0] is not None:
                    side.found.append(_compared(prediction.detections, classes))
            if classes is not None and known[0] is not None:
                boxes.append(_truth(known[0], classes))
    sides = (every, propagated)
    return PropagationResult(
        name,
        frames,
        seen_frames / max(frames, 1),
        judged / max(labelled, 1),
        (every.confusion.mean_iou(), propagated.confusion.mean_iou()) if labelled else None,
        _pair(_ap50(boxes, side.found, len(classes or {})) for side in sides) if boxes else None,
        other / max(frames, 1),
    )


def _both(model: Model, keys: KeyFrames, sequence: Iterable[Frame]) -> Iterator[tuple[Prediction, Prediction]]:
    """What the network says of each frame, and what propagation does."""
    waiting: deque[Prediction] = deque()
    for frame in sequence:
        step = keys.next(frame)
        own = model.predict(frame)
        waiting.append(own)
        for result in keys.results(own if step.seen else Prediction(frame), step):
            yield waiting.popleft(), result
    for result in keys.rest():
        yield waiting.popleft(), result


def _pair(values: Iterable[float]) -> tuple[float, float]:
    """Return two values as a pair."""
    first, second = values
    return first, second


def _truth(there: Detections, classes: dict[int, int]) -> Truth:
    kept = np.isin(there.class_ids, list(classes))
    boxes = there.boxes[kept]
    ids = np.array([list(classes).index(int(k)) for k in there.class_ids[kept]], np.int64)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).astype(np.float64)
    return boxes, ids, np.zeros(len(ids), np.bool_), areas


def _compared(found: Detections | None, classes: dict[int, int]) -> Detections:
    if found is None:
        return Detections.empty()
    own = list(classes.values())
    kept = np.isin(found.class_ids, own)
    ids = np.array([own.index(int(k)) for k in found.class_ids[kept]], found.class_ids.dtype)
    return Detections(found.boxes[kept], found.scores[kept], ids)


def _ap50(truth: list[Truth], found: list[Detections], classes: int) -> float:
    precision, _ = coco_precision(truth, found, classes)
    there = precision[0].max(axis=0) >= 0
    return float(precision[0][:, there].mean()) if there.any() else float("nan")


def measure_labelled_propagation(
    model: Model, folder: LabelFolder, labelling: Labelling, max_loss: float
) -> PropagationResult:
    """Measure with labelled pictures, each the last of two to four frames of a camera that moves.

    Raises:
        SourceError: pictures or labels are damaged, or do not fit each other; all are named.
    """
    camera = MovingCamera(folder, varying=True)

    def truth(frame: Frame) -> tuple[Detections | None, U8] | None:
        labels = camera.labels_of(frame)
        return None if labels is None else (None, labels)

    result = measure_propagation(model, camera, str(folder.images), max_loss, truth, labelling)
    camera.refuse_faults()
    return result
