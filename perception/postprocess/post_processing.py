"""From a network's outputs to a prediction, as the card and the user's options say."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from perception.card import ClassificationTask, DetectionTask, ModelCard, SegmentationTask
from perception.common.settings import nearest
from perception.errors import UsageError
from perception.picture.letterbox import Letterbox
from perception.types import F32, ClassMap, Detections

if TYPE_CHECKING:
    from perception.postprocess.detection import BoxDecoder

Suppression = Literal["nms", "soft-linear", "soft-gaussian"]

LABELS = 5
"""So many whole-image classes a prediction lists."""


def labels_of(output: str) -> str:
    """Return under which name an engine may give the argmax of class logits ``output``, uint8 ``[N, h, w]``."""
    return f"{output}/labels"


_log = logging.getLogger("perception")


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionOptions:
    """Thresholds, classes and suppression of post-processing. What is None is the card's.

    Attributes:
        score_threshold: least score of a detection, in 0..1, calibrated where the card says how: one for all classes,
            or by class name (the card's for the names left out). It filters: boxes and scores of what is left do not
            depend on it.
        iou_threshold: boxes that overlap more are suppressed, in 0..1.
        max_detections: most boxes a frame.
        classes: names of the classes to keep; other boxes and labels are dropped, other segments not drawn.
        nms: greedy suppression, or soft-NMS with linear or Gaussian decay (Bodla et al., "Soft-NMS: Improving
            Object Detection With One Line of Code", ICCV 2017).
        class_agnostic: suppress boxes across classes too.
        unknown: pixels of which the network is not sure are of no class: as many of those that it classifies
            correctly as this says, in 0..1, by the calibration in the card; most of what it takes for something that
            it is not goes with them. 0 or None: every pixel is of a class. 1: none is.
    """

    score_threshold: float | Mapping[str, float] | None = None
    iou_threshold: float | None = None
    max_detections: int | None = None
    classes: Sequence[str] | None = None
    nms: Suppression = "nms"
    class_agnostic: bool | None = None
    unknown: float | None = None


class PostProcessing:
    """Makes detections, class maps and labels of a network's outputs.

    Args:
        card: of the model.
        options: checked against the card.

    Raises:
        UsageError: an option is out of its range or does not fit the card.
    """

    def __init__(self, card: ModelCard, options: DetectionOptions) -> None:
        self._card = card
        nms, max_detections, classes = options.nms, options.max_detections, options.classes
        score_threshold, iou_threshold = options.score_threshold, options.iou_threshold
        if nms not in get_args(Suppression):
            raise UsageError(f"unknown suppression {nms!r}; choose one of: {', '.join(get_args(Suppression))}")
        if max_detections is not None and max_detections < 1:
            raise UsageError(f"max_detections must be at least 1, not {max_detections}")
        if iou_threshold is not None:
            _check_unit("iou_threshold", iou_threshold)
        for name in classes or ():
            _check_class(name, card)
        self._floor = _floor(card, options.unknown)
        self._ignored: tuple[int, ...] = ()
        if card.segmentation is not None:
            shown = _kept(card.segmentation, classes)
            self._ignored = tuple(sorted({*card.segmentation.ignored, *np.flatnonzero(~shown).tolist()}))
        if card.classification is not None:
            self._labels = _kept(card.classification, classes)
        task = card.detection
        if task is None:
            if score_threshold is not None or iou_threshold is not None or max_detections is not None:
                _log.info("%s has no detection head: score, IoU and max_detections have no effect", card.name)
            return
        self._decoder: BoxDecoder | None = None  # made with the first frame: its kernels are loaded for that
        keep = _kept(task, classes)
        self._decode_options: dict[str, Any] = {
            "score_threshold": _raw_threshold(task, _score_threshold(task, score_threshold, card)),
            "iou_threshold": task.iou_threshold if iou_threshold is None else iou_threshold,
            "max_detections": max_detections or task.max_detections,
            "class_agnostic": task.class_agnostic if options.class_agnostic is None else options.class_agnostic,
            "method": nms,
            "vote_iou": task.vote_iou,
            "calibration": task.calibration,
            "class_filter": None if keep.all() else tuple(np.flatnonzero(keep).tolist()),
        }

    def __call__(
        self, outputs: Mapping[str, F32], letterbox: Letterbox
    ) -> tuple[Detections | None, ClassMap | None, list[tuple[int, float]] | None]:
        """Interpret the outputs for the first frame of the batch.

        Returns:
            detections, class map and labels, see `perception.types.Prediction`.
        """
        card = self._card
        detections, class_map, labels = None, None, None
        if card.segmentation is not None:
            class_map = self._class_map(outputs, card.segmentation, letterbox)
        if card.detection is not None:
            detections = self._decode(outputs, card.detection, letterbox)
        if card.classification is not None:
            labels = _labels(outputs[card.classification.output][0], self._labels)
        return detections, class_map, labels

    def _class_map(self, outputs: Mapping[str, Any], task: SegmentationTask, letterbox: Letterbox) -> ClassMap:
        from perception.postprocess.class_maps import LogitsClassMap

        logits = outputs[task.output][0].astype(np.float32, copy=False)
        labels = outputs.get(labels_of(task.output))  # of engines with a GPU
        return LogitsClassMap(
            logits, letterbox, self._ignored, self._floor, labels=None if labels is None else labels[0]
        )

    def _decode(self, outputs: Mapping[str, F32], task: DetectionTask, letterbox: Letterbox) -> Detections:
        scores = outputs[task.scores][0]
        if self._decoder is None:
            from perception.postprocess.detection import BoxDecoder

            self._decoder = BoxDecoder(scores.shape[1], **self._decode_options)
        return self._decoder(outputs[task.boxes][0], scores, letterbox)


def _floor(card: ModelCard, unknown: float | None) -> float | None:
    """Return the logit below which pixels are unknown, or None where all are of a class."""
    if unknown is not None:
        _check_unit("unknown", unknown)
    if not unknown:
        return None
    if card.segmentation is None:
        _log.info("%s has no masks: unknown has no effect", card.name)
        return None
    if card.segmentation.unknown is None:
        raise UsageError(
            f"it was not measured how sure {card.name} is of its pixels, so that none can be unknown; "
            f"`perception eval calibrate` measures it"
        )
    return card.segmentation.unknown.floor(unknown)


def _kept(
    task: SegmentationTask | DetectionTask | ClassificationTask, classes: Sequence[str] | None
) -> NDArray[np.bool_]:
    """bool ``[C]``: the classes that are asked for."""
    return np.array([classes is None or name in classes for name in task.names])


def _score_threshold(task: DetectionTask, wanted: float | Mapping[str, float] | None, card: ModelCard) -> float | F32:
    if wanted is None:
        return task.score_threshold
    if isinstance(wanted, Mapping):
        for name, value in wanted.items():
            _check_class(name, card)
            _check_unit(f"score_threshold of {name}", value)
        return np.array([wanted.get(name, task.score_threshold) for name in task.names], np.float32)
    _check_unit("score_threshold", wanted)
    return wanted


def _raw_threshold(task: DetectionTask, wanted: float | F32) -> float | F32:
    """Return the threshold before calibration."""
    if task.calibration is None:
        return wanted
    from perception.postprocess.detection import raw_thresholds

    return raw_thresholds(np.broadcast_to(np.asarray(wanted, np.float32), len(task.classes)), task.calibration)


def _check_class(name: str, card: ModelCard) -> None:
    tasks = [task for task in (card.segmentation, card.detection, card.classification) if task is not None]
    known = list(dict.fromkeys(n for task in tasks for n in task.names))
    if name in known:
        return
    raise UsageError(f"{card.name} has no class {name!r}{nearest(name, known)}")


def _check_unit(what: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UsageError(f"{what} must be in 0..1, not {value}")


def _labels(probabilities: F32, kept: NDArray[np.bool_]) -> list[tuple[int, float]]:
    order = [int(i) for i in np.argsort(-probabilities, kind="stable") if kept[i]]
    return [(i, float(probabilities[i])) for i in order[:LABELS]]
