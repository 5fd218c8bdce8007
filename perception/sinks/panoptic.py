"""Panoptic segments as COCO has them: a PNG a frame whose colours are segment ids, and one JSON for all."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from perception.card import ModelCard, SegmentationTask
from perception.errors import UsageError
from perception.postprocess.panoptic import Panoptic
from perception.sinks.base import Sink
from perception.sinks.document import CocoDocument, category_of
from perception.sinks.files import sink_errors
from perception.sinks.folder import PictureFolder
from perception.types import U8, Prediction, SourceInfo


class PanopticSink(Sink):
    """Writes ``panoptic.json`` and ``panoptic/NAME.png`` into a folder, COCO's format for panoptic segmentation.

    Each frame is an image; its annotation names the PNG and has a row for each segment: ``id`` in the PNG,
    ``category_id``, ``area``, ``bbox`` (``[x, y, width, height]`` in pixels), ``iscrowd`` for things that no box told
    apart, and ``score`` for the others. Categories are the classes of pixels, with ids from 1 (`category_of`).

    Args:
        path: the folder; it is made.
        overwrite: replace what is there.

    Raises:
        UsageError: the folder has such files and ``overwrite`` is False.
        SinkError: the place is not writable.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        path = Path(path)
        with sink_errors(str(path)):
            if path.exists() and not path.is_dir():
                raise UsageError("this is a file, not a folder; give another name", path)
        self.where = str(path)
        self._document = CocoDocument(path / "panoptic.json", overwrite)
        self._pictures = PictureFolder(path / "panoptic", ".png", overwrite)
        self._task: SegmentationTask | None = None

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        if card is not None and card.segmentation is None:
            raise UsageError(f"the model {card.name} does not do segmentation, so there are no segments", self.where)
        self._task = card.segmentation if card else None
        self._pictures.open(info)
        self._document.open(info, card, {})
        self._describe(frozenset())

    def write(self, prediction: Prediction) -> None:
        view, frame = prediction.panoptic, prediction.frame
        if view is None:
            raise UsageError("the prediction has no segments: the stages must include a PanopticStage", self.where)
        data = cv2.imencode(".png", id_colors(view.ids)[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
        name = self._pictures.put(frame, data.tobytes()).name
        self._document.add_image(frame)
        self._document.add_annotation(
            {"image_id": frame.index, "file_name": name, "segments_info": _segments_info(view)}
        )
        self._describe(view.things)

    def _describe(self, things: frozenset[int]) -> None:
        """The classes that are things are known with the first frame, so categories come last."""
        classes = self._task.classes if self._task else []
        self._document.tail = {
            "categories": [
                {"id": category_of(i), "name": c.name, "isthing": int(i in things), "color": list(c.color)}
                for i, c in enumerate(classes)
            ]
        }

    def close(self) -> None:
        self._document.close()

    def abort(self) -> None:
        self._document.abort()


def _segments_info(view: Panoptic) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for s in view.segments:
        x0, y0, x1, y1 = s.box
        crowd = int(s.score is None and s.class_id in view.things)
        row: dict[str, object] = {"id": s.id, "category_id": category_of(s.class_id), "area": s.area}
        row |= {"bbox": [x0, y0, x1 - x0, y1 - y0], "iscrowd": crowd}
        rows.append(row if s.score is None else row | {"score": round(s.score, 4)})
    return rows


def id_colors(ids: NDArray[np.int32]) -> U8:
    """Segment ids as COCO colours them, uint8 ``[H, W, 3]`` RGB: ``id = R + 256 G + 65536 B``."""
    octets: U8 = ids.astype("<i4").view(np.uint8).reshape(*ids.shape, 4)
    return octets[..., :3]
