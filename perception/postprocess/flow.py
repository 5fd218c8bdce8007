"""Logits along the optical flow of the picture: where they lie in the small luma that the flow is of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from perception.common.jit import inline_helper

if TYPE_CHECKING:
    from perception.picture.letterbox import Letterbox


def logits_in_luma(letterbox: Letterbox, h: int, w: int, scale: float) -> tuple[float, float, float, float]:
    """Return where logits lie in a small luma, for kernels that move them along its flow.

    Args:
        letterbox: how the frame was fitted into the network's input.
        h, w: of the logits.
        scale: of the luma, see `perception.picture.small_luma`.

    Returns:
        ``(across, x0, down, y0)``: ``column = across * x + x0`` and ``row = down * y + y0``, between edges of pixels.
    """
    left, top, right, bottom = letterbox.logits_window(h, w)
    across = letterbox.frame_width * scale / (right - left)
    down = letterbox.frame_height * scale / (bottom - top)
    return across, -left * across, down, -top * down


@inline_helper
def cell(at, last):  # type: ignore[no-untyped-def]
    """The cell between whole numbers up to ``last`` that a coordinate lies in, and where in it (0..1)."""
    at = min(max(at, np.float32(0)), np.float32(last))
    first = min(np.int32(at), max(last - np.int32(1), np.int32(0)))
    return first, at - np.float32(first)
