"""The two kinds of class map: of a network's logits, and of a mask that somebody else made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perception.errors import UsageError
from perception.picture.letterbox import Letterbox
from perception.postprocess import masks, segmentation
from perception.types import F32, U8, ClassMap, Picture


class LogitsClassMap(ClassMap):
    """A class map from low-resolution logits: bilinear upsampling, then argmax.

    Attributes:
        logits: float32 ``[C, h, w]``, as the network gave them (its own stride).
        floor: pixels whose best upsampled logit is lower are of no class; None: every pixel is of one.
        labels: uint8 ``[h, w]``, the argmax of the logits, where the engine gave it with them; they are finite then.
    """

    def __init__(
        self,
        logits: F32,
        letterbox: Letterbox,
        ignored: tuple[int, ...] = (),
        floor: float | None = None,
        labels: U8 | None = None,
    ) -> None:
        classes = int(logits.shape[0])
        super().__init__(classes, letterbox, ignored, unknown=None if floor is None else classes)
        self.logits = logits
        self.floor = floor
        self.labels = labels

    def of(self, logits: F32) -> LogitsClassMap:
        """Make one of other logits, of the same frame and classes."""
        own = tuple(i for i in self.ignored if i != self.unknown)
        return LogitsClassMap(logits, self.letterbox, own, self.floor)

    def resized(self, width: int, height: int) -> U8:
        letterbox = replace(self.letterbox, frame_width=width, frame_height=height)
        return segmentation.class_mask(self.logits, letterbox, floor=self.floor, labels=self.labels)

    def _count(self) -> NDArray[np.int64]:
        return segmentation.class_counts(self.logits, self.letterbox, self.floor, self.labels)

    def _blend(
        self, picture: Picture, palette_bgr: U8, opacity: float, out: Picture, hidden: Sequence[int]
    ) -> NDArray[np.int64]:
        return segmentation.overlay(
            picture, self.logits, self.letterbox, palette_bgr, opacity, out, hidden, self.floor, self.labels
        )


class MaskClassMap(ClassMap):
    """A class map from a mask of class ids, such as another program's: the nearest pixel.

    Attributes:
        ids: uint8 ``[h, w]`` of class ids below ``classes``, over the network's input.
    """

    def __init__(self, ids: U8, classes: int, letterbox: Letterbox, ignored: tuple[int, ...] = ()) -> None:
        super().__init__(classes, letterbox, ignored)
        self.ids = ids

    @classmethod
    def from_supervision(cls, found: Any, classes: int, frame_size: tuple[int, int] | None = None) -> MaskClassMap:
        """Make it of ``supervision.Detections`` with masks; where they overlap, the later one is on top.

        Args:
            found: with ``mask`` and ``class_id``.
            classes: number of classes. Pixels without a mask are of an ignored class behind them, number ``classes``.
            frame_size: width and height; needed where there is no mask that tells them.

        Raises:
            UsageError: it has no masks, or a class that there is not.
        """
        if found.mask is None or found.class_id is None:
            raise UsageError("these detections have no masks, or no classes")
        if frame_size is None:
            if not len(found.mask):
                raise UsageError("there is no mask, which would tell the size of the frame; give `frame_size`")
            frame_size = found.mask.shape[2], found.mask.shape[1]
        width, height = frame_size
        ids = np.full((height, width), classes, np.uint8)
        for mask, class_id in zip(found.mask, found.class_id.tolist(), strict=True):
            if not 0 <= class_id < classes:
                raise UsageError(f"there is no class {class_id}; there are {classes}")
            ids[mask] = class_id
        return cls(ids, classes + 1, Letterbox.fit(width, height, width, height), (classes,))

    def resized(self, width: int, height: int) -> U8:
        return masks.to_frame(self.ids, replace(self.letterbox, frame_width=width, frame_height=height))

    def _count(self) -> NDArray[np.int64]:
        return np.bincount(self.mask.ravel(), minlength=self.classes)

    def _blend(
        self, picture: Picture, palette_bgr: U8, opacity: float, out: Picture, hidden: Sequence[int]
    ) -> NDArray[np.int64]:
        return masks.overlay(picture, self.mask, palette_bgr, opacity, out, hidden)
