"""The plain loop that the pipeline replaces: everything at full size, one step after another.

``cv2.VideoCapture``, torch eager, bilinear upsampling, argmax, palette look-up, ``cv2.addWeighted``,
``cv2.VideoWriter``. Upsampling and argmax come in two ways: in torch, as torchvision's own segmentation models do it,
and in OpenCV and NumPy with the classes last in memory, which is the faster of the two on a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from perception.errors import PerceptionError
from perception.model import Model
from perception.types import F32

Upsampling = Callable[[F32, int, int], Any]


def plain_fps(model: Model, clip: Path, output: Path, frames: int, upsample: Upsampling) -> float:
    """Measure the frames per second of the plain loop.

    Args:
        model: on the torch engine.
        clip: video to read.
        output: video to write, ``.mp4``.
        frames: how many frames.
        upsample: makes a mask ``[height, width]`` of class ids from logits ``[C, h, w]``, width and height.

    Raises:
        PerceptionError: the model does not segment.
    """
    task = model.card.segmentation
    if task is None:
        raise PerceptionError("the plain loop needs a model that segments", model.card.name)
    palette = np.array([c.color[::-1] for c in task.classes], np.uint8)
    reader = cv2.VideoCapture(str(clip))
    width, height = int(reader.get(cv2.CAP_PROP_FRAME_WIDTH)), int(reader.get(cv2.CAP_PROP_FRAME_HEIGHT))
    writer = cv2.VideoWriter(str(output), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (width, height))
    count = 0
    started = time.perf_counter()
    while count < frames:
        ok, frame = reader.read()
        if not ok:
            break
        small = np.asarray(cv2.resize(frame, model.size), np.uint8)
        logits = model.engine.infer(small[None])[task.output][0]
        mask = upsample(logits, width, height)
        writer.write(cv2.addWeighted(frame, 0.5, palette[mask], 0.5, 0))
        count += 1
    writer.release()
    elapsed = time.perf_counter() - started
    reader.release()
    return count / elapsed


def in_torch(logits: F32, width: int, height: int) -> Any:
    """``interpolate`` and ``argmax`` of torch."""
    import torch

    large = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], (height, width), mode="bilinear")
    return large[0].argmax(0).numpy()


def in_opencv(logits: F32, width: int, height: int) -> Any:
    """``cv2.resize`` with the classes as channels, and NumPy's ``argmax`` over them."""
    large = cv2.resize(logits.transpose(1, 2, 0), (width, height), interpolation=cv2.INTER_LINEAR)
    return large.argmax(axis=2)
