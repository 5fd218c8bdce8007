"""Masks steadied in time: the logits of a source's frames, averaged along the way that its picture moves.

What a network says of a pixel differs from frame to frame by more than the picture does, most of all where two classes
are about equally likely: edges crawl and patches flicker. An average over the last frames has less of that. It is one
of logits, so that all that is made of logits (`perception.postprocess.cells`, a floor for unknown pixels) works with it
as with those of one frame.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numba.core import types

from perception.common.jit import F32_2D, F32_2D_IN, U8_2D, kernel
from perception.picture.small_luma import small_luma
from perception.postprocess.flow import cell, logits_in_luma
from perception.types import F32, U8, Picture

if TYPE_CHECKING:
    from perception.picture.letterbox import Letterbox

USUAL_S = 0.1
"""Time constant that is good for video: flicker goes, and nothing that moves is seen late."""

SHORTEST = 24
"""A small luma with shorter sides has no motion that could be told: the picture is taken to stand still."""

NOISE, DIFFERENT = np.float32(3), np.float32(15)
"""Grey levels by which a pixel differs from what it was: up to the first it is the same thing, from the second on it is
another one, whose past says nothing of it."""
SLOPE = np.float32(1 / (DIFFERENT - NOISE))

LEAST_SAME = 0.4
"""Part of the pixels that are the same thing; where it is less the scene was cut."""

LEAST_WEIGHT = 0.02
"""A past that would count for less is not looked at."""


class LogitsSmoother:
    """Averages the class logits of one source over time; one thread at a time uses it.

    The past counts for less by the seconds of the source's clock that have gone by, whatever the frame rate is:
    ``exp(-t / seconds)``. It is taken from where each pixel was (optical flow: Kroeger et al., "Fast Optical Flow using
    Dense Inverse Search", ECCV 2016), and only as far as the picture looks there as it does now: what was covered
    begins anew. So does everything at a cut, and where the clock jumps.

    Args:
        seconds: time constant.

    Raises:
        ValueError: it is not positive.
    """

    def __init__(self, seconds: float = USUAL_S) -> None:
        if not 0 < seconds < math.inf:
            raise ValueError(f"the time constant must be positive, not {seconds}")
        self._seconds = seconds
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._flow.setFinestScale(1)
        self._time = math.nan
        self._luma = _NOTHING
        self._average: F32 = np.zeros((0, 0, 0), np.float32)
        self._weight: F32 = np.zeros((0, 0), np.float32)

    def update(self, logits: F32, letterbox: Letterbox, picture: Picture, time: float) -> F32:
        """Take the logits of the next frame.

        Args:
            logits: float32 ``[C, h, w]``, C-contiguous; only read.
            letterbox: how the frame was fitted into the network's input.
            picture: of the frame.
            time: of the frame, in seconds of the source's clock.

        Returns:
            float32 ``[C, h, w]``, averaged; never written to again. ``logits`` themselves where there is no past.
        """
        decay = math.exp(-max(time - self._time, 0.0) / self._seconds) if time > self._time else 0.0
        luma, scale = small_luma(picture)
        last, self._luma, self._time = self._luma, luma, time
        if decay < LEAST_WEIGHT or last.shape != luma.shape or self._average.shape != logits.shape:
            return self._begin(logits)
        classes, h, w = logits.shape
        flow = self._motion(luma, last)
        average, weight = np.empty_like(logits), np.empty((h, w), np.float32)
        same = average_along(
            logits.reshape(classes, h * w), self._average.reshape(classes, h * w), self._weight, luma, last, flow,
            *logits_in_luma(letterbox, h, w, scale), decay, average.reshape(classes, h * w), weight,
        )  # fmt: skip
        if same < LEAST_SAME:
            return self._begin(logits)
        self._average, self._weight = average, weight
        return average

    def _begin(self, logits: F32) -> F32:
        self._average = logits
        self._weight = np.ones(logits.shape[1:], np.float32)
        return logits

    def _motion(self, luma: U8, last: U8) -> F32:
        """float32 ``[h, w, 2]``: from where in the last plane each pixel has come, relative to itself."""
        still = np.zeros((*luma.shape, 2), np.float32)  # where the search begins
        return still if min(luma.shape) < SHORTEST else np.asarray(self._flow.calc(luma, last, still), np.float32)


_NOTHING: U8 = np.zeros((0, 0), np.uint8)


_F32_3D = types.Array(types.float32, 3, "C")
_F64 = types.float64


@kernel(
    _F64(
        F32_2D_IN, F32_2D_IN, F32_2D, U8_2D, U8_2D, _F32_3D, _F64, _F64, _F64, _F64, _F64, F32_2D, F32_2D,
    )
)  # fmt: skip
def average_along(  # type: ignore[no-untyped-def]
    logits, past, had, now, last, flow, across, x0, down, y0, decay, out, weight
):
    """Average logits with those of the past, from where each pixel was.

    Args:
        logits, past: float32 ``[C, h * w]``.
        had: float32 ``[h, w]``, the weight of the past, where a frame has 1.
        now, last: uint8 ``[rows, columns]``, lumas of the frame.
        flow: float32 ``[rows, columns, 2]``, see `LogitsSmoother`.
        across, x0, down, y0: where logits are in these: ``column = across * x + x0``, edges of pixels.
        decay: of weights since the last frame.
        out, weight: written: as ``past`` and ``had``, with this frame.

    Returns:
        the part of the pixels that are the same thing as before, 0..1; -1 where an average is NaN or infinite.
    """
    classes = len(logits)
    h, w = weight.shape
    rows, columns = now.shape
    last_x, last_y, last_column, last_row = np.int32(w - 1), np.int32(h - 1), np.int32(columns - 1), np.int32(rows - 1)
    beside, below = np.uint32(min(w - 1, 1)), np.uint32(w if h > 1 else 0)
    both = np.uint32(beside + below)
    next_column, next_row = np.int32(1 if columns > 1 else 0), np.int32(1 if rows > 1 else 0)
    column_of = np.empty(w, np.int32)
    for x in range(w):
        column_of[x] = min(max(np.int32(across * (x + 0.5) + x0), np.int32(0)), last_column)
    index = np.empty(w, np.uint32)
    of_now = np.empty(w, np.float32)
    corners = np.empty((4, w), np.float32)
    one, half, scale, slope = np.float32(1), np.float32(0.5), np.float32(decay), SLOPE
    per_column, per_row = np.float32(1 / across), np.float32(1 / down)
    total = np.float64(0)
    strange = np.int32(0)
    for y in range(h):
        row = min(max(np.int32(down * (y + 0.5) + y0), np.int32(0)), last_row)
        for x in range(w):
            column = column_of[x]
            u, v = flow[row, column, 0], flow[row, column, 1]
            # what the luma was where the pixel came from, and whether that is what it is
            sx, sy = np.float32(column) + u, np.float32(row) + v
            inside = (sx > -half) & (sy > -half) & (sx < last_column + half) & (sy < last_row + half)
            left, fx = cell(sx, last_column)
            top, fy = cell(sy, last_row)
            upper, lower = last[top], last[top + next_row]
            above = upper[left] + fx * (np.float32(upper[left + next_column]) - np.float32(upper[left]))
            under = lower[left] + fx * (np.float32(lower[left + next_column]) - np.float32(lower[left]))
            differs = abs(above + fy * (under - above) - np.float32(now[row, column]))
            same = min(max((DIFFERENT - differs) * slope, np.float32(0)), one) if inside else np.float32(0)
            total += same
            left, fx = cell(np.float32(x) + u * per_column, last_x)
            top, fy = cell(np.float32(y) + v * per_row, last_y)
            before = same * scale * had[top + np.int32(fy + half), left + np.int32(fx + half)]
            weight[y, x] = before + one
            of_now[x] = one / (before + one)
            part = before * of_now[x]
            index[x] = np.uint32(top * w + left)
            corners[0, x] = part * (one - fx) * (one - fy)
            corners[1, x] = part * fx * (one - fy)
            corners[2, x] = part * (one - fx) * fy
            corners[3, x] = part * fx * fy
        for c in range(classes):
            p = past[c]
            new = logits[c, y * w : (y + 1) * w]
            made = out[c, y * w : (y + 1) * w]
            for x in range(w):
                i = index[x]
                value = of_now[x] * new[x] + corners[0, x] * p[i] + corners[1, x] * p[i + beside]
                value += corners[2, x] * p[i + below] + corners[3, x] * p[i + both]
                made[x] = value
                strange |= np.int32(value - value != 0)  # NaN for NaN and infinities, which are not to stay
    return -1.0 if strange else total / (h * w)
