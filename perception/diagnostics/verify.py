"""Compare engines: every one that is installed, on the same frames, with a reference.

for agreement in verify("street-open", frames):
    print(agreement.engine, agreement.precision, agreement.mask)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from perception.engines import ENGINES, engine_status
from perception.errors import EngineError, UsageError
from perception.model import Model, load_model
from perception.postprocess.class_maps import LogitsClassMap
from perception.types import F32, Detections, Frame, Prediction
from perception.weights.library import find_model

if TYPE_CHECKING:
    from perception.engines import Precision

REFERENCES = ("torch", "onnxruntime", "openvino")
"""The others are compared with the first of these that is installed, in fp32."""

MATCH_IOU = 0.9
"""Boxes of a class that overlap at least so much are the same box."""

EXPECTED: dict[str, float] = {"fp32": 0.999, "fp16": 0.98, "bf16": 0.97, "int8": 0.5}
"""Least share of pixels, and of boxes, that agree with fp32 where nothing is wrong.

What is lost to rounding; in eight bits more than that, for the quantised model is another one, with weights of its own.
"""

_REFERENCE = "reference: "

_PRECISIONS: tuple[Precision, ...] = ("fp32", "auto")


@dataclass(slots=True)
class Agreement:
    """Agreement of one engine with the reference; None where the model or the engine has nothing to compare.

    Attributes:
        engine, precision: of the engine that was compared.
        description: one line about that engine.
        logits: largest absolute difference of the class logits.
        mask: share of pixels with the same class, 0..1, over all frames.
        worst_mask: the same for the frame that agrees least.
        boxes: share of the boxes of both sides that have a partner on the other, 0..1.
        scores: largest difference of the scores of partners.
        probabilities: largest difference of the whole-image probabilities that both list.
        fault: why the engine did not run, or empty.
    """

    engine: str
    precision: str
    description: str = ""
    logits: float | None = None
    mask: float | None = None
    worst_mask: float | None = None
    boxes: float | None = None
    scores: float | None = None
    probabilities: float | None = None
    fault: str = ""

    @property
    def least(self) -> float:
        """Lower of the shares of pixels and of boxes; 1 where there is neither, 0 after a fault."""
        return 0.0 if self.fault else min([1.0] + [share for share in (self.mask, self.boxes) if share is not None])

    @property
    def verdict(self) -> Literal["reference", "good", "quantised", "differs", "failed"]:
        """Whether it agrees as far as its precision allows, by `EXPECTED`."""
        if self.fault:
            return "failed"
        if self.description.startswith(_REFERENCE):
            return "reference"
        if self.least < EXPECTED[self.precision]:
            return "differs"
        return "quantised" if self.precision == "int8" else "good"


def verify(
    model: str | Path, frames: Iterable[Frame], *, card: Path | None = None, engines: tuple[str, ...] = ENGINES
) -> list[Agreement]:
    """Run every installed engine, in fp32 and in its preferred precision, on the same frames.

    Args:
        model, card: see `perception.load_model`.
        frames: to run on; all are kept in memory.
        engines: names of the engines to compare.

    Returns:
        The reference first, compared with nothing, then the others.

    Raises:
        ModelError: no such model, or it is unusable.
        EngineError: no reference is installed, or it fails.
        UsageError: there are no frames.
    """
    find_model(model)
    kept = list(frames)
    if not kept:
        raise UsageError("there are no frames to compare the engines on")
    reference = next((name for name in REFERENCES if name in engines and engine_status(name)[0]), None)
    if reference is None:
        raise EngineError(f"there is nothing to compare with: install one of {', '.join(REFERENCES)}")
    with load_model(model, card=card, engine=reference, precision="fp32") as loaded:
        truth = [loaded.predict(frame) for frame in kept]
        results = [Agreement(reference, loaded.engine.precision, _REFERENCE + loaded.engine.description)]
    done = {(reference, "fp32")}
    for name in engines:
        for precision in _PRECISIONS:
            if not engine_status(name)[0] or (name == "torch" and precision == "auto"):
                continue
            try:
                with load_model(model, card=card, engine=name, precision=precision) as other:
                    if (name, other.engine.precision) in done:
                        continue
                    done.add((name, other.engine.precision))
                    results.append(_compare(other, kept, truth))
            except EngineError as error:
                results.append(Agreement(name, precision, fault=str(error)))
    return results


def _compare(model: Model, frames: list[Frame], truth: list[Prediction]) -> Agreement:
    result = Agreement(model.engine.name, model.engine.precision, model.engine.description)
    same_pixels, matched, boxes = [], 0, 0
    for frame, wanted in zip(frames, truth, strict=True):
        got = model.predict(frame)
        if got.class_map is not None and wanted.class_map is not None:
            same_pixels.append(float((got.class_map.mask == wanted.class_map.mask).mean()))
            if isinstance(got.class_map, LogitsClassMap) and isinstance(wanted.class_map, LogitsClassMap):
                result.logits = _largest(result.logits, got.class_map.logits - wanted.class_map.logits)
        if got.detections is not None and wanted.detections is not None:
            pairs = match_boxes(got.detections, wanted.detections)
            matched += 2 * len(pairs)
            boxes += len(got.detections) + len(wanted.detections)
            differences = [got.detections.scores[i] - wanted.detections.scores[j] for i, j in pairs]
            result.scores = _largest(result.scores, np.array(differences, np.float32))
        if got.labels is not None and wanted.labels is not None:
            listed = dict(got.labels)
            common = [listed[i] - p for i, p in wanted.labels if i in listed]
            result.probabilities = _largest(result.probabilities, np.array(common, np.float32))
    if same_pixels:
        result.mask, result.worst_mask = float(np.mean(same_pixels)), min(same_pixels)
    if result.scores is not None:
        result.boxes = matched / boxes if boxes else 1.0
    return result


def match_boxes(ours: Detections, theirs: Detections, iou: float = MATCH_IOU) -> list[tuple[int, int]]:
    """Pair the indices of boxes that are the same: one partner each, best score first, best overlap wins."""
    pairs: list[tuple[int, int]] = []
    free = np.ones(len(theirs), bool)
    for i in range(len(ours)):
        overlap = np.where(free & (theirs.class_ids == ours.class_ids[i]), _overlaps(ours.boxes[i], theirs.boxes), 0)
        if len(overlap) and overlap.max() >= iou:
            j = int(overlap.argmax())
            free[j] = False
            pairs.append((i, j))
    return pairs


def _overlaps(box: F32, boxes: F32) -> F32:
    """Compute the intersection over union of one box ``[4]`` with each of ``[N, 4]``, xyxy."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    inter = np.prod(np.clip(sides, 0, None), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return np.asarray(inter / np.maximum(areas - inter, 1e-9), np.float32)


def _largest(so_far: float | None, differences: F32) -> float:
    return max(so_far or 0.0, float(np.abs(differences).max(initial=0.0)))
