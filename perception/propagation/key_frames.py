"""Which frames of a source the network sees; the others get its results by propagation.

Masks come from the key frame before. So do boxes where results are wanted at once; of a recording they come from the
key frames on both sides.

A frame is a key frame where the picture has changed too much since the last one (a cut, what came into view), or where
that one is too long ago. How long may be is measured while it runs: at random, about three frames in a hundred that
would have been propagated are seen by the network anyway (shadow frames), and compared with what propagation makes of
them. What they differ by from one frame to the next is the network's own jitter; what they differ by more after several
frames is the loss.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import cv2
import numpy as np

from perception.errors import UsageError
from perception.picture.small_luma import small_luma
from perception.postprocess.class_maps import LogitsClassMap
from perception.propagation.between import between, pairs
from perception.propagation.estimation import DIFFERENT, SHORTEST, MotionEstimator
from perception.propagation.loss import PropagationLoss
from perception.propagation.motion import Motion
from perception.types import F32, U8, Frame, Prediction

MOST = 8
"""Most frames from one key frame to the next."""
MOST_S = 0.4
"""Most seconds of the source's clock."""
SHADOWS, NEXT_SHADOWS = 0.02, 0.06
"""Part of the frames that could be propagated which the network sees anyway; of those next to a key frame more, since
what is measured at them, the network's own jitter, is taken off all others."""
EARLY, EARLY_TIMES = 24, 4
"""So many shadow frames come sooner, so many times as often, or a short video would end before anything is known."""
BOXES = 10
"""A comparison of fewer boxes counts for less."""
CUT = 0.5
"""Where so much of the small luma is another, motion or not, nothing goes on from one key frame to the next."""


@dataclass(frozen=True, eq=False)
class Step:
    """What is done with a frame.

    Attributes:
        motion: since its key frame; None where it is one itself without a choice.
        seen: the network sees it. A shadow frame has a motion and is seen, and what comes after it begins with it.
        goes_on: it shows what the key frame before it does, later.
    """

    motion: Motion | None = None
    seen: bool = True
    goes_on: bool = False


