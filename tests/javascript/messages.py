"""Result messages as the server makes them, as JSON lines: what tests/javascript/message.test.mjs reads back.

Each line has the message in base64 and, from the prediction itself and not from the message, what must be in it.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import perception
from perception.server.viewers.messages import STAGES, pack
from tests.models import PALETTE, solid, write_model

TASKS = {
    "everything": {"segmentation": True, "detection": True, "classification": True},
    "masks": {"segmentation": True},
    "boxes": {"segmentation": False, "detection": True},
    "labels": {"segmentation": False, "classification": True},
}


def pictures() -> Iterator[np.ndarray]:
    """Squares on gray, noise (short runs), and one colour, whose run takes three bytes."""
    rng = np.random.default_rng(5)
    colors = [color[::-1] for color in list(PALETTE.values())[:3]]
    for width, height in [(64, 48), (129, 77), (320, 240)]:
        image = np.full((height, width, 3), 160, np.uint8)
        image[:16, 16:32] = colors[2]
        image[16:32, :16] = colors[0]
        yield image
        cells = rng.integers(0, 3, (height // 4 + 1, width // 4 + 1))
        yield np.ascontiguousarray(np.array(colors, np.uint8)[cells].repeat(4, 0).repeat(4, 1)[:height, :width])
    yield solid("green", 320, 240)


def describe(number: int, image: np.ndarray, model: Any, cells: int) -> dict[str, Any]:
    """One message and what it must say."""
    prediction = model.predict(image)
    if prediction.detections is not None and number % 2:
        ids = 2**31 + 10 * np.arange(len(prediction.detections))
        prediction = replace(prediction, detections=replace(prediction.detections, track_ids=ids))
    timings = {"decode": 0.5, "wait": 1.25, "server": 20.0}
    every = {**prediction.timings, **timings}
    boxes, mask = prediction.detections, prediction.class_map
    expected: dict[str, Any] = {
        "number": number,
        "width": image.shape[1],
        "height": image.shape[0],
        "timings": {stage: every.get(stage, 0.0) for stage in STAGES},
        "boxes": [] if boxes is None else boxes.boxes.ravel().tolist(),
        "scores": [] if boxes is None else boxes.scores.tolist(),
        "classIds": [] if boxes is None else boxes.class_ids.tolist(),
        "trackIds": [] if boxes is None or boxes.track_ids is None else boxes.track_ids.tolist(),
        "labelIds": [index for index, _ in prediction.labels or []],
        "labelScores": [score for _, score in prediction.labels or []],
        "shares": None,
        "map": None,
    }
    if mask is not None and cells >= max(image.shape):  # at the size of the frame, the map is the mask
        expected["map"] = mask.mask.ravel().tolist()
        expected["shares"] = (np.bincount(mask.mask.ravel(), minlength=3) / mask.mask.size).tolist()
    message = pack(number, prediction, timings, longest=cells)
    return {"message": base64.b64encode(message).decode(), "cells": cells, "masks": mask is not None, **expected}


def main() -> None:
    """Write the lines to standard output."""
    numbers = iter([0, 2**31, 2**32 - 1, *range(1, 1000)])
    with tempfile.TemporaryDirectory() as folder:
        for name, tasks in TASKS.items():
            path = write_model(Path(folder) / f"{name}.onnx", name=name, **tasks)
            with perception.load_model(path) as model:
                for image in pictures():
                    for cells in (400, 40, 0):
                        line = describe(next(numbers), image, model, cells)
                        sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
