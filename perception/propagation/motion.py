"""Results carried from a key frame, which the network has seen, to later ones by the motion of the picture.

Logits are warped and not class ids: edges stay as smooth as they were, and all that is made of logits works with them.
Boxes move with the median motion inside them and grow with how it differs between their halves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba.core import types

from perception.common.jit import F32_2D, F32_2D_IN, F32_3D_IN, helper, kernel
from perception.errors import UsageError
from perception.postprocess.class_maps import LogitsClassMap
from perception.postprocess.flow import cell, logits_in_luma
from perception.propagation.between import inside
from perception.types import F32, Detections, Frame, Prediction

if TYPE_CHECKING:
    from perception.picture.letterbox import Letterbox

CORE = 0.9
"""Middle part of a box, of its sides, whose motion is the box's: the rim shows what is behind it."""
LEAST_PIXELS = 12
"""Sides of a box in the small picture from which on its growth can be told."""
GROWTH = 0.25
"""Most that a box grows or shrinks, of its sides."""
ROUNDS = 3


@dataclass(frozen=True, eq=False)
class Motion:
    """How the picture moved from a key frame to a later one.

    Attributes:
        flow: float32 ``[rows, columns, 2]``: where in the key frame's small luma each pixel of this frame's has come
            from, x and y relative to itself.
        scale: of the small luma, see `perception.picture.small_luma`.
        gap: frames from the key frame to this one.
    """

    flow: F32
    scale: float
    gap: int

    def logits(self, key: F32, letterbox: Letterbox) -> F32:
        """Warp logits.

        Args:
            key: float32 ``[C, h, w]`` of the key frame, C-contiguous.
            letterbox: how frames were fitted into the network's input.

        Returns:
            float32 ``[C, h, w]`` of this frame; what comes into view is taken from the nearest rim.
        """
        classes, h, w = key.shape
        warped = np.empty_like(key)
        warp_logits(
            key.reshape(classes, h * w), self.flow, *logits_in_luma(letterbox, h, w, self.scale), h, w,
            warped.reshape(classes, h * w),
        )  # fmt: skip
        return warped

    def boxes(self, key: F32) -> F32:
        """Move boxes float32 ``[N, 4]`` xyxy of the key frame, as far as the motion goes: also out of the frame."""
        moved = np.empty_like(key)
        if len(key):
            move_boxes(key, self.flow, self.scale, moved)
        return moved

    def origins(self, boxes: F32) -> F32:
        """From where what boxes of this frame show has come since the key frame.

        Args:
            boxes: float32 ``[N, 4]`` xyxy.

        Returns:
            float32 ``[N, 2]``, x and y in pixels relative to where it is.
        """
        found = np.zeros((len(boxes), 2), np.float32)
        if len(boxes):
            find_origins(boxes, self.flow, self.scale, found)
        return found

    def detections(self, key: Detections, size: tuple[int, int]) -> Detections:
        """Move boxes.

        Args:
            key: of the key frame.
            size: ``(width, height)`` of the frames; boxes that have left them are dropped.
        """
        return inside(Detections(self.boxes(key.boxes), key.scores, key.class_ids), size)

    def prediction(self, key: Prediction, frame: Frame) -> Prediction:
        """Carry the results of the key frame to a later frame.

        Args:
            key: the network's own.
            frame: the later one.

        Raises:
            UsageError: the class map is a mask, without logits.
        """
        class_map, detections = key.class_map, key.detections
        if class_map is not None:
            if not isinstance(class_map, LogitsClassMap):
                raise UsageError("this class map is a mask, and masks without logits cannot be propagated")
            class_map = class_map.of(self.logits(class_map.logits, class_map.letterbox))
        if detections is not None:
            detections = self.detections(detections, (frame.width, frame.height))
        return Prediction(frame, detections, class_map, key.labels, propagated=True)


_F64 = types.float64
_I64 = types.int64


@kernel(types.void(F32_2D_IN, F32_3D_IN, _F64, _F64, _F64, _F64, _I64, _I64, F32_2D))
def warp_logits(past, flow, across, x0, down, y0, h, w, out):  # type: ignore[no-untyped-def]
    """Take logits from where the flow says that they have come from, bilinearly.

    Args:
        past: float32 ``[C, h * w]``.
        flow: float32 ``[rows, columns, 2]``, see `Motion`.
        across, x0, down, y0: where logits are in it: ``column = across * x + x0``, edges of pixels.
        h, w: of the logits.
        out: written, float32 ``[C, h * w]``.
    """
    rows, columns = flow.shape[:2]
    last_x, last_y = np.int32(w - 1), np.int32(h - 1)
    beside, below = np.uint32(min(w - 1, 1)), np.uint32(w if h > 1 else 0)
    both = np.uint32(beside + below)
    index = np.empty(w, np.uint32)
    corners = np.empty((4, w), np.float32)
    one = np.float32(1)
    per_column, per_row = np.float32(1 / across), np.float32(1 / down)
    for y in range(h):
        row = min(max(np.int32(down * (y + 0.5) + y0), np.int32(0)), np.int32(rows - 1))
        for x in range(w):
            column = min(max(np.int32(across * (x + 0.5) + x0), np.int32(0)), np.int32(columns - 1))
            left, fx = cell(np.float32(x) + flow[row, column, 0] * per_column, last_x)
            top, fy = cell(np.float32(y) + flow[row, column, 1] * per_row, last_y)
            index[x] = np.uint32(top * w + left)
            corners[0, x] = (one - fx) * (one - fy)
            corners[1, x] = fx * (one - fy)
            corners[2, x] = (one - fx) * fy
            corners[3, x] = fx * fy
        for c in range(len(past)):
            p = past[c]
            made = out[c, y * w : (y + 1) * w]
            for x in range(w):
                i = index[x]
                value = corners[0, x] * p[i] + corners[1, x] * p[i + beside]
                made[x] = value + corners[2, x] * p[i + below] + corners[3, x] * p[i + both]


