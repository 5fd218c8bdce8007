"""Which frames of a source the network sees; the others get its results by propagation.

A frame is a key frame where the picture has changed too much since the last one (a cut, what came into view), or where
that one is too long ago. How long may be is measured while it runs: at random, about three frames in a hundred that
would have been propagated are seen by the network anyway (shadow frames), and compared with what propagation makes of
them. What they differ by from one frame to the next is the network's own jitter; what they differ by more after several
frames is the loss.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import cv2
import numpy as np

from perception.errors import UsageError
from perception.picture.small_luma import small_luma
from perception.postprocess.class_maps import LogitsClassMap
from perception.propagation.loss import PropagationLoss
from perception.propagation.motion import Motion
from perception.types import F32, U8, Detections, Frame, Prediction

MOST = 8
"""Most frames from one key frame to the next."""
MOST_S = 0.4
"""Most seconds of the source's clock."""
CHANGED = 0.12
"""Part of the small luma that may be another than the motion explains."""
DIFFERENT = 20
"""Grey levels by which a pixel is another one."""
SHADOWS, NEXT_SHADOWS = 0.02, 0.06
"""Part of the frames that could be propagated which the network sees anyway; of those next to a key frame more, since
what is measured at them, the network's own jitter, is taken off all others."""
EARLY, EARLY_TIMES = 24, 4
"""So many shadow frames come sooner, so many times as often, or a short video would end before anything is known."""
BOXES = 10
"""A comparison of fewer boxes counts for less."""
SHORTEST = 24
"""Pictures with a shorter side are all key frames."""


class KeyFrames:
    """Decides, frame by frame, whether the network is needed, and carries its results to the frames between.

    One source's. `next` is called for each frame in order by whoever reads it; `result` for each frame in order by
    whoever takes predictions, at most ``behind`` frames later. What was measured counts only so many frames later, so
    that the same video has the same key frames every time.

    Args:
        max_loss: mean loss of all frames, as a part of the pixels (and of boxes), that is accepted, in 0..1.
        behind: most frames that `result` is behind `next`.

    Raises:
        UsageError: ``max_loss`` is out of range.

    Attributes:
        seen: frames that the network saw so far.
        loss: what was measured.
    """

    def __init__(self, max_loss: float = 0.01, behind: int = 0) -> None:
        if not 0 < max_loss < 1:
            raise UsageError(f"the loss must be above 0 and below 1, not {max_loss:g}")
        self.seen = 0
        self.loss = PropagationLoss()
        self._max_loss, self._behind = max_loss, behind
        self._rng = np.random.default_rng(0)
        self._flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._flow.setFinestScale(1)
        self._key: U8 | None = None
        self._key_time = 0.0
        self._gap = 0
        self._number = self._shadows = 0
        self._told: list[tuple[int, str, int, float, float]] = []  # frame, what, gap, difference, weight
        self._lock = threading.Lock()
        self._last: Prediction | None = None
        self._done = 0

    def next(self, frame: Frame) -> tuple[Motion | None, bool]:
        """Look at the next frame.

        Returns:
            the motion since its key frame, None where it is one itself without a choice; and whether the network is to
            see it. A shadow frame has a motion and is seen, and what comes after it begins with it.
        """
        number, self._number = self._number, self._number + 1
        luma, scale = small_luma(frame.picture)
        motion = self._motion(frame, luma, scale, number)
        shadow = motion is not None and self._rng.random() < self._chance(motion.gap)
        self._shadows += shadow
        seen = motion is None or shadow
        if seen:
            self._key, self._key_time, self._gap = luma, frame.time, 0
            self.seen += 1
        self.loss.frame(0 if seen else self._gap)
        return motion, seen

    def _chance(self, gap: int) -> float:
        """Chance of a frame that could be propagated to be seen anyway."""
        usual = NEXT_SHADOWS if gap == 1 else SHADOWS
        return EARLY_TIMES * usual if self._shadows < EARLY else usual

    def _motion(self, frame: Frame, luma: U8, scale: float, number: int) -> Motion | None:
        key = self._key
        self._gap += 1
        if key is None or key.shape != luma.shape or min(luma.shape) < SHORTEST:
            return None
        if not 0 <= frame.time - self._key_time <= MOST_S or self._gap >= self._longest(number):
            return None
        flow = np.asarray(self._flow.calc(luma, key, None), np.float32)
        return None if _changed(luma, key, flow) > CHANGED else Motion(flow, scale, self._gap)

    def _longest(self, number: int) -> int:
        """Most frames between key frames, as far as what was measured counts by now."""
        with self._lock:
            while self._told and self._told[0][0] + self._behind <= number:
                self.loss.add(*self._told.pop(0)[1:])
        return self.loss.longest(self._max_loss, MOST)

    def result(self, prediction: Prediction, motion: Motion | None, seen: bool) -> Prediction:
        """Take the next frame's prediction, which has no results where the network has not seen it.

        Returns:
            the prediction, with results.

        Raises:
            UsageError: the class map is a mask, without logits.
        """
        number, self._done = self._done, self._done + 1
        last = self._last
        if motion is None or last is None:
            self._last = prediction
            return prediction
        carried = _carried(last, prediction.frame, motion)
        if not seen:
            timings = {**prediction.timings, **carried.timings}
            return replace(carried, timings=timings, propagated=True)
        with self._lock:
            for what, difference, weight in _differences(carried, prediction):
                self._told.append((number, what, motion.gap, difference, weight))
        self._last = prediction
        return prediction


