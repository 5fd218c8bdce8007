"""What smoothing masks in time does to them: how many pixels flicker, and how many are right."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.evaluation.folders import LabelFolder
from perception.evaluation.labelling import Labelling
from perception.evaluation.metrics import ConfusionMatrix
from perception.evaluation.moving_camera import MovingCamera
from perception.evaluation.result import number_or_none
from perception.model import Model
from perception.postprocess.smoothing import USUAL_S
from perception.stages.smooth import SmoothStage
from perception.types import F32, U8, Frame

SAME = 12
"""Grey levels by which a pixel may differ from the one that it was, where it is compared along the motion."""


@dataclass
class _Side:
    """What is counted with smoothing, or without."""

    confusion: ConfusionMatrix
    changed: int = 0
    flickered: int = 0
    last: U8 | None = None


@dataclass(frozen=True)
class SmoothingResult:
    """What was measured on one source.

    Attributes:
        name: of the source.
        frames: how many.
        changed: part of the pixels whose class is another one than in the frame before: without and with smoothing.
        flickered: the same of those pixels that are visible in both frames, each compared with where it was.
        miou: mean IoU with the truth; None where there is none.
        ms: median milliseconds of smoothing one frame.
    """

    name: str
    frames: int
    changed: tuple[float, float]
    flickered: tuple[float, float]
    miou: tuple[float, float] | None
    ms: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as a row."""
        row: dict[str, Any] = {"source": self.name, "frames": self.frames}
        for name, pair in (("changed", self.changed), ("flickered", self.flickered), ("miou", self.miou)):
            without, smoothed = pair or (np.nan, np.nan)
            row |= {name: number_or_none(without), f"{name}_smoothed": number_or_none(smoothed)}
        return {**row, "ms": self.ms}


def measure_smoothing(
    model: Model,
    sequences: Iterable[Iterable[Frame]],
    name: str,
    seconds: float = USUAL_S,
    truth: Callable[[Frame], U8 | None] | None = None,
    labelling: Labelling | None = None,
) -> SmoothingResult:
    """Predict sequences of frames, and compare masks with and without smoothing.

    Args:
        model: that makes masks.
        sequences: each smoothed by itself.
        name: for the result.
        seconds: time constant.
        truth: label ids uint8 ``[H, W]`` of a frame, or None where it has none.
        labelling: what these ids stand for.
    """
    task = model.card.segmentation
    classes = 1 if labelling is None else len(labelling.names)
    ignored = () if labelling is None else labelling.ignored
    sides = [_Side(ConfusionMatrix(classes, ignored)) for _ in range(2)]
    assert task is not None
    frames = pixels = visible = labelled = 0
    times: list[float] = []
    for sequence in sequences:
        stage, motion = SmoothStage(model.card, seconds), _Motion()
        for side in sides:
            side.last = None
        for frame in sequence:
            plain = model.predict(frame)
            smoothed = stage(plain)
            times.append(smoothed.timings["smooth"])
            frames += 1
            before = motion.update(frame)
            labels = None if truth is None else truth(frame)
            labelled += labels is not None
            for side, prediction in zip(sides, (plain, smoothed), strict=True):
                assert prediction.class_map is not None
                mask = prediction.class_map.mask
                if side.last is not None and before is not None:
                    side.changed += int((mask != side.last).sum())
                    was = cv2.remap(side.last, before.x, before.y, cv2.INTER_NEAREST)
                    side.flickered += int(((mask != was) & before.visible).sum())
                side.last = mask
                if labels is not None and labelling is not None:
                    side.confusion.add(labelling.of_masks[mask], labelling.of_labels[labels])
            if before is not None:
                pixels += before.visible.size
                visible += int(before.visible.sum())
    plain_side, smooth_side = sides
    return SmoothingResult(
        name,
        frames,
        (plain_side.changed / max(pixels, 1), smooth_side.changed / max(pixels, 1)),
        (plain_side.flickered / max(visible, 1), smooth_side.flickered / max(visible, 1)),
        (plain_side.confusion.mean_iou(), smooth_side.confusion.mean_iou()) if labelled else None,
        float(np.median(times)) if times else 0.0,
    )


@dataclass(frozen=True)
class _Before:
    """Where each pixel was in the frame before: float32 ``[H, W]`` both, and whether it was visible there."""

    x: F32
    y: F32
    visible: NDArray[np.bool_]


class _Motion:
    """Dense optical flow at half of the frame's size, more exact and slower than what is smoothed with."""

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._last: U8 | None = None

    def update(self, frame: Frame) -> _Before | None:
        """Take the next frame; None for the first."""
        gray = cv2.cvtColor(frame.image, cv2.COLOR_BGR2GRAY)
        height, width = gray.shape
        last, self._last = self._last, np.asarray(gray, np.uint8)
        if last is None or last.shape != gray.shape:
            return None
        small = width // 2, height // 2
        still = np.zeros((*small[::-1], 2), np.float32)
        flow = self._flow.calc(cv2.resize(gray, small), cv2.resize(last, small), still)
        flow = cv2.resize(flow, (width, height)) * np.array([width / small[0], height / small[1]], np.float32)
        grid = np.indices(gray.shape, np.float32)
        x: F32 = np.asarray(grid[1] + flow[..., 0], np.float32)
        y: F32 = np.asarray(grid[0] + flow[..., 1], np.float32)
        inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
        was = cv2.remap(last, x, y, cv2.INTER_LINEAR)
        differs = cv2.blur(cv2.absdiff(was, gray), (3, 3))
        return _Before(x, y, inside & (differs <= SAME))


def measure_labelled(
    model: Model, folder: LabelFolder, labelling: Labelling, seconds: float = USUAL_S
) -> SmoothingResult:
    """Measure with labelled pictures, before each of which comes what a moving camera would have seen.

    Raises:
        SourceError: pictures or labels are damaged, or do not fit each other; all are named.
    """
    camera = MovingCamera(folder)
    result = measure_smoothing(model, camera, str(folder.images), seconds, camera.labels_of, labelling)
    camera.refuse_faults()
    return result
