"""A module of stages such as an operator writes, in a folder of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

SOURCE = '''
from dataclasses import replace

import numpy as np

from perception.types import Detections


def only(left, top, width, height, class_id):
    box = np.array([[left, top, left + width, top + height]], np.float32)
    return Detections(box, np.ones(1, np.float32), np.array([class_id], np.int32))


class Count:
    """One box at the top left; its width in pixels is the number of frames seen."""

    made = []

    def __init__(self):
        self.indices = []
        Count.made.append(self)

    def __call__(self, prediction):
        self.indices.append(prediction.frame.index)
        return replace(prediction, detections=only(0, 0, len(self.indices), 8, 1))


def mark(prediction):
    """One box around the left half of the picture."""
    frame = prediction.frame
    return replace(prediction, detections=only(0, 0, frame.width // 2, frame.height, 0))


def broken(prediction):
    raise ValueError("no lane")


def needs_boxes(prediction):
    if not len(prediction.detections):
        raise ValueError("no boxes")
    return prediction


class BrokenAtFirst:
    def __init__(self):
        self.seen = 0

    def __call__(self, prediction):
        self.seen += 1
        if self.seen <= 3:
            raise ValueError("not yet")
        return replace(prediction, detections=only(0, 0, 5, 8, 1))


def unknown(prediction):
    return replace(prediction, detections=only(0, 0, 5, 8, 99))
'''


@contextmanager
def own_stages(folder: Path, name: str) -> Iterator[ModuleType]:
    """The module, importable under a name as long as it is needed."""
    (folder / f"{name}.py").write_text(SOURCE, encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        yield __import__(name)
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(name, None)
