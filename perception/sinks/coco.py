"""COCO JSON: one document with images, annotations and categories."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from perception.card import ModelCard
from perception.sinks.base import Sink
from perception.sinks.document import CocoDocument, category_of
from perception.sinks.names import ClassNames
from perception.types import Prediction, SourceInfo


class CocoSink(Sink):
    """Writes a COCO data set: each frame is an image, each box an annotation with a ``score``.

    ``image.id`` is the frame's index and ``image.time`` its time in seconds. Pictures have their own ``file_name``, the
    frames of a video those that CVAT gives them. Categories are the detection classes, with ids of one more than those
    of the classes (`category_of`), followed (with ``masks``) by the segmentation classes: these are ``stuff``, an
    annotation for each frame and class that has pixels, with a compressed RLE. Boxes are ``[x, y, width, height]`` in
    pixels.
    Annotation ids begin with 1, because COCO's own evaluation takes 0 for "none".

    Annotations go to a temporary file and follow the images when it is closed, so memory does not grow with the number
    of frames. The file is ``NAME.part`` until then; after an error it keeps that name, and is valid up to the error.

    Args:
        path: the file.
        overwrite: replace a file that is there.
        masks: write the class masks, too; None writes them if the model detects nothing.

    Raises:
        UsageError: the file is there and ``overwrite`` is False.
        SinkError: its folder is not there or not writable.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False, masks: bool | None = None) -> None:
        self._document = CocoDocument(path, overwrite)
        self.where = str(path)
        self._masks = masks
        self._of_pictures = False
        self._stuff_offset = 0
        self._annotation_count = 0

    def open(self, info: SourceInfo, card: ModelCard | None = None) -> None:
        names = ClassNames(card)
        self._of_pictures = info.kind == "images"
        if self._masks is None:
            self._masks = bool(names.segments) and not names.detections
        self._stuff_offset = len(names.detections)
        categories = [
            {"id": category_of(i), "name": n, "supercategory": "thing"} for i, n in enumerate(names.detections)
        ]
        if self._masks:
            categories += [
                {"id": category_of(self._stuff_offset + i), "name": n, "supercategory": "stuff"}
                for i, n in enumerate(names.segments)
            ]
        self._document.open(info, card, {"categories": categories})

    def write(self, prediction: Prediction) -> None:
        frame = prediction.frame
        self._document.add_image(frame, None if self._of_pictures else f"frame_{frame.index:06d}.PNG")
        for annotation in self._of(prediction):
            self._annotation_count += 1
            ids = {"id": self._annotation_count, "image_id": prediction.frame.index}
            self._document.add_annotation({**ids, **annotation, "iscrowd": 0})

    def _of(self, prediction: Prediction) -> Iterator[dict[str, Any]]:
        found = prediction.detections
        if found is not None and len(found):
            boxes = found.boxes.astype(np.float64)
            boxes[:, 2:] -= boxes[:, :2]
            areas = np.round(boxes[:, 2] * boxes[:, 3], 2).tolist()
            scores = np.round(found.scores.astype(np.float64), 4).tolist()
            tracks = [None] * len(found) if found.track_ids is None else found.track_ids.tolist()
            rows = zip(np.round(boxes, 2).tolist(), areas, scores, found.class_ids.tolist(), tracks, strict=True)
            for box, area, score, class_id, track in rows:
                # CVAT looks for a mask, and takes the box where it is empty
                row = {"category_id": category_of(class_id), "bbox": box, "area": area}
                row |= {"segmentation": [], "score": score}
                yield row if track is None else {**row, "track_id": track, "attributes": _of_cvat(track)}
        if self._masks and prediction.class_map is not None:
            from perception.sinks.rle import encode_classes

            mask = prediction.class_map.mask
            for class_id, rle in encode_classes(mask).items():
                if class_id not in prediction.class_map.ignored:
                    one = mask == class_id
                    ys, xs = (np.flatnonzero(one.any(axis)) for axis in (1, 0))
                    box = [int(xs[0]), int(ys[0]), int(xs[-1] - xs[0] + 1), int(ys[-1] - ys[0] + 1)]
                    area = int(np.count_nonzero(one))
                    category = category_of(self._stuff_offset + class_id)
                    yield {"category_id": category, "bbox": box, "area": area, "segmentation": rle, "score": 1.0}

    def close(self) -> None:
        self._document.close()

    def abort(self) -> None:
        self._document.abort()


def _of_cvat(track: int) -> dict[str, Any]:
    """What CVAT reads a track from: each box is a key frame of it."""
    return {"track_id": track, "keyframe": True, "occluded": False}
