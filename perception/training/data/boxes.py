"""Boxes of a training picture, and how they follow its crops and shifts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class BoxLabels:
    """The boxes of one picture.

    Attributes:
        boxes: float32 ``[M, 4]`` xyxy in pixels of the picture.
        class_ids: int64 ``[M]``; -1 marks an ignored region: what is inside is neither object nor background.
        unsure: bool ``[M, C]``: classes that the box says nothing about.
        known: bool ``[C]``: classes that are labelled in this picture; nothing in it teaches the others.
    """

    boxes: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    unsure: NDArray[np.bool_]
    known: NDArray[np.bool_]

    @classmethod
    def empty(cls, known: NDArray[np.bool_]) -> BoxLabels:
        """No boxes: the whole picture is background for the ``known`` classes."""
        classes = len(known)
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros((0, classes), bool), known)

    def __len__(self) -> int:
        return len(self.boxes)

    def warped(
        self, matrix: NDArray[np.float64], size: tuple[int, int], min_visible: float, min_side: float
    ) -> BoxLabels:
        """Return the boxes after the picture was warped, clipped to the result.

        Args:
            matrix: 2x3, from picture to result (centres of pixels at whole numbers), without rotation or shear.
            size: ``(width, height)`` of the result.
            min_visible: boxes of which a smaller share (of area) is inside become ignored regions.
            min_side: so do boxes with a shorter side left, in pixels.

        Returns:
            What is at least partly inside.
        """
        # Edges of pixels lie half a pixel before their centres.
        scale, offset = np.diag(matrix[:, :2]), matrix[:, 2]
        corners = (self.boxes.astype(np.float64).reshape(-1, 2, 2) - 0.5) * scale + offset + 0.5
        low, high = corners.min(1), corners.max(1)
        whole = (high - low).prod(1)
        low, high = low.clip(0, size), high.clip(0, size)
        sides = high - low
        inside = (sides > 0).all(1)
        poor = (sides.prod(1) < min_visible * whole) | (sides.min(1, initial=np.inf) < min_side)
        ids = np.where(poor, -1, self.class_ids)
        boxes = np.concatenate((low, high), 1).astype(np.float32)
        return BoxLabels(boxes[inside], ids[inside], self.unsure[inside], self.known)

    def moved(self, dx: float, dy: float) -> BoxLabels:
        """Return the boxes shifted by ``(dx, dy)`` pixels."""
        shift = np.array([dx, dy, dx, dy], np.float32)
        return BoxLabels(self.boxes + shift, self.class_ids, self.unsure, self.known)


def joined(parts: list[BoxLabels]) -> BoxLabels:
    """Join the boxes of the parts of one picture; only classes known in all parts are known in it."""
    return BoxLabels(
        np.concatenate([p.boxes for p in parts]),
        np.concatenate([p.class_ids for p in parts]),
        np.concatenate([p.unsure for p in parts]),
        np.logical_and.reduce([p.known for p in parts]),
    )
