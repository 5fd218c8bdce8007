"""Detections from boxes and scores: threshold, non-maximum suppression, soft-NMS."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perception.postprocess import suppression
from perception.types import F32, Detections

if TYPE_CHECKING:
    from perception.common.calibration import ScoreCalibration
    from perception.picture.letterbox import Letterbox

NmsMethod = Literal["nms", "soft-linear", "soft-gaussian"]

MAX_CANDIDATES = 30_000
"""Only that many best-scored boxes of a frame meet suppression, whose time grows with the square of their number."""

VOTE_SHARE = 0.5
"""A box is voted on by candidates with at least this part of its own score; one below has less than 1/8 of its weight.

It follows the box's score and not the threshold, so that a threshold moves no box."""

_VOTE_SHARE = np.float32(VOTE_SHARE)


def decode(
    boxes: F32,
    scores: F32,
    letterbox: Letterbox,
    *,
    score_threshold: float | ArrayLike = 0.3,
    iou_threshold: float = 0.6,
    max_detections: int = 300,
    class_agnostic: bool = False,
    method: NmsMethod = "nms",
    sigma: float = 0.5,
    vote_iou: float | None = None,
    class_filter: Iterable[int] | None = None,
    calibration: ScoreCalibration | None = None,
) -> Detections:
    """Decode the detections of one frame from a network's outputs.

    Every pair of box and class with enough score is a candidate. Candidates are moved to the frame and clipped to it;
    those with a NaN or infinite coordinate or without area are dropped; then the chosen method suppresses doubles, by
    default within each class.

    Thresholds filter and do nothing else: what a higher one returns is what a lower one returns less the detections
    below it, with the same boxes and scores.

    Args:
        boxes: float32 ``[K, 4]`` xyxy in input pixels.
        scores: float32 ``[K, C]`` in 0..1; NaN never passes.
        letterbox: how the frame was fitted into the network's input.
        score_threshold: least score, one number or ``[C]``; soft-NMS also drops what it lowers below that.
        iou_threshold: boxes that overlap a better one by more are dropped (``nms``) or lowered (``soft-linear``).
        max_detections: at most this many are returned.
        class_agnostic: let boxes of different classes suppress each other.
        method: ``nms``, or soft-NMS (Bodla et al., "Soft-NMS: Improving Object Detection With One Line of Code",
            ICCV 2017): ``soft-linear`` multiplies a score by ``1 - iou``, ``soft-gaussian`` by ``exp(-iou^2 / sigma)``.
        sigma: width of ``soft-gaussian``.
        vote_iou: each box that ``nms`` keeps becomes the mean of the candidates of its class that overlap it at least
            so much, weighted by the cube of their scores (box voting: Gidaris & Komodakis, "Object detection via a
            multi-region & semantic segmentation-aware CNN model", ICCV 2015). Those with less than `VOTE_SHARE` of
            the box's score have no vote, others do even below the threshold. None leaves boxes as they are.
        class_filter: class ids to keep; None keeps all.
        calibration: makes the scores of what is returned chances. It changes neither which boxes these are nor
            their order; ``score_threshold`` is of scores as they come, see `raw_thresholds`.

    Returns:
        Detections sorted by score, highest first, ties by index of the box and then of the class. Scores are those
        after soft-NMS, calibrated.

    Raises:
        ValueError: shapes do not fit together, or an option is out of range.
    """
    boxes, scores = _checked(boxes, scores)
    decoder = BoxDecoder(
        scores.shape[1],
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        max_detections=max_detections,
        class_agnostic=class_agnostic,
        method=method,
        sigma=sigma,
        vote_iou=vote_iou,
        class_filter=class_filter,
        calibration=calibration,
    )
    return decoder(boxes, scores, letterbox)


