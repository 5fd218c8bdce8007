"""Fitting a picture into a rectangle of another size, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from perception.picture.planes import F32

ResizeMode = Literal["stretch", "letterbox"]

PAD = 114
"""Grey level (B = G = R) around a letterboxed frame."""


@dataclass(frozen=True, slots=True)
class Letterbox:
    """The place of a frame in a network's input: the integers that were used, and nothing recomputed from ratios.

    Attributes:
        frame_width, frame_height: size of the frame in pixels.
        input_width, input_height: size of the network's input in pixels.
        left, top, width, height: the rectangle of the input that the whole frame fills; the rest is padding.
    """

    frame_width: int
    frame_height: int
    input_width: int
    input_height: int
    left: int
    top: int
    width: int
    height: int

    @classmethod
    def fit(
        cls, frame_width: int, frame_height: int, input_width: int, input_height: int, mode: ResizeMode = "stretch"
    ) -> Letterbox:
        """Place a frame: over the whole input (``stretch``), or centred with its aspect ratio kept (``letterbox``).

        Raises:
            ValueError: a size is not positive, or the mode is unknown.
        """
        if min(frame_width, frame_height, input_width, input_height) < 1:
            raise ValueError(
                f"sizes must be positive: frame {frame_width}x{frame_height}, input {input_width}x{input_height}"
            )
        if mode == "stretch":
            return cls(frame_width, frame_height, input_width, input_height, 0, 0, input_width, input_height)
        if mode != "letterbox":
            raise ValueError(f"mode must be 'stretch' or 'letterbox', not {mode!r}")
        scale = min(input_width / frame_width, input_height / frame_height)
        width = min(max(round(frame_width * scale), 1), input_width)
        height = min(max(round(frame_height * scale), 1), input_height)
        left, top = (input_width - width) // 2, (input_height - height) // 2
        return cls(frame_width, frame_height, input_width, input_height, left, top, width, height)

    @property
    def padded(self) -> bool:
        """True where a part of the input shows no frame."""
        return self.width < self.input_width or self.height < self.input_height

    def to_frame(self, boxes_xyxy: F32) -> F32:
        """Convert boxes in input pixels, float ``[N, 4]`` xyxy, to float32 boxes in frame pixels, clipped to it."""
        boxes = np.array(boxes_xyxy, np.float32).reshape(-1, 4)
        sx, sy = np.float32(self.frame_width / self.width), np.float32(self.frame_height / self.height)
        boxes[:, 0::2] = np.clip((boxes[:, 0::2] - np.float32(self.left)) * sx, 0, self.frame_width)
        boxes[:, 1::2] = np.clip((boxes[:, 1::2] - np.float32(self.top)) * sy, 0, self.frame_height)
        return boxes

    def to_input(self, boxes_xyxy: F32) -> F32:
        """Convert boxes in frame pixels, float ``[N, 4]`` xyxy, to float32 boxes in input pixels."""
        boxes = np.array(boxes_xyxy, np.float32).reshape(-1, 4)
        sx, sy = np.float32(self.width / self.frame_width), np.float32(self.height / self.frame_height)
        boxes[:, 0::2] = boxes[:, 0::2] * sx + np.float32(self.left)
        boxes[:, 1::2] = boxes[:, 1::2] * sy + np.float32(self.top)
        return boxes

    def logits_window(self, h: int, w: int) -> tuple[float, float, float, float]:
        """Return the part of logits ``[C, h, w]`` that belongs to the frame.

        Returns:
            ``left, top, right, bottom`` in units of logits, edge to edge: the whole input is ``0, 0, w, h``.
        """
        sx, sy = w / self.input_width, h / self.input_height
        return self.left * sx, self.top * sy, (self.left + self.width) * sx, (self.top + self.height) * sy
