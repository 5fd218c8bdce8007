"""A stage for outputs of boxes: ``--stage tests.faults.boxes:boxes``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from perception.types import Detections, Prediction

BOXES = 20


def boxes(prediction: Prediction) -> Prediction:
    """The same number of boxes in every frame, with identities; where they are depends on the frame's number alone."""
    frame = prediction.frame
    rng = np.random.default_rng(frame.index)
    corners = rng.uniform(0, 1, (BOXES, 2, 2)).astype(np.float32) * (frame.width, frame.height)
    corners = np.concatenate([corners.min(1), corners.max(1)], 1).astype(np.float32)
    scores = np.sort(rng.uniform(0.1, 1, BOXES).astype(np.float32))[::-1].copy()
    found = Detections(corners, scores, rng.integers(0, 8, BOXES).astype(np.int32), np.arange(1, BOXES + 1))
    return replace(prediction, detections=found)