@helper
def _median(flow, axis, x0, y0, x1, y1, buffer):  # type: ignore[no-untyped-def]
    """The median of the flow along an axis inside whole pixels; of 32 by 32 of them where there are more."""
    count = 0
    step_x, step_y = (x1 - x0 + 31) // 32, (y1 - y0 + 31) // 32
    for y in range(y0 + (step_y - 1) // 2, y1, step_y):
        for x in range(x0 + (step_x - 1) // 2, x1, step_x):
            buffer[count] = flow[y, x, axis]
            count += 1
    return np.median(buffer[:count])


@helper
def _span(low, high, last):  # type: ignore[no-untyped-def]
    """Whole pixels from ``low`` to ``high`` within ``0..last``; at least one."""
    first = min(max(np.int64(np.floor(low)), 0), last)
    return first, min(max(np.int64(np.ceil(high)), first + 1), last + 1)


@kernel(types.void(F32_2D_IN, F32_3D_IN, _F64, F32_2D))
def move_boxes(boxes, flow, scale, out):  # type: ignore[no-untyped-def]
    """Move boxes with what is in them.

    The flow is known where things are now, and boxes where they were: found by going back and forth.

    Args:
        boxes: float32 ``[N, 4]`` xyxy in pixels of the key frame.
        flow, scale: see `Motion`.
        out: written, float32 ``[N, 4]``.
    """
    rows, columns = flow.shape[:2]
    buffer = np.empty(32 * 32, np.float32)
    centre, size, moved, grown = np.empty(2), np.empty(2), np.empty(2), np.empty(2)
    for n in range(len(boxes)):
        for a in range(2):
            centre[a] = 0.5 * scale * (boxes[n, a] + boxes[n, 2 + a])
            size[a] = scale * (boxes[n, 2 + a] - boxes[n, a])
            moved[a], grown[a] = 0.0, 1.0
        for _ in range(ROUNDS):
            half_x, half_y = 0.5 * CORE * size[0] * grown[0], 0.5 * CORE * size[1] * grown[1]
            x, y = centre[0] + moved[0], centre[1] + moved[1]
            x0, x1 = _span(x - half_x, x + half_x, columns - 1)
            y0, y1 = _span(y - half_y, y + half_y, rows - 1)
            moved[0] = -_median(flow, 0, x0, y0, x1, y1, buffer)
            moved[1] = -_median(flow, 1, x0, y0, x1, y1, buffer)
            # What has grown by a factor has come from nearer to the centre: the flow falls across it by 1/factor - 1.
            middle_x, middle_y = (x0 + x1) // 2, (y0 + y1) // 2
            if size[0] >= LEAST_PIXELS and x0 < middle_x:
                right, left = (
                    _median(flow, 0, middle_x, y0, x1, y1, buffer),
                    _median(flow, 0, x0, y0, middle_x, y1, buffer),
                )
                grown[0] = 1.0 / (1.0 + min(max((right - left) / (0.5 * (x1 - x0)), -GROWTH), GROWTH))
            if size[1] >= LEAST_PIXELS and y0 < middle_y:
                lower, upper = (
                    _median(flow, 1, x0, middle_y, x1, y1, buffer),
                    _median(flow, 1, x0, y0, x1, middle_y, buffer),
                )
                grown[1] = 1.0 / (1.0 + min(max((lower - upper) / (0.5 * (y1 - y0)), -GROWTH), GROWTH))
        for a in range(2):
            half = 0.5 * size[a] * grown[a] / scale
            at = (centre[a] + moved[a]) / scale
            out[n, a], out[n, 2 + a] = at - half, at + half


@kernel(types.void(F32_2D_IN, F32_3D_IN, _F64, F32_2D))
def find_origins(boxes, flow, scale, out):  # type: ignore[no-untyped-def]
    """Median flow in boxes of this frame, see `Motion.origins`."""
    rows, columns = flow.shape[:2]
    buffer = np.empty(32 * 32, np.float32)
    for n in range(len(boxes)):
        x0, x1 = _span(scale * boxes[n, 0], scale * boxes[n, 2], columns - 1)
        y0, y1 = _span(scale * boxes[n, 1], scale * boxes[n, 3], rows - 1)
        for axis in range(2):
            out[n, axis] = _median(flow, axis, x0, y0, x1, y1, buffer) / scale