class KeyFrames:
    """Decides, frame by frame, whether the network is needed, and carries its results to the frames between.

    One source's. `next` is called for each frame in order by whoever reads it; `results` for each frame in order by
    whoever takes predictions, at most ``behind`` frames later. What was measured counts only so many frames later, so
    that the same video has the same key frames every time.

    Args:
        max_loss: mean loss of all frames, as a part of the pixels (and of boxes), that is accepted, in 0..1.
        behind: most frames that `results` is behind `next`.
        at_once: results are given with the frame that they are of, and boxes come from the key frame before alone.
            False: they are held until the next key frame, and boxes come from both.

    Raises:
        UsageError: ``max_loss`` is out of range.

    Attributes:
        seen: frames that the network saw so far.
        loss: what was measured.
    """

    def __init__(self, max_loss: float = 0.01, behind: int = 0, at_once: bool = False) -> None:
        if not 0 < max_loss < 1:
            raise UsageError(f"the loss must be above 0 and below 1, not {max_loss:g}")
        self.seen = 0
        self.loss = PropagationLoss()
        self._max_loss, self._behind, self._at_once = max_loss, behind, at_once
        self._rng = np.random.default_rng(0)
        self._estimator = MotionEstimator()
        self._key: U8 | None = None
        self._key_time = 0.0
        self._gap = 0
        self._number = self._shadows = 0
        self._told: list[tuple[int, str, int, float, float]] = []  # frame, what, gap, difference, weight
        self._lock = threading.Lock()
        self._last: Prediction | None = None
        self._held: list[Prediction] = []
        self._moved: list[F32] = []
        self._motion_held: Motion | None = None  # of the last that is held
        self._done = 0

    def next(self, frame: Frame) -> Step:
        """Look at the next frame."""
        number, self._number = self._number, self._number + 1
        luma, scale = small_luma(frame.picture)
        key = self._key
        self._gap += 1
        goes_on = (
            key is not None
            and key.shape == luma.shape
            and min(luma.shape) >= SHORTEST
            and 0 <= frame.time - self._key_time <= MOST_S
        )
        motion = None
        if goes_on and key is not None:
            if self._gap < self._longest(number):
                motion = self._estimator.motion(luma, key, scale, self._gap)
                goes_on = motion is not None
            else:
                goes_on = float((cv2.absdiff(luma, key) > DIFFERENT).mean()) <= CUT
        shadow = motion is not None and self._rng.random() < self._chance(motion.gap)
        self._shadows += shadow
        seen = motion is None or shadow
        if seen:
            self._key, self._key_time, self._gap = luma, frame.time, 0
            self.seen += 1
        self.loss.frame(0 if seen else self._gap)
        return Step(motion, seen, goes_on)

    def _chance(self, gap: int) -> float:
        """Chance of a frame that could be propagated to be seen anyway."""
        usual = NEXT_SHADOWS if gap == 1 else SHADOWS
        return EARLY_TIMES * usual if self._shadows < EARLY else usual

    def _longest(self, number: int) -> int:
        """Most frames between key frames, as far as what was measured counts by now."""
        with self._lock:
            while self._told and self._told[0][0] + self._behind <= number:
                self.loss.add(*self._told.pop(0)[1:])
        return self.loss.longest(self._max_loss, MOST)

    def results(self, prediction: Prediction, step: Step) -> list[Prediction]:
        """Take the next frame's prediction, which has no results where the network has not seen it.

        Returns:
            the predictions that are ready, with results, in frame order.

        Raises:
            UsageError: the class map is a mask, without logits.
        """
        number, self._done = self._done, self._done + 1
        last = self._last
        carried = None if step.motion is None or last is None else step.motion.prediction(last, prediction.frame)
        if not step.seen and carried is not None and step.motion is not None and last is not None:
            made = replace(carried, timings=prediction.timings)
            if self._at_once or last.detections is None:
                return [made]
            self._held.append(made)
            self._moved.append(step.motion.boxes(last.detections.boxes))
            self._motion_held = step.motion
            return []
        if carried is not None and step.motion is not None:
            with self._lock:
                for what, difference, weight in _differences(carried, prediction):
                    self._told.append((number, what, step.motion.gap, difference, weight))
        ready = self._between(prediction) if step.goes_on else self.rest()
        self._last = prediction
        return [*ready, prediction]

    def rest(self) -> list[Prediction]:
        """The predictions that are held, where no key frame comes any more."""
        held, self._held, self._moved = self._held, [], []
        return held

    def _between(self, prediction: Prediction) -> list[Prediction]:
        """The predictions that are held, with boxes from the key frames on both sides."""
        first = None if self._last is None else self._last.detections
        second, moved, motion = prediction.detections, self._moved, self._motion_held
        held = self.rest()
        if not held or first is None or second is None or motion is None:
            return held
        frame = prediction.frame
        boxes = between(
            first, moved, second, motion.origins(second.boxes) / np.float32(motion.gap), (frame.width, frame.height)
        )
        return [replace(one, detections=found) for one, found in zip(held, boxes, strict=True)]


def _differences(carried: Prediction, seen: Prediction) -> list[tuple[str, float, float]]:
    """By what propagation differs from the network, 0..1, and how much that tells."""
    told = []
    if isinstance(carried.class_map, LogitsClassMap) and isinstance(seen.class_map, LogitsClassMap):
        other = carried.class_map.logits.argmax(axis=0) != seen.class_map.logits.argmax(axis=0)
        told.append(("pixels", float(other.mean()), 1.0))
    if carried.detections is not None and seen.detections is not None:
        boxes = len(carried.detections) + len(seen.detections)
        if boxes:
            a, b = carried.detections, seen.detections
            matched = len(pairs(a.boxes, a.class_ids, b.boxes, b.class_ids, 0.5)[0])
            told.append(("boxes", 1.0 - 2.0 * matched / boxes, min(boxes / (2 * BOXES), 1.0)))
    return told
