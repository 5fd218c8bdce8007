"""The two kinds of class map: of a network's logits, and of a mask that an engine made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from perception.picture.letterbox import Letterbox
from perception.postprocess import masks, segmentation
from perception.types import F32, U8, ClassMap, Picture


class LogitsClassMap(ClassMap):
    """A class map from low-resolution logits: bilinear upsampling, then argmax.

    Attributes:
        logits: float32 ``[C, h, w]``, as the network gave them (its own stride).
        floor: pixels whose best upsampled logit is lower are of no class; None: every pixel is of one.
    """

    def __init__(
        self, logits: F32, letterbox: Letterbox, ignored: tuple[int, ...] = (), floor: float | None = None
    ) -> None:
        classes = int(logits.shape[0])
        super().__init__(classes, letterbox, ignored, unknown=None if floor is None else classes)
        self.logits = logits
        self.floor = floor

    def resized(self, width: int, height: int) -> U8:
        letterbox = replace(self.letterbox, frame_width=width, frame_height=height)
        return segmentation.class_mask(self.logits, letterbox, floor=self.floor)

    def _count(self) -> NDArray[np.int64]:
        return segmentation.class_counts(self.logits, self.letterbox, self.floor)

    def _blend(
        self, picture: Picture, palette_bgr: U8, opacity: float, out: Picture, hidden: Sequence[int]
    ) -> NDArray[np.int64]:
        return segmentation.overlay(picture, self.logits, self.letterbox, palette_bgr, opacity, out, hidden, self.floor)


class MaskClassMap(ClassMap):
    """A class map from a mask of class ids that an engine on a GPU made: the nearest pixel.

    Attributes:
        ids: uint8 ``[h, w]`` of class ids below ``classes``, over the network's input.
    """

    def __init__(self, ids: U8, classes: int, letterbox: Letterbox, ignored: tuple[int, ...] = ()) -> None:
        super().__init__(classes, letterbox, ignored)
        self.ids = ids

    def resized(self, width: int, height: int) -> U8:
        return masks.to_frame(self.ids, replace(self.letterbox, frame_width=width, frame_height=height))

    def _count(self) -> NDArray[np.int64]:
        return np.bincount(self.mask.ravel(), minlength=self.classes)

    def _blend(
        self, picture: Picture, palette_bgr: U8, opacity: float, out: Picture, hidden: Sequence[int]
    ) -> NDArray[np.int64]:
        return masks.overlay(picture, self.mask, palette_bgr, opacity, out, hidden)