def _changed(luma: U8, key: U8, flow: F32) -> float:
    """The part of a picture that is not what its motion makes of the key frame."""
    rows, columns = luma.shape
    rows_at, columns_at = np.indices(luma.shape, np.float32)
    x: Any = columns_at + flow[..., 0]
    y: Any = rows_at + flow[..., 1]
    was = cv2.remap(key, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    other = cv2.absdiff(was, luma) > DIFFERENT
    outside = (x < -0.5) | (y < -0.5) | (x > columns - 0.5) | (y > rows - 0.5)
    return float((other | outside).mean())


def _carried(key: Prediction, frame: Frame, motion: Motion) -> Prediction:
    """The key frame's results at another frame."""
    class_map, detections = key.class_map, key.detections
    if class_map is not None:
        if not isinstance(class_map, LogitsClassMap):
            raise UsageError("this class map is a mask, and masks without logits cannot be propagated")
        class_map = class_map.of(motion.logits(class_map.logits, class_map.letterbox))
    if detections is not None:
        detections = motion.detections(detections, (frame.width, frame.height))
    return Prediction(frame, detections=detections, class_map=class_map, labels=key.labels)


def _differences(carried: Prediction, seen: Prediction) -> list[tuple[str, float, float]]:
    """By what propagation differs from the network, 0..1, and how much that tells."""
    told = []
    if isinstance(carried.class_map, LogitsClassMap) and isinstance(seen.class_map, LogitsClassMap):
        other = carried.class_map.logits.argmax(axis=0) != seen.class_map.logits.argmax(axis=0)
        told.append(("pixels", float(other.mean()), 1.0))
    if carried.detections is not None and seen.detections is not None:
        boxes = len(carried.detections) + len(seen.detections)
        if boxes:
            difference = 1.0 - 2.0 * _matched(carried.detections, seen.detections) / boxes
            told.append(("boxes", difference, min(boxes / (2 * BOXES), 1.0)))
    return told


def _matched(a: Detections, b: Detections) -> int:
    """Boxes of the same class with IoU of at least 0.5, each once, greedily in the order of ``a``."""
    low = np.maximum(a.boxes[:, None, :2], b.boxes[None, :, :2])
    high = np.minimum(a.boxes[:, None, 2:], b.boxes[None, :, 2:])
    shared = (high - low).clip(0).prod(axis=2)
    area_a, area_b = ((d.boxes[:, 2:] - d.boxes[:, :2]).prod(axis=1) for d in (a, b))
    overlaps = shared / np.maximum(area_a[:, None] + area_b - shared, 1e-9)
    overlaps *= a.class_ids[:, None] == b.class_ids
    count = 0
    for i in range(len(a)):
        j = int(overlaps[i].argmax()) if len(b) else 0
        if len(b) and overlaps[i, j] >= 0.5:
            overlaps[:, j] = 0
            count += 1
    return count