class BoxDecoder:
    """Decodes detections as `decode` does, frame after frame, with options that are checked once.

    Args:
        classes: number of them, C.
        score_threshold, iou_threshold, max_detections, class_agnostic, method, sigma, vote_iou, class_filter,
            calibration: as of `decode`.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        classes: int,
        *,
        score_threshold: float | ArrayLike = 0.3,
        iou_threshold: float = 0.6,
        max_detections: int = 300,
        class_agnostic: bool = False,
        method: NmsMethod = "nms",
        sigma: float = 0.5,
        vote_iou: float | None = None,
        class_filter: Iterable[int] | None = None,
        calibration: ScoreCalibration | None = None,
    ) -> None:
        if method not in get_args(NmsMethod):
            raise ValueError(f"method must be one of {', '.join(get_args(NmsMethod))}; got {method!r}")
        if not sigma > 0:
            raise ValueError(f"sigma must be positive, got {sigma}")
        if vote_iou is not None and not 0 <= vote_iou <= 1:
            raise ValueError(f"vote_iou must be in 0..1, got {vote_iou}")
        if max_detections < 0:
            raise ValueError(f"max_detections must not be negative, got {max_detections}")
        self._classes = classes
        self._thresholds = class_thresholds(score_threshold, classes, class_filter)
        # Across classes, a box below the threshold of its own class suppresses all the same, and goes afterwards: else
        # that threshold would bring back the boxes of others.
        self._late = class_agnostic and np.ndim(score_threshold) > 0
        self._floors = _lowest(self._thresholds) if self._late else self._thresholds
        self._class_agnostic = class_agnostic
        self._iou_threshold = float32_below(iou_threshold)
        self._limit = max_detections
        self._method = method
        self._sigma = np.float32(sigma)
        self._vote_iou = np.float32(-1 if vote_iou is None else vote_iou)
        self._calibration = calibration

    def __call__(self, boxes: F32, scores: F32, letterbox: Letterbox) -> Detections:
        """Decode the detections of one frame.

        Args:
            boxes, scores, letterbox: as of `decode`.

        Raises:
            ValueError: shapes do not fit together, or scores are not of as many classes.
        """
        boxes, scores = _checked(boxes, scores, self._classes)
        place = placement(letterbox)
        if self._method != "nms":
            return self._soft(*suppression.candidates(boxes, scores, self._floors, place, MAX_CANDIDATES))
        found, score, class_id = suppression.detect(
            boxes,
            scores,
            self._thresholds,
            self._floors,
            place,
            self._class_agnostic,
            self._iou_threshold,
            self._limit,
            self._vote_iou,
            _VOTE_SHARE,
            MAX_CANDIDATES,
        )
        return Detections(found, _calibrated(score, self._calibration), class_id)

    def _soft(self, candidate: F32, score: F32, class_id: NDArray[np.int32]) -> Detections:
        """Soft-NMS of the candidates."""
        group = np.zeros(len(score), np.int64) if self._class_agnostic else class_id.astype(np.int64)
        limit = len(score) if self._late else self._limit
        gaussian, floor = self._method == "soft-gaussian", self._floors[class_id]
        threshold, sigma = self._iou_threshold, self._sigma
        picked = suppression.soft_nms(candidate, score, floor, group, threshold, gaussian, sigma, limit)
        if self._late:
            picked = picked[score[picked] >= self._thresholds[class_id[picked]]][: self._limit]
        return Detections(candidate[picked], _calibrated(score[picked], self._calibration), class_id[picked])


def _checked(boxes: F32, scores: F32, classes: int | None = None) -> tuple[F32, F32]:
    """Return them C-contiguous in float32; refuse what is not ``[K, 4]`` and ``[K, classes]``."""
    boxes = np.ascontiguousarray(boxes, np.float32)
    scores = np.ascontiguousarray(scores, np.float32)
    fits = boxes.ndim == scores.ndim == 2 and boxes.shape[1] == 4 and len(scores) == len(boxes)
    if not fits or (classes is not None and scores.shape[1] != classes):
        columns = "C" if classes is None else classes
        found = f"{list(boxes.shape)} and {list(scores.shape)}"
        raise ValueError(f"expected boxes [K, 4] and scores [K, {columns}], got {found}")
    return boxes, scores


def raw_thresholds(chances: F32, calibration: ScoreCalibration) -> F32:
    """float32 ``[C]``: the least scores before calibration of boxes with at least these ``chances``."""
    low = np.zeros(len(chances), np.uint32)
    high = np.full(len(chances), np.float32(1)).view(np.uint32)
    while (low < high).any():  # positive floats are in the order of their bits
        middle = (low + high) // 2
        reaches = _calibrated(middle.view(np.float32), calibration) >= chances
        low, high = np.where(reaches, low, np.minimum(middle + 1, high)), np.where(reaches, middle, high)
    return np.where(np.isfinite(chances), high.view(np.float32), chances)


def _calibrated(scores: F32, calibration: ScoreCalibration | None) -> F32:
    """Return scores as chances, float32; 0 and 1 stay."""
    if calibration is None:
        return scores
    inside = (scores > 0) & (scores < 1)
    wide = np.where(inside, scores, 0.5).astype(np.float64)
    logits = np.log(wide) - np.log1p(-wide)
    lines = logits / calibration.temperature + calibration.bias
    if calibration.bend is not None and calibration.upper_temperature is not None:
        beyond = np.maximum(logits - math.log(calibration.bend / (1 - calibration.bend)), 0)
        lines += beyond * (1 / calibration.upper_temperature - 1 / calibration.temperature)
    chances = 1 / (1 + np.exp(-lines))
    return np.where(inside, chances, scores).astype(np.float32)


def nms(
    boxes: F32, scores: F32, class_ids: NDArray[np.integer] | None = None, iou_threshold: float = 0.5
) -> NDArray[np.int64]:
    """Non-maximum suppression; the same boxes in the same order as ``torchvision.ops.batched_nms``.

    Classes are kept apart by comparing only boxes of a class, not by moving each class to coordinates of its own,
    which costs the precision of the coordinates.

    Args:
        boxes: float32 ``[N, 4]`` xyxy.
        scores: float32 ``[N]``.
        class_ids: integers ``[N]``; boxes of different classes never suppress each other. None: one class.
        iou_threshold: a box is dropped if its IoU with a kept, better scored one is greater.

    Returns:
        int64 ``[M]``: indices of the kept boxes, highest score first, ties by index.

    Raises:
        ValueError: shapes do not fit together.
    """
    boxes = np.ascontiguousarray(boxes, np.float32)
    scores = np.ascontiguousarray(scores, np.float32)
    n = len(boxes)
    if boxes.shape != (n, 4) or scores.shape != (n,) or (class_ids is not None and len(class_ids) != n):
        raise ValueError(f"expected boxes [N, 4], scores [N], class_ids [N]; got {boxes.shape}, {scores.shape}")
    ids = np.zeros(n, np.int64) if class_ids is None else np.ascontiguousarray(class_ids, np.int64)
    return _nms(boxes, scores, ids, float32_below(iou_threshold), n)


def _nms(boxes: F32, scores: F32, ids: NDArray[np.int64], threshold: np.float32, limit: int) -> NDArray[np.int64]:
    kept: NDArray[np.int64] = suppression.nms(boxes, scores, ids, threshold, limit)
    if len(kept) == 1 and kept[0] < 0:
        kept = suppression.nms(boxes, scores, np.unique(ids, return_inverse=True)[1], threshold, limit)
    return kept


def float32_below(threshold: float) -> np.float32:
    """Return the largest float32 that is not above ``threshold``.

    For a float32 ``x``, ``x > threshold`` in double precision (as torchvision compares) is the same as comparing with
    this in single precision.
    """
    near = np.float32(threshold)
    return np.float32(np.nextafter(near, np.float32(-np.inf))) if float(near) > threshold else near


def class_thresholds(score_threshold: float | ArrayLike, classes: int, class_filter: Iterable[int] | None) -> F32:
    """float32 ``[C]``: the least score of each class, infinite for those that are not wanted."""
    thresholds = np.asarray(score_threshold, np.float32)
    if thresholds.ndim > 1 or (thresholds.ndim == 1 and len(thresholds) != classes):
        raise ValueError(f"score_threshold must be a number or one for each of {classes} classes")
    thresholds = np.array(np.broadcast_to(thresholds, classes))
    if class_filter is not None:
        wanted = sorted(set(class_filter))
        wrong = [c for c in wanted if not 0 <= c < classes]
        if wrong:
            raise ValueError(f"class_filter has ids {wrong}; there are {classes} classes")
        drop = np.ones(classes, bool)
        drop[wanted] = False
        thresholds[drop] = np.inf
    return thresholds


def _lowest(thresholds: F32) -> F32:
    """Replace each threshold of a wanted class by the lowest."""
    wanted = thresholds < np.inf
    return np.where(wanted, np.min(thresholds, where=wanted, initial=np.float32(np.inf)), thresholds)


@lru_cache(maxsize=64)
def placement(letterbox: Letterbox) -> F32:
    """float32 ``[6]``, what moves boxes to the frame: left, top, scale of x and y, width and height of the frame."""
    b = letterbox
    scale_x, scale_y = b.frame_width / b.width, b.frame_height / b.height
    numbers = np.array([b.left, b.top, scale_x, scale_y, b.frame_width, b.frame_height], np.float32)
    numbers.flags.writeable = False
    return numbers
